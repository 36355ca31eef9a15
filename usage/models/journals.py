"""Journals as the database knows them: spools, segments, how far they are counted, and what is amiss."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Spool(models.Model):
    """One process's journal. The drain locks this row, so that two never read one spool at once."""

    id = models.CharField(max_length=16, primary_key=True)  # also the first half of a request id
    host = models.CharField(max_length=100)
    pid = models.PositiveIntegerField()
    started_at = models.DateTimeField()
    # Everything up to here is in the roll-ups; None until the first record.
    watermark = models.DateTimeField(null=True)
    sequence = models.BigIntegerField(default=0)  # of the last record drained
    finished_at = models.DateTimeField(null=True)  # its process is gone and its last record is in
    retired_at = models.DateTimeField(null=True)  # its host will never return: nobody waits for it
    retired_reason = models.CharField(max_length=200, blank=True, db_default="")  # code before it writes none

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["finished_at"]),
            models.Index(
                fields=["retired_at"], name="spool_retired", condition=models.Q(retired_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.host}/{self.pid} ({self.id})"


class Segment(models.Model):
    """One file of a spool: how far it is drained, and what was in it."""

    spool = models.ForeignKey(Spool, on_delete=models.PROTECT, related_name="segments")
    number = models.PositiveIntegerField()
    offset = models.BigIntegerField(default=0)  # bytes drained
    records = models.BigIntegerField(default=0)
    sums = models.JSONField(default=dict)  # "<outcome>/<meter>" → [calls, quantity]
    chain = models.CharField(max_length=64, blank=True)  # SHA-256 over the chain before and each record
    ignored_bytes = models.BigIntegerField(default=0)  # a torn tail, left by a kill or a full disk
    finished_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["spool", "number"], name="one_row_per_segment"),
        ]

    def __str__(self) -> str:
        return f"{self.spool_id}.{self.number}"


class Watermark(models.Model):
    """The one row that says how far everything is counted; it never goes back."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    through = models.DateTimeField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=models.Q(id=1), name="only_one_watermark"),
        ]

    def __str__(self) -> str:
        return f"counted through {self.through}"


class Finding(models.Model):
    """Something amiss in a journal, kept for people: once, however often a pass comes by."""

    class Kind(models.TextChoices):
        POISON = "poison", "Record in quarantine"
        MISSING = "missing", "Records missing"
        REPEATED = "repeated", "Records that came again"
        TORN = "torn", "Torn tail"
        UNREADABLE = "unreadable", "Unreadable"
        LOST = "lost", "Counted, and gone from the disk"
        LATE = "late", "Given up on, and here after all"

    kind = models.CharField(max_length=10, choices=Kind)
    spool = models.CharField(max_length=16)  # by its name: an unreadable journal has no row
    segment = models.PositiveIntegerField()
    offset = models.BigIntegerField(default=0)  # bytes, where in the segment
    # What it is about, both ends included; 0 where nothing has a number.
    first_sequence = models.BigIntegerField(default=0)
    last_sequence = models.BigIntegerField(default=0)
    text = models.CharField(max_length=300)
    payload = models.TextField(blank=True)  # the bytes in hexadecimal
    found_at = models.DateTimeField()
    seen_at = models.DateTimeField(null=True)
    seen_by = models.CharField(max_length=254, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["kind", "spool", "segment", "offset"], name="one_finding_each"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["seen_at", "found_at"], name="finding_unseen"),
        ]

    def __str__(self) -> str:
        return f"{self.spool}.{self.segment:06d}: {self.text}"
