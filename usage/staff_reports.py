"""Read-only sums across all organizations, and the journals' health: for the provider's staff alone.

The one place where usage is read without an organization; customers' pages use `usage.reports`. It sums
roll-ups in a fixed number of queries, and never opens a journal or writes.
"""

import datetime as dt
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, TruncDay

from keys.models import Key, Organization
from keys.verdicts import Code
from usage import findings, room, watermark
from usage.meters import Meter
from usage.models import OrganizationRollup, ResourceBound, Rollup, Spool
from usage.reports import ACCEPTED, Day

BEHIND = dt.timedelta(minutes=2)  # a journal whose last tick is older is not being drained
RETIRED_SHOWN = dt.timedelta(days=35)
PAGE = 50
MAX_DAYS = 366
_CALLS = F("accepted") + F("refused")


class OrganizationCalls(NamedTuple):
    """One organization's calls; `organization` is None where only roll-ups know it (a restored database)."""

    organization_id: int
    organization: Organization | None
    accepted: int
    refused: int


class Today(NamedTuple):
    """The calls of all organizations since midnight UTC, and beside them those of the day before."""

    accepted: int
    refused: int
    reasons: list[tuple[str, int]]  # (name of the code, refused calls), the most frequent first
    until: dt.datetime  # the begin of this hour: the two below are of the whole hours before it
    accepted_until: int
    accepted_yesterday: int  # by the same hour


class SpoolHealth(NamedTuple):
    """How far one process's journal is counted."""

    spool: Spool
    age: dt.timedelta  # of the watermark, or since the start where there is none
    behind: bool


class Journals(NamedTuple):
    """What staff should know of the journals besides."""

    findings: int  # that nobody has looked at
    holder: watermark.Holder | None  # whom counting waits for, where it waits for long
    held: str  # by the journals of this host, where that is much of what they may hold; else empty
    retired: list[Spool]  # given up on lately


class FullResources(NamedTuple):
    """An organization and meter with more resources than are kept apart; `organization` as above."""

    bound: ResourceBound
    organization: Organization | None


class Line(NamedTuple):
    """Calls of one organization on one UTC day; `quantity` is in units, empty where meters are mixed."""

    day: dt.date
    organization_id: int
    organization: Organization | None
    accepted: int
    refused: int
    quantity: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Which roll-ups; days are UTC, [start, end). `outcome` is empty, `refused`, or a code's name."""

    start: dt.date
    end: dt.date
    organization: Organization | None = None
    key: Key | None = None
    outcome: str = ""
    meter: str = ""


class Sums(NamedTuple):
    """Everything that the filters let through, added up; `quantity` as in a line."""

    accepted: int
    refused: int
    quantity: str


class Table(NamedTuple):
    """One page of lines and the sums of all pages."""

    page: Any  # a Page of Line, which Django's stubs type by its paginator's source
    sums: Sums


def midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def daily(start: dt.date, end: dt.date) -> list[Day]:
    """Calls of all organizations per day: one entry for every day of [start, end)."""
    rows = (
        _between(start, end)
        .values_list("hour")
        .annotate(accepted=_calls(ACCEPTED), refused=_calls(~ACCEPTED))
    )
    days = {start + dt.timedelta(days=n): [0, 0] for n in range((end - start).days)}
    for hour, accepted, refused in rows:
        day = days[hour.astimezone(dt.UTC).date()]
        day[0] += accepted
        day[1] += refused
    return [Day(date, accepted, refused) for date, (accepted, refused) in days.items()]


def today(now: dt.datetime) -> Today:
    """How it goes today, in one query."""
    day = now.astimezone(dt.UTC).date()
    until = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    rows = _between(day - dt.timedelta(days=1), day + dt.timedelta(days=1)).order_by()
    reasons: Counter[str] = Counter()
    accepted = accepted_until = accepted_yesterday = 0
    for hour, outcome, calls in rows.values_list("hour", "outcome").annotate(calls=Sum("calls")):
        if outcome != Code.VALID.name:
            reasons[outcome] += calls if hour >= midnight(day) else 0
        elif hour >= midnight(day):
            accepted += calls
            accepted_until += calls if hour < until else 0
        elif hour < until - dt.timedelta(days=1):
            accepted_yesterday += calls
    found = [(name, calls) for name, calls in reasons.most_common() if calls]
    return Today(accepted, reasons.total(), found, until, accepted_until, accepted_yesterday)


def top_organizations(start: dt.date, end: dt.date, count: int = 8) -> list[OrganizationCalls]:
    """Who called most in [start, end), refused calls included."""
    rows = list(
        _between(start, end)
        .values_list("organization_id")
        .annotate(accepted=_calls(ACCEPTED), refused=_calls(~ACCEPTED))
        .order_by(_CALLS.desc(), "organization_id")[:count]
    )
    known = Organization.objects.in_bulk([pk for pk, _, _ in rows])
    return [OrganizationCalls(pk, known.get(pk), accepted, refused) for pk, accepted, refused in rows]


def spools(now: dt.datetime, count: int = 50) -> list[SpoolHealth]:
    """The journals that are still written or drained, the one furthest behind first."""
    found = Spool.objects.filter(finished_at=None, retired_at=None).order_by(
        Coalesce("watermark", "started_at"), "id"
    )
    ages = [(spool, now - (spool.watermark or spool.started_at)) for spool in found[:count]]
    return [SpoolHealth(spool, max(age, dt.timedelta(0)), age > BEHIND) for spool, age in ages]


def journals(now: dt.datetime, count: int = 5) -> Journals:
    """What is amiss with the journals. This host's folder is measured; another host says it on /readyz."""
    holder = watermark.holder()
    bound, held = settings.USAGE_JOURNAL_MAX_BYTES, room.held_bytes(settings.USAGE_JOURNAL_DIR)
    short = bound and 100 * held // bound >= room.ALARM_PERCENT
    retired = Spool.objects.filter(retired_at__gt=now - RETIRED_SHOWN).order_by("-retired_at", "id")
    return Journals(
        findings=findings.unseen(),
        holder=holder if holder is not None and now - holder.since > BEHIND else None,
        held=f"{room.readable(held)} of {room.readable(bound)}" if short else "",
        retired=list(retired[:count]),
    )


def full_resources(count: int = 20) -> list[FullResources]:
    """Whose resources are no longer all kept apart (`usage.resources`), the latest first."""
    bounds = list(
        ResourceBound.objects.filter(reached_at__isnull=False).order_by(
            "-reached_at", "organization_id", "meter"
        )[:count]
    )
    known = Organization.objects.in_bulk({bound.organization_id for bound in bounds})
    return [FullResources(bound, known.get(bound.organization_id)) for bound in bounds]


def table(filters: Filters, number: str | None, meter: Meter | None) -> Table:
    """Roll-ups by day and organization, the newest day first. Four queries, whatever is found.

    `meter` is the one in whose units quantities can be written: None where several are mixed.
    """
    rows = _between(filters.start, filters.end, filters.key)
    if filters.meter:
        rows = rows.filter(meter=filters.meter)
    if filters.organization is not None:
        rows = rows.filter(organization=filters.organization)
    if filters.outcome:
        rows = (
            rows.exclude(ACCEPTED) if filters.outcome == "refused" else rows.filter(outcome=filters.outcome)
        )
    sums = {
        "accepted": _calls(ACCEPTED),
        "refused": _calls(~ACCEPTED),
        "quantity_sum": Coalesce(Sum("quantity", filter=ACCEPTED), 0),
    }
    grouped = (
        rows.annotate(day=TruncDay("hour", tzinfo=dt.UTC))
        .values_list("day", "organization_id")
        .annotate(**sums)
        .order_by("-day", _CALLS.desc(), "organization_id")
    )
    total = rows.aggregate(**sums)
    page = Paginator(grouped, PAGE).get_page(number)
    shown = list(page.object_list)
    known = Organization.objects.in_bulk({pk for _, pk, *_ in shown})
    page.object_list = [
        Line(day.date(), pk, known.get(pk), accepted, refused, _text(quantity, meter))
        for day, pk, accepted, refused, quantity in shown
    ]
    sum_text = _text(total["quantity_sum"], meter)
    return Table(page, Sums(total["accepted"], total["refused"], sum_text))


def _text(quantity: int, meter: Meter | None) -> str:
    return "" if meter is None else meter.as_text(quantity)


def _between(start: dt.date, end: dt.date, key: Key | None = None) -> QuerySet[Any]:
    """Roll-ups by hours: of a key, or of all together, for which there are rows without keys."""
    rows: QuerySet[Any] = OrganizationRollup.objects.all()
    if key is not None:
        rows = Rollup.objects.filter(organization=key.organization_id, key=key)
    return rows.filter(hour__gte=midnight(start), hour__lt=midnight(end))


def _calls(condition: Q) -> Coalesce:
    return Coalesce(Sum("calls", filter=condition), 0)
