"""What is amiss with keys."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar

from django.db import models
from django.db.models import Q

from keys.models import Key, Organization


class SignalQuerySet(models.QuerySet["Signal"]):
    def raised(self) -> SignalQuerySet:
        """Those that are true, as far as was last looked."""
        return self.filter(cleared_at=None)

    def shown(self, now: dt.datetime) -> SignalQuerySet:
        """Those of them that nobody has dismissed, or whose time to come back has come."""
        return self.raised().filter(Q(dismissed_at=None) | Q(dismissed_until__lte=now))


class Signal(models.Model):
    """Something about a key that somebody should look at: one row for each kind, kept once it is cleared.

    `usage.watch` raises and clears it; what it means is in `usage.signals`.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="signals", db_index=False
    )
    key = models.ForeignKey(Key, on_delete=models.PROTECT, related_name="signals", db_index=False)
    kind = models.CharField(max_length=20)
    points = models.PositiveSmallIntegerField()
    evidence = models.JSONField(default=dict)  # what `signals.judge` found
    raised_at = models.DateTimeField()
    found_at = models.DateTimeField()  # when the evidence is from
    cleared_at = models.DateTimeField(null=True)
    dismissed_at = models.DateTimeField(null=True)
    dismissed_until = models.DateTimeField(null=True)  # None: until it is raised anew
    dismissed_by = models.CharField(max_length=254, blank=True)

    objects = SignalQuerySet.as_manager()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["key", "kind"], name="one_signal_each"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization", "cleared_at"], name="signal_of_organization"),
            models.Index(  # all that ranks keys, without a look at the rows
                fields=["key", "points", "dismissed_at", "dismissed_until"],
                name="signal_raised",
                condition=Q(cleared_at=None),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.key_id}"
