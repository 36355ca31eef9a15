"""Meters in the admin, to be defined; and the journals' state, to be read: how far, and what is amiss.

Roll-ups have a composite key, which the admin does not take; staff read them at /staff/usage/. Every write
goes through `usage.definitions` as the person signed in, so that each is one audited act.
"""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.admin.options import ActionLocation
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.html import format_html

import usage.billing_admin  # noqa: F401  registers plans and subscriptions
from keys.admin.base import EVERYWHERE, LifecycleAdmin, LifecycleForm, ReadOnly, TabularInline, actor
from usage import definitions, findings
from usage.models import Finding, Meter, Segment, Spool


class MeterForm(LifecycleForm[Meter]):
    class Meta:
        model = Meter
        fields = ("slug", "title", "unit", "aggregation", "decimals")
        help_texts: ClassVar[dict[str, str]] = {
            "slug": "How calls and events name it, e.g. tokens. It never changes.",
            "title": "For people, e.g. Tokens.",
            "unit": "One of it, e.g. token. It never changes.",
            "aggregation": "Add up what calls cost and events report, or count them. It never changes.",
            "decimals": "0 to 6. What calls cost is in the smallest unit: with 3 decimals 1500 is 1.500. They"
            " never change.",
        }


@admin.register(Meter)
class MeterAdmin(LifecycleAdmin[Meter]):
    form = MeterForm
    fields = ("slug", "title", "unit", "aggregation", "decimals")
    list_display = ("slug", "title", "unit", "aggregation", "decimals", "created_at", "archived_at")
    list_filter = (("archived_at", admin.EmptyFieldListFilter),)
    search_fields = ("slug", "title")
    ordering = ("slug",)
    actions = ("archive",)

    def get_readonly_fields(self, request: HttpRequest, obj: Meter | None = None) -> tuple[str, ...]:
        return ("slug", "unit", "aggregation", "decimals", "created_at", "archived_at") if obj else ()

    def get_fields(self, request: HttpRequest, obj: Meter | None = None) -> tuple[str, ...]:
        return (*self.fields, "created_at", "archived_at") if obj else self.fields

    def perform(self, request: HttpRequest, form: Any, obj: Meter, change: bool) -> Meter:
        now = timezone.now()
        if change:
            return definitions.edit_meter(actor(request), obj, title=form.cleaned_data["title"], now=now)
        return definitions.create_meter(actor(request), now=now, **form.cleaned_data)

    @admin.action(description="Archive…", permissions=["change"], location=EVERYWHERE)
    def archive(self, request: HttpRequest, queryset: QuerySet[Meter]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="archive",
            title="Archive meters",
            text="New calls and events on them are refused from now on, for good. What they counted is kept, "
            "shown and billed.",
            button="Archive",
            act=lambda meter, data: definitions.archive_meter(actor(request), meter, now=timezone.now()),
            done="archived.",
        )


class SegmentInline(ReadOnly, TabularInline[Segment, Spool]):
    model = Segment
    fields = ("number", "offset", "records", "ignored_bytes", "finished_at")
    readonly_fields = fields
    ordering = ("-number",)
    extra = 0
    can_delete = False


@admin.register(Spool)
class SpoolAdmin(ReadOnly, LifecycleAdmin[Spool]):
    list_display = ("id", "host", "pid", "started_at", "watermark", "sequence", "finished_at", "retired_at")
    list_filter = (
        ("finished_at", admin.EmptyFieldListFilter),
        ("retired_at", admin.EmptyFieldListFilter),
    )
    search_fields = ("id", "host")
    fields = (*list_display, "retired_reason")
    readonly_fields = fields
    ordering = ("-started_at", "id")
    inlines: ClassVar[tuple[type[SegmentInline], ...]] = (SegmentInline,)
    actions = None


@admin.register(Finding)
class FindingAdmin(ReadOnly, LifecycleAdmin[Finding]):
    """What is amiss in a journal; staff say that they have seen it, and change nothing of it."""

    list_display = ("text", "journal", "found_at", "seen_at")
    list_filter = (("seen_at", admin.EmptyFieldListFilter), "kind")
    search_fields = ("spool",)
    search_help_text = "A journal's id, the first half of a request's."
    date_hierarchy = "found_at"
    fields = (
        "kind",
        "journal",
        "offset",
        "first_sequence",
        "last_sequence",
        "text",
        "bytes",
        "found_at",
        "seen_at",
        "seen_by",
    )
    readonly_fields = fields
    ordering = ("-id",)  # as they were found, by the primary key's index
    actions = ("see",)

    def has_see_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("usage.change_finding")

    @admin.display(description="journal", ordering="spool")
    def journal(self, finding: Finding) -> str:
        return f"{finding.spool}.{finding.segment:06d}"

    @admin.display(description="bytes")
    def bytes(self, finding: Finding) -> str:
        """In hexadecimal, 16 a line."""
        lines = [finding.payload[start : start + 32] for start in range(0, len(finding.payload), 32)]
        return format_html("<pre>{}</pre>", "\n".join(lines)) if lines else "—"

    @admin.action(
        description="Mark as seen…",
        permissions=["see"],
        location=[ActionLocation.CHANGE_LIST, ActionLocation.CHANGE_FORM],
    )
    def see(self, request: HttpRequest, queryset: QuerySet[Finding]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="see",
            title="Mark findings as seen",
            text="They stay here and are counted on the staff overview no more. The audit keeps your name.",
            button="Mark as seen",
            harmless=True,
            act=lambda finding, data: findings.see(finding, actor(request), now=timezone.now()),
            done="marked as seen.",
        )
