"""What was reported from outside, and the held calls that wait for it."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Hold(models.Model):
    """A held call: counted at what it was held for, until one event says what it really cost."""

    pk = models.CompositePrimaryKey("spool", "sequence")  # together the call's request id
    spool = models.CharField(max_length=16)
    sequence = models.BigIntegerField()
    organization_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    meter = models.CharField(max_length=50)
    resource = models.CharField(max_length=128, blank=True)
    cost = models.BigIntegerField()  # as it is in the roll-ups
    at = models.DateTimeField()
    settled_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["at"], name="hold_at")]

    def __str__(self) -> str:
        return f"{self.spool}-{self.sequence}"


class Event(models.Model):
    """One event from outside that is in the roll-ups. This row is why it is there once."""

    pk = models.CompositePrimaryKey("source", "event_id")
    source = models.CharField(max_length=200)
    event_id = models.CharField(max_length=200)
    digest = models.CharField(max_length=64)  # SHA-256 of what the event says
    organization_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    meter = models.CharField(max_length=50)
    resource = models.CharField(max_length=128, blank=True)
    at = models.DateTimeField()  # of the held call, for an event that settles one
    # What it added to the roll-ups: less than nothing where a held call cost less than was held for it.
    quantity = models.BigIntegerField()
    settles = models.CharField(max_length=32, blank=True)  # a held call's request id
    received_at = models.DateTimeField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["received_at"], name="event_received"),
        ]

    def __str__(self) -> str:
        return f"{self.source} {self.event_id}"
