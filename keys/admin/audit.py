"""The audit in the admin: every act, newest first; to be read, never written."""

import json

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from keys.admin.base import LifecycleAdmin, ReadOnly, link
from keys.admin.fields import OrganizationFilter
from keys.models import AuditEvent

# Named here rather than read from the table, which would be a walk through all of it.
ACTS = (
    "key.created",
    "key.imported",
    "key.edited",
    "key.leaked",
    "key.canary_planted",
    "key.canary_taken_up",
    "key.rotated",
    "key.overlap_ended",
    "key.overlap_extended",
    "key.rolled_back",
    "key.retirement_announced",
    "key.retirement_withdrawn",
    "key.retired",
    "key.disabled",
    "key.enabled",
    "key.revoked",
    "key.scope_requested",
    "key.scope_approved",
    "key.scope_denied",
    "key.signal_dismissed",
    "member.added",
    "member.invited",
    "member.invitation_resent",
    "member.invitation_withdrawn",
    "member.joined",
    "member.removed",
    "member.role_changed",
    "note.added",
    "meter.archived",
    "meter.changed",
    "meter.created",
    "organization.created",
    "organization.credited",
    "organization.edited",
    "organization.policy_changed",
    "organization.resumed",
    "organization.suspended",
    "organization.transferred",
    "organization.visit_began",
    "organization.visit_ended",
    "billing_account.edited",
    "billing_alert.added",
    "billing_alert.removed",
    "period.closed",
    "plan.archived",
    "plan.created",
    "plan.edited",
    "plan.published",
    "plan.version_drafted",
    "plan.version_edited",
    "policy.created",
    "policy.edited",
    "scope.created",
    "scope.edited",
    "subscription.ended",
    "subscription.started",
    "spool.retired",
    "finding.seen",
    "group.created",
    "group.edited",
    "user.created",
    "user.edited",
)
ACTORS = ("user", "staff", "key", "command", "system")


class ActFilter(admin.SimpleListFilter):
    title = "act"
    parameter_name = "act"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(act, act) for act in ACTS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(act=self.value()) if self.value() else queryset


class ActorFilter(admin.SimpleListFilter):
    title = "actor"
    parameter_name = "actor"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [(kind, kind.capitalize()) for kind in ACTORS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(actor_kind=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnly, LifecycleAdmin[AuditEvent]):
    list_display = ("number", "at", "act", "actor", "organization_link", "key_link")
    list_filter = (ActorFilter, ActFilter, OrganizationFilter)
    date_hierarchy = "at"
    search_fields = ("actor_label", "key__public_id__exact", "key__name", "organization__name")
    search_help_text = "Who acted, a key's id or name, or an organization's name."
    fields = (
        "number",
        "at",
        "act",
        "actor",
        "organization_link",
        "key_link",
        "details",
        "previous_hash",
        "hash",
    )
    readonly_fields = fields
    sortable_by = ("number",)
    actions = None

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEvent]:
        return super().get_queryset(request).select_related("organization", "key")

    @admin.display(description="actor")
    def actor(self, event: AuditEvent) -> str:
        return f"{event.actor_label} ({event.actor_kind})"

    @admin.display(description="organization", empty_value="—")
    def organization_link(self, event: AuditEvent) -> str:
        return link(event.organization)

    @admin.display(description="key", empty_value="—")
    def key_link(self, event: AuditEvent) -> str:
        return link(event.key, event.key and event.key.name)

    @admin.display(description="details")
    def details(self, event: AuditEvent) -> str:
        return format_html("<pre>{}</pre>", json.dumps(event.data, indent=2, ensure_ascii=False))
