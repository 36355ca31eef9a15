"""Reports of leaked secrets in the admin: to be read; what is to be done is done on the key's page."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from keys.admin.base import LifecycleAdmin, ReadOnly, link
from keys.models import LeakReport


@admin.register(LeakReport)
class LeakReportAdmin(ReadOnly, LifecycleAdmin[LeakReport]):
    list_display = ("reported_at", "key_link", "organization_link", "secret", "door", "response", "place")
    list_filter = ("door", "response")
    date_hierarchy = "reported_at"
    search_fields = ("key__public_id__exact", "key__name", "key__organization__name", "place")
    search_help_text = "A key's id or name, an organization's name, or where it was found."
    fields = ("reported_at", "key_link", "organization_link", "secret", "door", "place", "source", "response")
    readonly_fields = fields
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[LeakReport]:
        return super().get_queryset(request).select_related("key__organization", "secret__key")

    @admin.display(description="organization")
    def organization_link(self, report: LeakReport) -> str:
        return link(report.key.organization)

    @admin.display(description="key")
    def key_link(self, report: LeakReport) -> str:
        return link(report.key, report.key.name)
