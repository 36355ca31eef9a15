"""Stricter limits that are tried before anybody is held to them."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from keys.models import Key, Organization


class Outcome(models.TextChoices):
    """How a trial ended."""

    APPLIED = "applied", "Applied"
    DISCARDED = "discarded", "Discarded"
    OVER = "over", "Over"


class TrialQuerySet(models.QuerySet["Trial"]):
    def running(self) -> TrialQuerySet:
        return self.filter(ended_at=None)


class Trial(models.Model):
    """Settings of a key, or limits of a whole organization, held against its calls from a moment on; they
    refuse nothing. `usage.trials` alone writes these."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="trials", db_index=False
    )
    key = models.ForeignKey(Key, null=True, on_delete=models.PROTECT, related_name="trials", db_index=False)
    changes = models.JSONField()  # setting → [before, after], of those that are another
    started_at = models.DateTimeField()
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    started_label = models.CharField(max_length=254)
    ends_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=10, blank=True, choices=Outcome)  # empty while it runs
    result = models.JSONField(default=list)  # what it would have refused, in sentences, once it has ended

    objects = TrialQuerySet.as_manager()

    class Meta:
        ordering = ["-started_at", "-id"]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["key"], condition=Q(ended_at=None), name="one_running_trial_of_key"
            ),
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(ended_at=None, key=None),
                name="one_running_trial_of_all",
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization", "-started_at"], name="trial_of_organization"),
            models.Index(fields=["key"], name="trial_of_key"),
            models.Index(fields=["ends_at"], name="trial_running", condition=Q(ended_at=None)),
        ]

    def __str__(self) -> str:
        return f"trial on {self.key or self.organization}"
