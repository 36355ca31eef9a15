"""What is used of each quota, and what processes may still use."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from keys.models import Organization


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
