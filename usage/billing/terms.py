"""Subscriptions and published prices, read from the database as `usage.billing.rating` takes them.

It alone turns rows into terms; it computes no amount and writes nothing.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

from django.db.models import BigIntegerField, Case, F, OuterRef, Prefetch, Q, QuerySet, Subquery, Value, When

from keys.models import Organization
from usage.billing.periods import Period
from usage.billing.rating import Rate, Terms, Tier
from usage.models import Meter, PlanVersion, Price, Subscription

_COLUMNS = ("organization_id", "pk", "start", "end", "version__currency", "version__fee", "version_id")


def in_period(period: Period) -> QuerySet[Subscription]:
    """The subscriptions that run in some hour of the month."""
    rows = Subscription.objects.filter(start__lt=period.end).filter(Q(end=None) | Q(end__gt=period.start))
    return rows.exclude(end=F("start"))


def of_period(period: Period, organization: Organization | None = None) -> dict[int, dict[int, Terms]]:
    """Organization (primary key) → subscription (primary key) → its terms, of all that run in the month, in
    order of their starts; two queries."""
    rows = in_period(period).order_by("organization_id", "start", "id")
    if organization is not None:
        rows = rows.filter(organization=organization)
    found: dict[int, dict[int, Terms]] = {}
    subscriptions = list(rows.values_list(*_COLUMNS))
    rates = _rates({version for *_, version in subscriptions})
    for owner, pk, start, end, currency, fee, version in subscriptions:
        found.setdefault(owner, {})[pk] = Terms(pk, start, end, currency, fee, rates[version])
    return found


def since(organization: Organization, moment: dt.datetime) -> list[Subscription]:
    """An organization's subscriptions that run after this moment, in order of their starts, with their plans
    and prices; two queries. For who shows them and rates several months by them: see `among`."""
    rows = Subscription.objects.filter(Q(end=None) | Q(end__gt=moment), organization=organization)
    prices = Prefetch("version__prices", _with_decimals(Price.objects.all()))
    whole = rows.exclude(end=F("start")).select_related("version__plan__policy").prefetch_related(prices)
    return list(whole.order_by("start", "id"))


def among(subscriptions: Iterable[Subscription], period: Period) -> dict[int, Terms]:
    """One organization's terms in a month, as `of_period` has them, of what `since` has read."""
    return {
        each.pk: Terms(
            *(each.pk, each.start, each.end, each.version.currency, each.version.fee),
            _by_use(each.version.prices.all()),
        )
        for each in subscriptions
        if each.start < period.end and (each.end is None or each.end > period.start)
    }


def in_force(agreed: Mapping[int, Terms], period: Period) -> Case | Value:
    """The subscription (its primary key) in the `hour` of each of an organization's roll-ups of a month, by
    its `agreed` terms of that month. It joins nothing; of the usual one that never changes not even an hour
    is looked at."""
    key = BigIntegerField()
    if not agreed:
        return Value(None, output_field=key)
    (first, *others) = agreed.values()
    if not others and first.start <= period.start and (first.end is None or first.end >= period.end):
        return Value(first.id, output_field=key)
    return Case(
        *(
            When(
                Q(hour__gte=each.start) & (Q() if each.end is None else Q(hour__lt=each.end)),
                then=Value(each.id),
            )
            for each in agreed.values()
        ),
        output_field=key,
    )


def of_version(version: PlanVersion) -> dict[tuple[str, str], Rate]:
    """The version's rates by meter and resource."""
    return _rates({version.pk})[version.pk]


def _rates(versions: Collection[int]) -> dict[int, dict[tuple[str, str], Rate]]:
    found: dict[int, list[Price]] = {version: [] for version in versions}
    prices = Price.objects.filter(version__in=found) if found else Price.objects.none()
    for price in _with_decimals(prices):
        found[price.version_id].append(price)
    return {version: _by_use(prices) for version, prices in found.items()}


def _with_decimals(prices: QuerySet[Price]) -> QuerySet[Price]:
    decimals = Meter.objects.filter(slug=OuterRef("meter")).values("decimals")
    return prices.annotate(decimals=Subquery(decimals))


def _by_use(prices: Iterable[Any]) -> dict[tuple[str, str], Rate]:
    """By meter and resource, of what `_with_decimals` has read."""
    return {
        (price.meter, price.resource): Rate(
            model=price.model,
            tiers=_tiers(price),
            decimals=price.decimals or 0,
            included=price.included,
            package=price.package or 1,
        )
        for price in prices
    }


def _tiers(price: Price) -> tuple[Tier, ...]:
    if not price.tiers:
        return (Tier(None, Decimal(price.unit_price or 0)),)
    return tuple(Tier(tier["up_to"], Decimal(tier["unit_price"])) for tier in price.tiers)
