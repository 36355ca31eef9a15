"""What was counted: hourly roll-ups of calls and of answers, the resources they keep apart, last uses."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from keys.models import Key, Organization, Secret


class Rollup(models.Model):
    """Calls and quantity of one key in a UTC hour, by meter, resource, outcome, booked period."""

    pk = models.CompositePrimaryKey(
        "organization_id", "hour", "key_id", "meter", "resource", "outcome", "booked_period"
    )
    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    hour = models.DateTimeField()
    key = models.ForeignKey(
        Key, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    meter = models.CharField(max_length=50)
    resource = models.CharField(max_length=128, blank=True)
    outcome = models.CharField(max_length=32)  # a verdict's code; only VALID is billed
    booked_period = models.DateField()  # first day of the month whose statement carries it
    calls = models.BigIntegerField(default=0)
    quantity = models.BigIntegerField(default=0)  # in the meter's smallest unit

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["booked_period", "organization", "key"], name="rollup_of_period"),
            models.Index(fields=["key", "hour"], name="rollup_of_key"),
            models.Index(fields=["hour"], name="rollup_of_hour"),  # of everybody, for staff
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.hour:%Y-%m-%d %H}h {self.meter} {self.outcome}: {self.quantity}"


class OrganizationRollup(models.Model):
    """The roll-ups of all keys of an organization and environment together: few rows, however many keys there
    are, for questions that name none. `usage.organization_rollups` writes them."""

    pk = models.CompositePrimaryKey(
        "organization_id", "hour", "environment", "meter", "resource", "outcome", "booked_period"
    )
    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    hour = models.DateTimeField()
    environment = models.CharField(max_length=4, blank=True)  # empty: this database lost the key
    meter = models.CharField(max_length=50)
    resource = models.CharField(max_length=128, blank=True)
    outcome = models.CharField(max_length=32)
    booked_period = models.DateField()
    calls = models.BigIntegerField()
    quantity = models.BigIntegerField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["booked_period", "organization"], name="organization_rollup_of_period"),
            models.Index(fields=["hour"], name="organization_rollup_of_hour"),  # of everybody, for staff
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.hour:%Y-%m-%d %H}h {self.meter} {self.outcome}: {self.quantity}"


class ResponseRollup(models.Model):
    """How calls of one key in a UTC hour were answered, where that is known (`usage.decorators`)."""

    pk = models.CompositePrimaryKey("organization_id", "hour", "key_id", "resource", "status_class")
    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    hour = models.DateTimeField()
    key = models.ForeignKey(
        Key, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    resource = models.CharField(max_length=128, blank=True)
    status_class = models.PositiveSmallIntegerField()  # 2 of 200
    responses = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.key_id} {self.hour:%Y-%m-%d %H}h {self.status_class}xx: {self.responses}"


class Resource(models.Model):
    """A resource that is kept apart in roll-ups; the others of its organization and meter are `other`."""

    pk = models.CompositePrimaryKey("organization_id", "meter", "name")
    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    meter = models.CharField(max_length=50)
    name = models.CharField(max_length=128)
    first_seen = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.organization_id} {self.meter} {self.name}"


class ResourceBound(models.Model):
    """How many resources of an organization and meter are kept apart. Whoever adds one locks this row."""

    pk = models.CompositePrimaryKey("organization_id", "meter")
    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    meter = models.CharField(max_length=50)
    kept = models.PositiveIntegerField(default=0)
    reached_at = models.DateTimeField(null=True)  # since when others are booked under `other`

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["reached_at"])]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.meter}: {self.kept}"


class SecretUse(models.Model):
    """When and from where a secret was last used with success."""

    secret = models.OneToOneField(
        Secret,
        primary_key=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        related_name="last_use",
    )
    calls = models.BigIntegerField(default=0)
    last_used_at = models.DateTimeField()
    address = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=256, blank=True)

    def __str__(self) -> str:
        return f"{self.secret_id} at {self.last_used_at}"
