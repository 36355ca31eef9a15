"""The ledger of quotas: what every owner has used of a meter in a day or month, and what processes may use.

A use's `spent` is what roll-ups hold of it; a lease is what one process was granted and its drained journal
has not shown as spent. Under the lock of the use's row both together are never above the limit. This module
alone writes these rows; it sees no call, and keeps nothing in memory.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import batched
from typing import Final, NamedTuple

from django.db import models, transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Sum, Value, When
from django.db.models.functions import Now

from keys.models import Environment, Key, Process
from keys.quotas import UNITS, Quota, period
from keys.verdicts import Code
from usage import counting
from usage.models import QuotaLease, QuotaUse, Rollup, Spool

# Which quotas a call was charged to, as its record's bits: is it the key's own, and of which period?
BITS: Final = {(True, "day"): 1, (True, "month"): 2, (False, "day"): 4, (False, "month"): 8}
# How long a lease is kept whose process is off the list while no drain knows its journal: it may soon.
UNKNOWN_FOR: Final = dt.timedelta(minutes=10)
KEEP: Final = {"day": dt.timedelta(days=62), "month": dt.timedelta(days=400)}
_CHUNK: Final = 500  # rows in one statement


class Place(NamedTuple):
    """Which use: a row of the ledger by name. `key` is 0 for all keys of the organization together."""

    organization: int
    key: int
    meter: str
    unit: str
    start: dt.datetime

    @property
    def end(self) -> dt.datetime:
        return period(self.unit, self.start)[1]


class Held(NamedTuple):
    """How a use stands under its lock: `others` is what other processes' leases may still turn into use;
    `granted` and `drained` are of the lease of the process that asks."""

    spent: int
    others: int
    granted: int
    drained: int


# --- for the processes that spend ------------------------------------------------------------------


def renew(
    spool: str, places: Sequence[Place], decide: Callable[[Place, Held], int], now: dt.datetime
) -> None:
    """With these uses locked, say how each stands, and write what `decide` answers as the lease's `granted`.

    Uses that are not there yet begin with what roll-ups hold. Raises DatabaseError; what was decided may then
    be written or not.
    """
    found = _find(places)
    if missing := [place for place in places if place not in found]:
        _open(missing)
        found = _find(places)
    by_pk = {pk: place for place, pk in found.items()}
    with transaction.atomic():
        # In one order, as whoever counts does.
        spent = dict(
            QuotaUse.objects.select_for_update(no_key=True)
            .filter(pk__in=by_pk)
            .order_by("pk")
            .values_list("pk", "spent")
        )
        own: dict[int, QuotaLease] = {}
        others: dict[int, int] = defaultdict(int)
        for lease in QuotaLease.objects.filter(use_id__in=by_pk):
            if lease.spool == spool:
                own[lease.use_id] = lease
            else:
                others[lease.use_id] += max(lease.granted - lease.drained, 0)
        for pk, sum_ in spent.items():
            lease = own.get(pk) or QuotaLease(use_id=pk, spool=spool)
            granted = decide(by_pk[pk], Held(sum_, others[pk], lease.granted, lease.drained))
            if granted != lease.granted:
                lease.granted, lease.taken_at = granted, now
                lease.save(update_fields=["granted", "taken_at"] if lease.pk else None)


def live_processes() -> int:
    """How many processes may be spending, this one included."""
    return max(Process.objects.filter(serves_until__gt=Now()).count(), 1)


def _find(places: Collection[Place]) -> dict[Place, int]:
    """The rows that are there, by their places."""
    found: dict[Place, int] = {}
    starts = {place.start for place in places}
    for chunk in batched(sorted({place[:2] for place in places}), _CHUNK):
        rows = QuotaUse.objects.filter(
            organization_id__in={organization for organization, _ in chunk},
            key_id__in={key for _, key in chunk},
            start__in=starts,
        )
        for row in rows:
            found[_place(row)] = row.pk
    return {place: found[place] for place in places if place in found}


def _place(row: QuotaUse) -> Place:
    return Place(row.organization_id, row.key_id, row.meter, row.unit, row.start)


def _open(places: Iterable[Place]) -> None:
    """Make rows that hold what was used before them. Nobody counts meanwhile, so nothing is in neither."""
    with transaction.atomic():
        counting.alone()
        QuotaUse.objects.bulk_create(
            [
                QuotaUse(
                    organization_id=place.organization,
                    key_id=place.key,
                    meter=place.meter,
                    unit=place.unit,
                    start=place.start,
                    spent=_counted([place])[place],
                )
                for place in places
            ],
            ignore_conflicts=True,  # another process was quicker
        )


def _counted(places: Collection[Place]) -> dict[Place, int]:
    """What roll-ups hold of each, all of one organization, in one query; calls of test keys never count."""
    numbered = {f"place_{number}": place for number, place in enumerate(places)}
    if not numbered:
        return {}
    sums = Rollup.objects.filter(
        organization_id__in={place.organization for place in places},
        hour__gte=min(place.start for place in places),
        hour__lt=max(place.end for place in places),
        outcome=Code.VALID.text,
        key__environment=Environment.LIVE,
    ).aggregate(
        **{
            name: Sum(
                "quantity",
                filter=Q(meter=place.meter, hour__gte=place.start, hour__lt=place.end)
                & (Q(key_id=place.key) if place.key else Q()),
            )
            for name, place in numbered.items()
        }
    )
    return {place: sums[name] or 0 for name, place in numbered.items()}


# --- for those who count ---------------------------------------------------------------------------


def add_spent(rows: Iterable[tuple[int, int, str, dt.datetime, int]]) -> None:
    """Add what live keys have used to the uses that are there, inside the caller's transaction.

    Rows are (organization id, key id, meter, moment of use, quantity in the meter's smallest unit, which may
    be negative). The caller holds `counting.share()` and adds the same to the roll-ups.
    """
    sums: dict[Place, int] = defaultdict(int)
    for organization, key, meter, at, quantity in rows:
        for unit in UNITS:
            start, _ = period(unit, at)
            sums[Place(organization, 0, meter, unit, start)] += quantity
            sums[Place(organization, key, meter, unit, start)] += quantity
    _add(sums)


def add_drained(
    spool: str,
    rows: Collection[tuple[int, int, str, dt.datetime, int]],
    charges: Mapping[tuple[int, int, str, dt.datetime, int], int],
) -> None:
    """As `add_spent`, of what a process's journal shows, test keys included; and take from that process's
    leases what was charged to them.

    `charges` are costs by organization, key, meter, hour and bits (BITS).
    """
    starts = {period(unit, row[3])[0] for row in rows for unit in UNITS}
    if not starts or not QuotaUse.objects.filter(start__in=starts).exists():
        return
    test = _test_keys({row[1] for row in rows})
    add_spent(row for row in rows if row[1] not in test)
    drained: dict[Place, int] = defaultdict(int)
    for (organization, key, meter, at, bits), cost in charges.items():
        for (is_own, unit), bit in BITS.items():
            if bits & bit:
                place = Place(organization, key if is_own else 0, meter, unit, period(unit, at)[0])
                drained[place] += cost
    by_use = {pk: drained[place] for place, pk in _find(drained).items()}
    leases = {
        pk: by_use[use]
        for chunk in batched(sorted(by_use), _CHUNK)
        for pk, use in QuotaLease.objects.filter(spool=spool, use_id__in=chunk).values_list("pk", "use_id")
    }
    _grow(QuotaLease.objects.all(), "drained", leases)


def settle_spool(spool: str) -> None:
    """End the leases of a process that is gone for good: what it spent is drained, or given up."""
    QuotaLease.objects.filter(spool=spool).delete()


def settle_the_dead(now: dt.datetime) -> None:
    """End the leases of processes off the list whose journal is finished, or that never had one.

    A drain that finishes a journal settles it, unless the process then still holds its lock: a disk that is
    full makes one leave its journal for a while, and one that is killed may let go of its files in any order.
    """
    journal = Spool.objects.filter(pk=OuterRef("spool"))
    QuotaLease.objects.filter(
        Q(Exists(journal.filter(finished_at__isnull=False)))
        | Q(~Exists(journal), taken_at__lt=now - UNKNOWN_FOR),
        ~Exists(Process.objects.filter(pk=OuterRef("spool"))),
    ).delete()


def forget_the_past(now: dt.datetime) -> None:
    """Delete uses of periods that ended long ago; roll-ups still have what was used."""
    for unit, kept in KEEP.items():
        old = QuotaUse.objects.filter(unit=unit, start__lt=now - kept).values_list("pk", flat=True)
        while some := list(old[:_CHUNK]):
            QuotaUse.objects.filter(pk__in=some).delete()


def _test_keys(keys: Collection[int]) -> set[int]:
    return {
        pk
        for chunk in batched(sorted(keys), _CHUNK)
        for pk in Key.objects.filter(pk__in=chunk, environment=Environment.TEST).values_list("pk", flat=True)
    }


def _add(sums: Mapping[Place, int]) -> None:
    _grow(
        QuotaUse.objects.all(),
        "spent",
        {pk: sums[place] for place, pk in _find(sums).items() if sums[place]},
    )


def _grow[Row: models.Model](rows: models.QuerySet[Row], column: str, by: Mapping[int, int]) -> None:
    """Add to a column, row by row in one order: two who count never wait for each other in a circle."""
    for chunk in batched(sorted(by), _CHUNK):
        some = rows.filter(pk__in=chunk)
        list(some.select_for_update(no_key=True).order_by("pk").values_list("pk"))
        more = Case(*(When(pk=pk, then=Value(by[pk])) for pk in chunk), output_field=models.BigIntegerField())
        some.update(**{column: F(column) + more})


# --- for those who look ----------------------------------------------------------------------------


class Used(NamedTuple):
    """How much of a quota is used, and by whom. `used` is as complete as roll-ups are; `promised` is what
    processes have spent since, or may spend without asking."""

    owner: str  # key or organization
    quota: Quota
    used: int
    promised: int
    start: dt.datetime
    end: dt.datetime

    @property
    def remaining(self) -> int:
        return max(self.quota.limit - self.used - self.promised, 0)


def used(
    organization_id: int, key_id: int, own: Iterable[Quota], shared: Iterable[Quota], now: dt.datetime
) -> list[Used]:
    """How these quotas stand, the key's `own` first, then those that its organization's keys share, in at
    most two queries. `key_id` is 0 where there is no key."""
    wanted = {
        Place(organization_id, owner, quota.meter, quota.unit, period(quota.unit, now)[0]): quota
        for owner, quotas in ((key_id, own), (0, shared))
        for quota in quotas
    }
    known: dict[Place, tuple[int, int]] = {}
    if wanted:
        rows = QuotaUse.objects.filter(
            organization_id=organization_id,
            key_id__in={place.key for place in wanted},
            start__in={place.start for place in wanted},
        ).annotate(promised=Sum(F("leases__granted") - F("leases__drained")))
        for row in rows:
            known[_place(row)] = row.spent, max(row.promised or 0, 0)
    counted = _counted([place for place in wanted if place not in known])
    return [
        Used(
            "key" if place.key else "organization",
            quota,
            *(known.get(place) or (counted[place], 0)),
            place.start,
            place.end,
        )
        for place, quota in wanted.items()
    ]
