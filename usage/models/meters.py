"""What staff define to be counted."""

from __future__ import annotations

from django.db import models


class Aggregation(models.TextChoices):
    SUM = "sum", "Sum of what is reported"
    COUNT = "count", "Number of reports"


class Meter(models.Model):
    """Something that staff have chosen to count. What is counted never changes, or sums would lose their
    meaning; roll-ups refer to it by slug. The built-in `requests` is not here."""

    slug = models.CharField(max_length=50, unique=True)
    unit = models.CharField(max_length=40)  # one of it, as in "token"
    title = models.CharField(max_length=100)
    aggregation = models.CharField(max_length=10, choices=Aggregation, default=Aggregation.SUM)
    decimals = models.PositiveSmallIntegerField(default=0)  # of a unit; 10**-decimals is the smallest
    created_at = models.DateTimeField()
    archived_at = models.DateTimeField(null=True, blank=True)  # nothing more is counted on it

    def __str__(self) -> str:
        return self.slug
