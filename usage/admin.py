"""The journals' state in the admin, to be read: which host's calls are counted, how far, and what is amiss.

Roll-ups have a composite key, which the admin does not take; staff read them at /staff/usage/.
"""

from typing import ClassVar

from django.contrib import admin
from django.contrib.admin.options import ActionLocation
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone
from django.utils.html import format_html

from keys.admin.base import LifecycleAdmin, ReadOnly, TabularInline, actor
from usage import findings
from usage.models import Finding, Segment, Spool


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
    ordering = ("-found_at", "-id")
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
            act=lambda finding, data: findings.see(finding, actor(request), now=timezone.now()),
            done="marked as seen.",
        )
