"""How much was called: meters, spools with segments and findings, hourly roll-ups, refusals, last uses; what
was reported from outside, the held calls that wait for it, and quotas.

`usage.drain`, `usage.events` and `usage.retention` alone count here, and `usage.ledger` for quotas; what
staff define goes through `usage.definitions`, what people decide about journals through `usage.watermark` and
`usage.findings`. Rows name keys and organizations without a database constraint: a journal that outlived a
restored database must still drain.
"""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now

from keys.models import Key, Organization, Secret


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


class Refusal(models.Model):
    """A call that was refused; its request id is `<spool>-<sequence>`.

    Those of a flood are not rows, but counted in `more` of the last row of their key, code and minute.
    Without an organization no key was recognised.
    """

    spool = models.CharField(max_length=16)
    sequence = models.BigIntegerField()
    at = models.DateTimeField()
    organization = models.ForeignKey(
        Organization,
        null=True,
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    key = models.ForeignKey(
        Key, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    secret = models.ForeignKey(
        Secret, null=True, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    outcome = models.CharField(max_length=32)  # the verdict's code, as in roll-ups
    resource = models.CharField(max_length=128, blank=True)
    address = models.CharField(max_length=45, blank=True)
    user_agent = models.CharField(max_length=256, blank=True)
    more = models.BigIntegerField(default=0)  # like it, that have no row

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["spool", "sequence"], name="one_row_per_refusal"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["at"], name="refusal_at"),
            models.Index(fields=["organization", "at"], name="refusal_of_organization"),
            models.Index(fields=["key", "at"], name="refusal_of_key"),
        ]

    def __str__(self) -> str:
        return f"{self.outcome} {self.request_id}"

    @property
    def request_id(self) -> str:
        return f"{self.spool}-{self.sequence}"


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
