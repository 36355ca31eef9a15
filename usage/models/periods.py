"""Months that are closed: their statements, line by line, as they were sent; and what staff credited."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from keys.models import Organization
from usage.models.billing import BillingDetails


class ClosedPeriod(models.Model):
    """A month that is cut: what comes late is booked to a later one; closed, once its
    statement is whole."""

    period = models.DateField(primary_key=True)  # its first day
    cut_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)  # None: its lines are still being written
    complete_through = models.DateTimeField(
        null=True
    )  # everything before it was counted; None: nobody called
    # [{"host": …, "since": …, "reason": …}]: hosts that were given up on, whose calls may be missing
    retired_hosts = models.JSONField(default=list)
    lines = models.BigIntegerField(default=0)
    quantity_by_meter = models.JSONField(default=dict)  # meter → quantity in its smallest unit
    amount_by_currency = models.JSONField(default=dict)  # currency → plain decimal
    sha256 = models.CharField(max_length=64, blank=True)  # of the CSV export of all its lines
    previous_sha256 = models.CharField(max_length=64, blank=True)  # the month's before; empty for the first

    class Meta:
        ordering = ["-period"]

    def __str__(self) -> str:
        return f"{self.period:%Y-%m}"


class Verification(models.Model):
    """What `verify_billing` found when it last looked at a closed month, or at the journals."""

    JOURNALS = "journals"

    subject = models.CharField(max_length=10, primary_key=True)  # a month, `2026-01`, or JOURNALS
    at = models.DateTimeField()
    difference = models.TextField(blank=True)  # the first one, a sentence; empty: everything was as closed

    def __str__(self) -> str:
        return f"{self.subject}: {self.difference or 'as closed'}"


class StatementLine(models.Model):
    """A line of a closed month: the columns of `usage.billing.Line`, an empty text where it has no value.

    It names its organization and key instead of referring to them, so that nothing later changes it.
    """

    pk = models.CompositePrimaryKey("closed_id", "position")
    closed = models.ForeignKey(
        ClosedPeriod, on_delete=models.PROTECT, related_name="statement_lines", db_index=False
    )
    position = models.BigIntegerField()  # from 1, in the order of the export
    organization = models.CharField(max_length=50)
    organization_name = models.TextField(blank=True)
    external_customer = models.TextField(blank=True)
    key = models.CharField(max_length=50, blank=True)
    key_name = models.TextField(blank=True)
    environment = models.CharField(max_length=10, blank=True)
    meter = models.CharField(max_length=50, blank=True)
    resource = models.CharField(max_length=128, blank=True)
    unit = models.CharField(max_length=50, blank=True)
    tier = models.CharField(max_length=10, blank=True)
    quantity = models.BigIntegerField()  # all three in the meter's smallest unit
    included = models.BigIntegerField(null=True)
    billable = models.BigIntegerField()
    unit_price = models.CharField(max_length=50, blank=True)
    amount = models.CharField(max_length=50, blank=True)
    currency = models.CharField(max_length=3, blank=True)
    kind = models.CharField(max_length=10)
    original_period = models.CharField(max_length=7, blank=True)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["closed", "organization", "position"], name="statement_of_organization"),
        ]

    def __str__(self) -> str:
        return f"{self.closed_id:%Y-%m} line {self.position}"


class StatementAccount(BillingDetails):
    """Whom a closed month was billed to. It names its organization as the month's lines do; an id that was
    missing at closing is filled in once, nothing else ever changes."""

    pk = models.CompositePrimaryKey("closed_id", "organization")
    closed = models.ForeignKey(
        ClosedPeriod, on_delete=models.PROTECT, related_name="accounts", db_index=False
    )
    organization = models.CharField(max_length=50)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["organization"], name="account_of_organization"),
        ]

    def __str__(self) -> str:
        return f"{self.organization} in {self.closed_id:%Y-%m}"


class Credit(models.Model):
    """What staff took off an organization's bill for a month: a line of the month that was open then."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="credits", db_index=False
    )
    original_period = models.DateField("month")  # the first day of the month that it is for
    booked_period = models.DateField("booked to")  # of the month whose statement has it
    amount = models.BigIntegerField()  # in minor units; below 0 it is put onto the bill
    currency = models.CharField(max_length=3)  # ISO 4217
    reason = models.CharField(max_length=200)
    given_at = models.DateTimeField()
    given_by = models.CharField(max_length=254)

    class Meta:
        ordering = ["-given_at", "-id"]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["booked_period", "organization"], name="credit_of_period"),
            models.Index(fields=["organization", "original_period"], name="credit_of_organization"),
        ]

    def __str__(self) -> str:
        return f"{self.organization}: {self.reason}"
