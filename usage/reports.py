"""Read-only sums for pages, the admin and the machine API.

Everything here is summed by the database from the roll-ups, in a fixed number of queries however many
keys, days or calls there are, and from those without keys where no key is asked about; times are UTC and
ranges half-open. This module never reads a journal and never writes.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from django.db.models import BooleanField, Case, Max, OuterRef, Q, QuerySet, Subquery, Sum, When
from django.db.models.functions import Coalesce, Least

from keys.models import Environment, Key, Organization
from keys.verdicts import Code
from usage import drain
from usage.models import OrganizationRollup, ResponseRollup, Rollup, SecretUse
from usage.series import cut_to, moment

DAY = dt.timedelta(days=1)
ACCEPTED = Q(outcome=Code.VALID.name)


class Day(NamedTuple):
    """The calls of one UTC day; `quantity` is the accepted ones', where one meter was asked about."""

    date: dt.date
    accepted: int
    refused: int
    quantity: int = 0  # in the meter's smallest unit


class Outcome(NamedTuple):
    """The calls of one UTC day that were answered alike; `late` are those after that day's cut."""

    date: dt.date
    outcome: str  # a code's name
    late: bool
    calls: int

    @property
    def is_accepted(self) -> bool:
        return self.outcome == Code.VALID.name


class Hour(NamedTuple):
    """Accepted calls of one meter in a UTC hour; `calls` leaves out those that cost nothing."""

    at: dt.datetime
    meter: str
    calls: int
    quantity: int  # in the meter's smallest unit


class Calls(NamedTuple):
    """The calls of one key or resource; `quantity` as of a day."""

    accepted: int
    refused: int
    quantity: int


class Recent(NamedTuple):
    """A key's last days: its accepted calls, in sum and, of the latest, day by day."""

    calls: int
    line: list[int]


class Totals(NamedTuple):
    """The calls of a time range; `quantity` as of a day."""

    accepted: int
    refused: int
    quantity: int
    reasons: list[tuple[str, int]]  # (name of the code, refused calls), the most frequent first


def daily(
    organization: Organization,
    start: dt.date,
    end: dt.date,
    *,
    key: Key | int | None = None,
    meter: str = "",
) -> list[Day]:
    """Calls per day: one entry for every day of [start, end), those without calls included; of all meters
    if none is given."""
    rows = _between(organization, _midnight(start), _midnight(end), key, meter)
    days = _no_days(start, end)
    for cut, *sums in rows.annotate(day=cut_to("day")).values_list("day").annotate(**_SUMS).order_by():
        days[moment(cut).date()][:] = sums
    return [Day(date, *sums) for date, sums in days.items()]


def outcomes(
    organization: Organization,
    start: dt.date,
    end: dt.date,
    cuts: Collection[dt.datetime] = (),
    *,
    key: Key | None = None,
) -> list[Outcome]:
    """Calls of every day of [start, end) by outcome, days without calls left out. Days that one of `cuts`
    (whole hours) falls into come in two parts, so that a day can be compared by an hour of it. One query."""
    late = [When(hour__gte=cut, hour__lt=_midnight(cut.date()) + DAY, then=True) for cut in cuts]
    rows = (
        _between(organization, _midnight(start), _midnight(end), key)
        .annotate(day=cut_to("day"), late=Case(*late, default=False, output_field=BooleanField()))
        .values_list("day", "outcome", "late")
        .annotate(sum=Sum("calls"))
        .order_by()
    )
    return [Outcome(moment(cut).date(), *rest) for cut, *rest in rows]


def totals(
    organization: Organization,
    start: dt.datetime,
    end: dt.datetime,
    *,
    key: Key | int | None = None,
    meter: str = "",
) -> Totals:
    """Calls of [start, end), both whole hours, and why calls were refused; of all meters if none is given."""
    rows = (
        _between(organization, start, end, key, meter)
        .values_list("outcome")
        .annotate(calls=Sum("calls"), quantity=Sum("quantity"))
    )
    return _totals({outcome: (calls, quantity) for outcome, calls, quantity in rows})


def _totals(by_outcome: Mapping[str, Sequence[int]]) -> Totals:
    """Of calls and quantity by outcome."""
    accepted, quantity = by_outcome.get(Code.VALID.name, (0, 0))
    reasons = sorted(
        ((outcome, sums[0]) for outcome, sums in by_outcome.items() if outcome != Code.VALID.name),
        key=lambda reason: (-reason[1], reason[0]),
    )
    return Totals(accepted, sum(calls for _, calls in reasons), quantity, reasons)


def _no_days(start: dt.date, end: dt.date) -> dict[dt.date, list[int]]:
    return {start + dt.timedelta(days=n): [0, 0, 0] for n in range((end - start).days)}


def responses(
    organization: Organization, start: dt.datetime, end: dt.datetime, *, key: Key | int | None = None
) -> dict[int, int]:
    """How calls of [start, end), both whole hours, were answered: class of the status → responses. Empty
    where nobody recorded it: a gateway does not see the answer, `@require_key` does."""
    rows = ResponseRollup.objects.filter(organization=organization, hour__gte=start, hour__lt=end)
    if key is not None:
        rows = rows.filter(key=key)
    return dict(rows.values_list("status_class").annotate(total=Sum("responses")).order_by("status_class"))


def by_resource(
    organization: Organization, start: dt.datetime, end: dt.datetime, *, key: Key
) -> dict[str, Calls]:
    """A key's calls of [start, end), of all meters, for each resource that was called; those without one
    under an empty name."""
    rows = _between(organization, start, end, key).values_list("resource").annotate(**_SUMS)
    return {resource: Calls(*sums) for resource, *sums in rows}


def hourly(key: Key, start: dt.datetime) -> list[Hour]:
    """A key's accepted calls from `start` on by hour and meter, the earliest first; hours without are left
    out."""
    rows = Rollup.objects.filter(ACCEPTED, organization=key.organization_id, key=key, hour__gte=start)
    return _hours(rows, Sum("quantity"))


def hourly_of_all(organization: Organization, start: dt.datetime) -> list[Hour]:
    """As `hourly`, of all keys of an organization together; its quantities are the live keys' alone, which
    spend quotas."""
    rows = Rollup.objects.filter(ACCEPTED, organization=organization, hour__gte=start)
    live = Q(key__environment=Environment.LIVE)
    return _hours(rows, Coalesce(Sum("quantity", filter=live), 0))


def _hours(rows: QuerySet[Rollup], total: Sum | Coalesce) -> list[Hour]:
    # A roll-up does not say which of its calls cost nothing: no more than its quantity can have cost.
    sums = rows.values_list("hour", "meter").annotate(spending=Sum(Least("calls", "quantity")), total=total)
    return [Hour(*row) for row in sums.order_by("hour", "meter")]


def calls_by_key(organization: Organization, start: dt.datetime, end: dt.datetime) -> dict[int, int]:
    """Accepted calls of [start, end) of every key that made one."""
    rows = _of_keys(organization, start, end).filter(ACCEPTED)
    return dict(rows.values_list("key_id").annotate(total=Sum("calls")))


def calls_of(key: str, start: dt.datetime, end: dt.datetime) -> Coalesce:
    """Accepted calls of [start, end) beside each row of a query; `key` is where the row has its key's primary
    key. For few rows: each is looked up by itself."""
    of_key = Rollup.objects.filter(ACCEPTED, key=OuterRef(key), hour__gte=start, hour__lt=end)
    rows = of_key.order_by().values("key")
    return Coalesce(Subquery(rows.annotate(total=Sum("calls")).values("total")), 0)


def recent(
    organization: Organization, key_ids: Collection[int], end: dt.date, *, line: int = 7, days: int = 30
) -> dict[int, Recent]:
    """The accepted calls of each of these keys (by primary key) before `end` (pass tomorrow for today): their
    sum of `days` days, and the line of `line`; those without calls included."""
    # From each midnight on, which is one bound less to look at for each row; a day is what is between two.
    since = {
        f"since_{n}": _calls(ACCEPTED & Q(hour__gte=_midnight(end - dt.timedelta(days=n))))
        for n in range(line, 0, -1)
    }
    rows = (
        _of_keys(organization, _midnight(end - dt.timedelta(days=days)), _midnight(end))
        .filter(key_id__in=key_ids)
        .values_list("key_id")
        .annotate(accepted=_calls(ACCEPTED), **since)
    )
    found = {
        key_id: Recent(calls, [some - later for some, later in pairwise([*accepted, 0])])
        for key_id, calls, *accepted in rows
    }
    return {key_id: Recent(0, [0] * line) for key_id in key_ids} | found


def last_uses(secret_ids: Collection[int]) -> dict[int, SecretUse]:
    """When and from where each of these secrets last made an accepted call; without the never used."""
    return SecretUse.objects.in_bulk(secret_ids)


def key_last_used(organization: Organization, key_ids: Collection[int]) -> dict[int, dt.datetime]:
    """When each of these keys last made an accepted call, with any secret; without the never used."""
    rows = (
        SecretUse.objects.filter(secret__key__in=key_ids, secret__key__organization=organization)
        .values_list("secret__key_id")
        .annotate(last=Max("last_used_at"))
    )
    return dict(rows)


def last_use_of(key: str) -> Subquery:
    """As `key_last_used`, beside each row of a query; `key` is where the row has its key's primary key."""
    uses = SecretUse.objects.filter(secret__key=OuterRef(key)).values("secret__key")
    return Subquery(uses.annotate(last=Max("last_used_at")).values("last"))


def complete_through() -> dt.datetime | None:
    """Every call answered before this moment is in the sums; None if there was never a journal."""
    return drain.complete_through()


def _between(
    organization: Organization,
    start: dt.datetime,
    end: dt.datetime,
    key: Key | int | None = None,
    meter: str = "",
) -> QuerySet[Any]:
    """Always by organization and hours, the beginning of both tables' primary keys."""
    rows: QuerySet[Any] = OrganizationRollup.objects.filter(
        organization=organization, hour__gte=start, hour__lt=end
    )
    if key is not None:
        rows = _of_keys(organization, start, end).filter(key=key)
    return rows.filter(meter=meter) if meter else rows


def _of_keys(organization: Organization, start: dt.datetime, end: dt.datetime) -> QuerySet[Rollup]:
    return Rollup.objects.filter(organization=organization, hour__gte=start, hour__lt=end)


def _calls(condition: Q) -> Coalesce:
    return Coalesce(Sum("calls", filter=condition), 0)


_SUMS = {
    "accepted": _calls(ACCEPTED),
    "refused": _calls(~ACCEPTED),
    "total": Coalesce(Sum("quantity", filter=ACCEPTED), 0),
}


def _midnight(date: dt.date) -> dt.datetime:
    return dt.datetime(date.year, date.month, date.day, tzinfo=dt.UTC)
