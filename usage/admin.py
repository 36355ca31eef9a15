"""The journals' state in the admin, to be read: which host's calls are counted, and how far.

Roll-ups have a composite key, which the admin does not take; staff read them at /staff/usage/.
"""

from typing import ClassVar

from django.contrib import admin

from keys.admin.base import LifecycleAdmin, ReadOnly, TabularInline
from usage.models import Segment, Spool


class SegmentInline(ReadOnly, TabularInline[Segment, Spool]):
    model = Segment
    fields = ("number", "offset", "records", "ignored_bytes", "finished_at")
    readonly_fields = fields
    ordering = ("-number",)
    extra = 0
    can_delete = False


@admin.register(Spool)
class SpoolAdmin(ReadOnly, LifecycleAdmin[Spool]):
    list_display = ("id", "host", "pid", "started_at", "watermark", "sequence", "finished_at")
    list_filter = (("finished_at", admin.EmptyFieldListFilter),)
    search_fields = ("id", "host")
    fields = ("id", "host", "pid", "started_at", "watermark", "sequence", "finished_at")
    readonly_fields = fields
    ordering = ("-started_at", "id")
    inlines: ClassVar[tuple[type[SegmentInline], ...]] = (SegmentInline,)
    actions = None
