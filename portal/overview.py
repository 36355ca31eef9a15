"""What an organization's first page shows: what was called and what it costs, compared with the time before,
and what needs attention first.

It reads sums and never single calls, in a fixed number of queries however many keys there are; it writes
nothing.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlencode

from django.db.models import Count, Q, QuerySet
from django.urls import reverse

from keys.compliance import Terms
from keys.models import EXPIRING_WITHIN, Key, KeyState, Organization
from portal.charts import BarChart
from portal.pages import (
    CHART_DAYS,
    Badge,
    QuotaRow,
    Reason,
    badge,
    calls_chart,
    note,
    percent,
    quota_rows,
    reasons,
)
from portal.usage_pages import change
from usage import reports
from usage.billing import so_far
from usage.billing.so_far import SoFar
from usage.models import Signal
from usage.reports import Outcome
from usage.signals import MEANINGS, Kind

REFUSED_DAYS: Final = 7
EACH: Final = 3  # keys of a kind
SHOWN: Final = 5  # things that need attention
WARNING: Final = 15  # points of a signal that is more than a hint
DAY: Final = dt.timedelta(days=1)
HOUR: Final = dt.timedelta(hours=1)


class Figure(NamedTuple):
    """Calls of a time so far, and the change against as much of the time before; empty if none."""

    calls: int
    change: str


class Refused(NamedTuple):
    """Refused calls of the last days."""

    share: str
    top: Reason | None
    url: str  # the refused calls, of the top reason


class Todo(NamedTuple):
    """Something that needs attention, and the page on which it is mended."""

    key: Key
    url: str
    text: str
    badge: Badge


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on an organization's first page."""

    keys: int
    active: int
    expiring: int
    today: Figure
    month: Figure
    refused: Refused
    chart: BarChart
    quiet: bool  # no call in the chart's days
    cost: SoFar | None  # None: no plan, or not for this member
    quotas: list[QuotaRow]
    attention: list[Todo]
    complete_through: dt.datetime | None


def at_a_glance(organization: Organization, now: dt.datetime, *, with_cost: bool) -> Overview:
    """An organization's calls, keys and cost as they are now."""
    through = reports.complete_through()  # before the sums are read: they hold at least this much
    hour = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0) + HOUR
    today = now.astimezone(dt.UTC).date()
    month, month_before = today.replace(day=1), (today.replace(day=1) - DAY).replace(day=1)
    since_month = min(_midnight(month_before) + (hour - _midnight(month)), _midnight(month))
    calls = reports.outcomes(
        organization,
        min(month_before, today - (CHART_DAYS - 1) * DAY),
        today + DAY,
        cuts=(hour - DAY, since_month),
    )
    chart = calls_chart(calls, today + DAY)
    live = Q(revoked_at=None, disabled_at=None) & (Q(expires_at=None) | Q(expires_at__gt=now))
    return Overview(
        **organization.keys.aggregate(
            keys=Count("pk"),
            active=Count("pk", filter=live),
            expiring=Count("pk", filter=live & Q(expires_at__lte=now + EXPIRING_WITHIN)),
        ),
        today=_figure(calls, lambda day: day == today, hour - DAY, today - DAY),
        month=_figure(calls, lambda day: day >= month, since_month, month_before),
        refused=_refused(organization, calls, today),
        chart=chart,
        quiet=chart.is_empty,
        cost=so_far.of_organization(organization, now, min(through or now, now)) if with_cost else None,
        quotas=quota_rows(organization, now),
        attention=_attention(organization, now),
        complete_through=through,
    )


def _figure(
    calls: Sequence[Outcome], is_now: Callable[[dt.date], bool], cut: dt.datetime, first: dt.date
) -> Figure:
    """Calls of the days that are now, compared with those from the day `first` until `cut`."""
    now = sum(each.calls for each in calls if is_now(each.date))
    # All of the day of a cut at midnight is late.
    before = sum(
        each.calls
        for each in calls
        if first <= each.date < cut.date() or (each.date == cut.date() and not each.late)
    )
    return Figure(now, change(now, before) if before else "")


def _refused(organization: Organization, calls: Sequence[Outcome], today: dt.date) -> Refused:
    by_outcome: dict[str, int] = {}
    total = 0
    for each in calls:
        if each.date > today - REFUSED_DAYS * DAY:
            total += each.calls
            if not each.is_accepted:
                by_outcome[each.outcome] = by_outcome.get(each.outcome, 0) + each.calls
    top = reasons(sorted(by_outcome.items(), key=lambda each: (-each[1], each[0])))
    url = reverse("refusals", args=[organization.slug])
    return Refused(
        percent(sum(by_outcome.values()), total),
        top[0] if top else None,
        f"{url}?{urlencode({'code': top[0].code})}" if top else url,
    )


# --- what needs attention -------------------------------------------------------------------------


def _attention(organization: Organization, now: dt.datetime) -> list[Todo]:
    """What has stopped working, then what is going to, then what may be amiss, then what is merely off."""
    found = {name: list[Todo]() for name in ("expired", "expiring", "retiring", "disabled")}
    for key in _urgent(organization, now):
        kind, todo = _todo(organization, key, now)
        found[kind].append(todo)
    signals = [_signal(organization, each) for each in _signals(organization, now)]
    rows = [*found["expired"], *found["expiring"], *found["retiring"], *signals, *found["disabled"]]
    return rows[:SHOWN]


def _urgent(organization: Organization, now: dt.datetime) -> list[Key]:
    """The first keys of each kind, in one query."""
    keys = organization.keys
    kinds: list[QuerySet[Key]] = [
        keys.in_state(KeyState.EXPIRED, now)
        .filter(expires_at__gt=now - CHART_DAYS * DAY)
        .order_by("-expires_at"),
        keys.in_state(KeyState.EXPIRING, now).order_by("expires_at"),
        keys.retiring(),
        keys.in_state(KeyState.DISABLED, now).order_by("-disabled_at"),
    ]
    wanted = Q(pk__in=[])
    for kind in kinds:
        wanted |= Q(pk__in=kind.values("pk")[:EACH])
    found = list(keys.filter(wanted).select_related("organization"))
    return sorted(found, key=lambda key: (abs((key.expires_at or key.retires_at or now) - now), key.pk))


def _todo(organization: Organization, key: Key, now: dt.datetime) -> tuple[str, Todo]:
    shown, url = badge(key, now), _url(organization, key)
    match key.state_at(now):
        case KeyState.EXPIRED:
            return "expired", Todo(key, url, "Its calls are refused", shown)
        case KeyState.EXPIRING:
            return "expiring", Todo(key, url, "Its calls are refused from then on", shown)
        case KeyState.DISABLED:
            text = "Nobody used it" if key.is_retired else "Its calls are refused until it is enabled"
            return "disabled", Todo(key, url, text, shown)
    mark = Badge("expiring", note(key, None, Terms(), now))
    return "retiring", Todo(key, url, "One accepted call keeps it", mark)


def _signals(organization: Organization, now: dt.datetime) -> QuerySet[Signal]:
    """The weightiest, as they were last found; the key's page judges them anew."""
    works = Q(key__revoked_at=None, key__disabled_at=None)
    works &= Q(key__expires_at=None) | Q(key__expires_at__gt=now)
    shown = organization.signals.shown(now).filter(works, kind__in=list(Kind))
    return shown.select_related("key").order_by("-points", "raised_at", "pk")[:SHOWN]


def _signal(organization: Organization, signal: Signal) -> Todo:
    state = "attention" if signal.points >= WARNING else "hint"
    mark = Badge(state, MEANINGS[Kind(signal.kind)].title)
    url = f"{_url(organization, signal.key)}#signals-title"
    return Todo(signal.key, url, signal.evidence.get("sentence", ""), mark)


def _url(organization: Organization, key: Key) -> str:
    return reverse("key", args=[organization.slug, key.public_id])


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
