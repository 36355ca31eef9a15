"""What a month that is open comes to so far, without saying which key costs what: few rows, few queries.

It reads the roll-ups without keys, which changes no amount: a price is applied to all live keys together, and
only the shares of a line are theirs. It only reads.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from django.db.models import BigIntegerField, F, Min, QuerySet, Sum, Value

from keys.models import Environment, Organization
from keys.verdicts import Code
from usage.billing import corrections, forecast, money, rating, statement, terms
from usage.billing.lines import Billed, Caller, Line, currency_of, of_billed, with_subscription
from usage.billing.periods import Period
from usage.billing.rating import Terms, Used
from usage.meters import Meter
from usage.models import Credit, OrganizationRollup


class SoFar(NamedTuple):
    """Minor units of `currency`; `estimate` is of the whole month, if usage goes on as it has."""

    currency: str
    amount: int
    estimate: int

    @property
    def text(self) -> str:
        return money.as_text(self.amount, self.currency)

    @property
    def estimate_text(self) -> str:
        return money.as_text(self.estimate, self.currency)


def of_organization(organization: Organization, now: dt.datetime, through: dt.datetime) -> SoFar | None:
    """What the month of `now` comes to, counted until `through`: to the cent what its lines add up to; None
    without a plan. Three queries, and more where usage came late for a month that is closed."""
    period = Period.of(now)
    mine = terms.of_period(period, organization).get(organization.pk, {})
    currency = currency_of(mine)
    if currency is None:
        return None
    rows = OrganizationRollup.objects.filter(organization=organization, booked_period=period.first_day)
    sums = list(live_usage(rows).union(_credits(organization, period), all=True))
    if any(row[1] and row[-1] < period.start for row in sums):  # some of it came late
        sums = list(live_usage(rows.filter(hour__gte=period.start)))
        corrected = _corrected(organization, period, currency)
    else:
        corrected = -sum(int(row[-2]) for row in sums if not row[1] and row[2] == currency)
    used = [as_used(row) for row in sums if row[1]]
    return SoFar(
        currency,
        amount(used, mine, period) + corrected,
        forecast.whole_month(used, mine, period, through) + corrected,
    )


class Month(NamedTuple):
    """One organization's open month: its lines in no order, of which only late usage names a key, and what
    was used of the month itself, as estimates take it."""

    lines: list[Line]
    used: list[Used]


class Booked(NamedTuple):
    """What was used of one open month, all keys of an environment as one; `is_late`: to the month is booked
    what came late for another, too."""

    used: list[Used]
    is_late: bool


def booked_to(organization: Organization, periods: Iterable[Period]) -> dict[Period, Booked]:
    """What is booked to each of these months. One query, and one more for a month with late usage."""
    rows = OrganizationRollup.objects.filter(organization=organization)
    months = {period.first_day: period for period in periods}
    sums: dict[Period, list[tuple[Any, ...]]] = {period: [] for period in months.values()}
    for row in _by_environment(rows.filter(booked_period__in=months)):
        sums[months[row[0]]].append(row)
    found = {}
    for period, mine in sums.items():
        is_late = any(row[-1] < period.start for row in mine)
        if is_late:
            own = rows.filter(booked_period=period.first_day, hour__gte=period.start)
            sums[period] = list(_by_environment(own))
        found[period] = Booked([_used_of_environment(row) for row in sums[period]], is_late)
    return found


def lines_of(
    organization: Organization,
    period: Period,
    booked: Booked,
    agreed: Mapping[int, Terms],
    credits: Iterable[Credit],
    known: Mapping[str, Meter],
) -> Month:
    """The month's lines with those of all keys of an environment as one. `agreed` are its subscriptions, by
    id, `credits` what it carries. No query, but where usage came late for a month that is closed."""
    used = booked.used
    callers = {each.key: Caller("", "", each.key) for each in used}
    billed = Billed(organization.slug, organization.pk, organization, used, callers)
    own = of_billed(period, billed, agreed, known, priced=bool(agreed))
    corrected = (
        corrections.lines(period, organization, statement=statement.lines_of)
        if booked.is_late
        else corrections.credited(period, credits)
    )
    return Month([*own, *corrected], used)


# Any: rows with annotations have no type that could be named here.
def live_usage(rollups: QuerySet[OrganizationRollup]) -> QuerySet[Any, Any]:
    """What live keys used of each meter and resource under each subscription: (organization, meter, resource,
    subscription, quantity, first hour)."""
    rows = _billed(rollups.exclude(environment=Environment.TEST))  # a key that was lost is none for tests
    named = rows.annotate(what=F("meter"), which=F("resource"), agreed=F("in_force__id"))
    return _summed(named, _COLUMNS)


def _by_environment(rollups: QuerySet[OrganizationRollup]) -> QuerySet[Any, Any]:
    """Of test keys too: (month, environment, meter, resource, subscription, quantity, first hour)."""
    named = _billed(rollups).annotate(agreed=F("in_force__id"))
    return _summed(named, ("booked_period", "environment", "meter", "resource", "agreed", "sum", "first"))


def _used_of_environment(row: tuple[Any, ...]) -> Used:
    _, environment, meter, resource, subscription, quantity, _ = row
    return Used(subscription, environment, environment != Environment.TEST, meter, resource, int(quantity))


def _billed(rollups: QuerySet[OrganizationRollup]) -> QuerySet[Any]:
    return with_subscription(rollups.filter(outcome=Code.VALID.name))


def _summed(rows: QuerySet[Any], columns: tuple[str, ...]) -> QuerySet[Any, Any]:
    """Rows added up by all columns but the last two, which are their sum and their first hour."""
    grouped: QuerySet[Any, Any] = rows.values(*columns[:-2]).annotate(sum=Sum("quantity"), first=Min("hour"))
    return grouped.order_by().values_list(*columns)


def as_used(row: tuple[Any, ...]) -> Used:
    """A row of `live_usage`, as it is rated."""
    _, meter, resource, subscription, quantity, _ = row
    return Used(subscription, "", True, meter, resource, int(quantity))


def amount(used: Iterable[Used], agreed: Mapping[int, Terms], period: Period) -> int:
    """Fees and usage of one organization in a period, in minor units."""
    fees = (rating.fee(each, period) for each in agreed.values())
    return sum(fee.amount for fee in fees if fee) + sum(rated.amount for rated in rating.rate(used, agreed))


_COLUMNS = ("organization_id", "what", "which", "agreed", "sum", "first")


def _credits(organization: Organization, period: Period) -> QuerySet[Any, Any]:
    """As rows of `live_usage` that have a currency and no meter, for one query with them."""
    rows = Credit.objects.filter(organization=organization, booked_period=period.first_day)
    named = rows.annotate(
        what=Value(""), which=F("currency"), agreed=Value(None, output_field=BigIntegerField())
    )
    grouped = named.values("organization_id", "what", "which", "agreed")
    return grouped.annotate(sum=Sum("amount"), first=Min("given_at")).order_by().values_list(*_COLUMNS)


def _corrected(organization: Organization, period: Period, currency: str) -> int:
    """What late usage and credits come to, in the month's own currency."""
    lines = corrections.lines(period, organization, statement=statement.lines_of)
    return sum(
        money.in_minor(line.amount, currency) for line in lines if line.amount and line.currency == currency
    )
