"""Corrections: what came late for a closed month, and credits, as lines of a later month.

A closed month is rated again with its own subscriptions, less what was billed for it; the difference, which
may be less than nothing, is shared over the late quantities. What was billed is read from statements, never
computed anew, and nothing here changes one.
"""

import datetime as dt
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from django.db.models import QuerySet, Sum
from django.db.models.functions import TruncMonth

from keys.models import Organization
from keys.verdicts import Code
from usage import meters
from usage.billing import money, rating, terms
from usage.billing.lines import Billed, Line, blank, currency_of, order, used_in
from usage.billing.periods import Period
from usage.billing.rating import Rated, Terms
from usage.meters import Meter
from usage.models import Credit, Rollup

KIND = "correction"

# The lines of a month's statement, of one organization.
type Statement = Callable[[Period, Organization | None], Iterable[Line]]


class Group(NamedTuple):
    """What is rated again as one: the usage of an organization under one price, all its tiers together."""

    live: bool
    meter: str
    resource: str


class Part(NamedTuple):
    """What was or would be billed of a group: its included quantity, and minor units."""

    included: int = 0
    amount: int = 0


def lines(
    period: Period, organization: Organization | None = None, *, statement: Statement
) -> Iterator[Line]:
    """The corrections that the period carries, in the order of its lines."""
    known = meters.read()
    months = _months(period, organization)
    streams = [_of_month(period, month, organization, statement, known) for month in months]
    streams.append(_credits(period, organization, known))
    return heapq.merge(*streams, key=lambda line: order(line, known))


class Late(NamedTuple):
    """Late usage of one month on the statement of another; in the meter's smallest unit."""

    month: Period
    booked: Period
    meter: str
    quantity: int


def late_in(period: Period) -> list[Late]:
    """The late usage of earlier months that the period's statement carries."""
    return _late_usage(Rollup.objects.filter(booked_period=period.first_day, hour__lt=period.start))


def late_of(period: Period) -> list[Late]:
    """The late usage of the period that later statements carry."""
    rows = Rollup.objects.filter(hour__gte=period.start, hour__lt=period.end)
    return _late_usage(rows.filter(booked_period__gt=period.first_day))


def _late_usage(rows: QuerySet[Rollup]) -> list[Late]:
    # By organization, for what all of them used may be more than SQLite's sum can be.
    sums = (
        rows.filter(outcome=Code.VALID.name)
        .annotate(month=TruncMonth("hour", tzinfo=dt.UTC))
        .values_list("month", "booked_period", "meter", "organization_id")
        .annotate(Sum("quantity"))
        .order_by("month", "booked_period", "meter")
    )
    found: Counter[tuple[dt.datetime, dt.date, str]] = Counter()
    for month, booked, meter, _, quantity in sums:
        found[month, booked, meter] += int(quantity)
    return [
        Late(Period.of(month), Period(booked.year, booked.month), meter, quantity)
        for (month, booked, meter), quantity in found.items()
    ]


def _months(period: Period, organization: Organization | None) -> list[Period]:
    """The months of which usage is booked to the period, other than its own."""
    rows = Rollup.objects.filter(
        booked_period=period.first_day, hour__lt=period.start, outcome=Code.VALID.name
    )
    if organization is not None:
        rows = rows.filter(organization=organization)
    months = rows.annotate(month=TruncMonth("hour", tzinfo=dt.UTC)).values_list("month", flat=True)
    return [Period.of(month) for month in months.order_by("month").distinct()]


def _late(period: Period, month: Period, organization: Organization | None = None) -> QuerySet[Rollup]:
    """The roll-ups of one earlier month that are booked to the period."""
    rows = Rollup.objects.filter(booked_period=period.first_day, hour__gte=month.start, hour__lt=month.end)
    return rows if organization is None else rows.filter(organization=organization)


def _of_month(
    period: Period,
    month: Period,
    organization: Organization | None,
    statement: Statement,
    known: Mapping[str, Meter],
) -> Iterator[Line]:
    """What the period carries for one earlier month, one organization after the other."""
    agreed = terms.of_period(month, organization)
    priced = bool(agreed) or terms.in_period(month).exists()
    for late in used_in(_late(period, month, organization)):
        mine = agreed.get(late.organization_id, {})
        yield from sorted(
            _of_organization(period, month, late, mine, statement, known, priced=priced),
            key=lambda line: order(line, known),
        )


def _of_organization(
    period: Period,
    month: Period,
    late: Billed,
    agreed: Mapping[int, Terms],
    statement: Statement,
    known: Mapping[str, Meter],
    *,
    priced: bool,
) -> Iterator[Line]:
    currency = currency_of(agreed)
    owed = _owed(period, month, late, agreed)
    billed = _billed(period, month, late, currency, statement) if agreed else {}
    for group, quantities in _quantities(rating.rate(late.used, agreed)).items():
        is_now, was = owed.get(group, Part()), billed.get(group, Part())
        more = Part(is_now.included - was.included, is_now.amount - was.amount)
        # Where all of them cancel out, the difference is everybody's.
        keys = sorted(key for key, quantity in quantities.items() if quantity) or (
            sorted(quantities) if any(more) else []
        )
        weights = [quantities[key] for key in keys]
        shares = zip(
            keys, weights, money.apportion(more.included, weights), money.apportion(more.amount, weights),
            strict=True,
        )  # fmt: skip
        meter = known.get(group.meter)
        for key, quantity, included, amount in shares:
            caller = late.callers[key]
            line = blank(period, late)._replace(
                key=key,
                key_name=caller.name,
                environment=caller.environment,
                meter=group.meter,
                resource=group.resource or None,
                unit=meter.unit if meter else None,
                quantity=quantity,
                billable=quantity - included if group.live else 0,
                kind=KIND,
                original_period=str(month),
            )
            if priced:
                line = line._replace(
                    included=included,
                    amount=money.as_text(amount, currency) if currency else "0",
                    currency=currency,
                )
            yield line


def _owed(period: Period, month: Period, late: Billed, agreed: Mapping[int, Terms]) -> dict[Group, Part]:
    """All usage of the month that is counted up to the period, rated as if it had come in time."""
    rows = Rollup.objects.filter(
        organization_id=late.organization_id,
        hour__gte=month.start,
        hour__lt=month.end,
        booked_period__lte=period.first_day,
    )
    found: dict[Group, Part] = {}
    for whole in used_in(rows):
        for rated in rating.rate(whole.used, agreed):
            included = sum(share.included for share in rated.shares)
            _add(found, _group(rated), Part(included, rated.amount))
    return found


def _billed(
    period: Period, month: Period, late: Billed, currency: str | None, statement: Statement
) -> dict[Group, Part]:
    """What the month's statement and the corrections to it before the period have billed."""
    found: dict[Group, Part] = {}
    each = month
    while each < period:
        for line in statement(each, late.organization):
            is_of_month = line.kind == "usage" if each == month else line.original_period == str(month)
            if is_of_month and line.meter:
                amount = money.in_minor(line.amount, currency) if line.amount and currency else 0
                group = Group(line.environment != "test", line.meter, line.resource or "")
                _add(found, group, Part(line.included or 0, amount))
        each = each.next
    return found


def _quantities(late: Iterable[Rated]) -> dict[Group, Counter[str]]:
    """Group → key → late quantity."""
    found: dict[Group, Counter[str]] = {}
    for rated in late:
        quantities = found.setdefault(_group(rated), Counter())
        for share in rated.shares:
            quantities[share.key] += share.quantity
    return found


def _group(rated: Rated) -> Group:
    return Group(rated.live, rated.meter, rated.resource)


def _add(sums: dict[Group, Part], group: Group, more: Part) -> None:
    before = sums.get(group, Part())
    sums[group] = Part(before.included + more.included, before.amount + more.amount)


def _credits(period: Period, organization: Organization | None, known: Mapping[str, Meter]) -> Iterator[Line]:
    rows = Credit.objects.filter(booked_period=period.first_day).select_related("organization")
    if organization is not None:
        rows = rows.filter(organization=organization)
    yield from sorted(credited(period, rows), key=lambda line: order(line, known))


def credited(period: Period, credits: Iterable[Credit]) -> Iterator[Line]:
    """What staff credited, less than nothing on the bill; without a key. Each comes with its organization."""
    return (_credit(period, row) for row in credits)


def _credit(period: Period, credit: Credit) -> Line:
    whose = credit.organization
    return blank(period, Billed(whose.slug, whose.pk, whose, [], {}))._replace(
        amount=money.as_text(-credit.amount, credit.currency),
        currency=credit.currency,
        kind=KIND,
        original_period=f"{credit.original_period:%Y-%m}",
    )
