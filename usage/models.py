"""How much was called: spools and their segments, hourly roll-ups, each secret's last use, quotas.

Only `usage.drain` writes here, and `usage.ledger` what there is about quotas. Rows name keys and
organizations without a database constraint: a journal that outlived a restored database must still drain.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from keys.models import Key, Organization, Secret


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

    class Meta:
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["finished_at"])]

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
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.hour:%Y-%m-%d %H}h {self.meter} {self.outcome}: {self.quantity}"


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


class QuotaUse(models.Model):
    """How much of a meter one owner has used in a UTC day or month, as far as it is drained.

    Rows are made when a quota is first asked for (`usage.ledger`); from then on whoever counts adds here too.
    """

    organization = models.ForeignKey(
        Organization, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    key_id = models.BigIntegerField()  # 0: all keys of the organization together
    meter = models.CharField(max_length=50)
    unit = models.CharField(max_length=5)  # day or month
    start = models.DateTimeField()
    spent = models.BigIntegerField(default=0)  # of live keys, in the meter's smallest unit

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["organization", "key_id", "meter", "unit", "start"], name="one_use_per_period"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["start"], name="quota_use_start")]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.key_id} {self.meter} {self.unit} {self.start:%Y-%m-%d}"


class QuotaLease(models.Model):
    """What one process may spend of a quota by itself: `granted - drained` may still turn into use.

    Both only grow with what it spends. `granted` is written by the process alone, always as a whole (what it
    was given less what it gave back), so that an answer that got lost is mended by the next; `drained` is
    written by the drain alone, with the calls that were charged to the lease.
    """

    use = models.ForeignKey(QuotaUse, on_delete=models.CASCADE, related_name="leases", db_index=False)
    spool = models.CharField(max_length=16, db_index=True)  # the process, as its journal is called
    granted = models.BigIntegerField(default=0)
    drained = models.BigIntegerField(default=0)
    taken_at = models.DateTimeField()  # when `granted` was last written, by the process's clock

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["use", "spool"], name="one_lease_each"),
        ]

    def __str__(self) -> str:
        return f"{self.spool}: {self.granted - self.drained} of {self.use_id}"
