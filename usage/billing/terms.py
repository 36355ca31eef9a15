"""Subscriptions and published prices, read from the database as `usage.billing.rating` takes them.

It alone turns rows into terms; it computes no amount and writes nothing.
"""

from collections.abc import Collection
from decimal import Decimal

from django.db.models import F, OuterRef, Q, QuerySet, Subquery

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


def of_version(version: PlanVersion) -> dict[tuple[str, str], Rate]:
    """The version's rates by meter and resource."""
    return _rates({version.pk})[version.pk]


def _rates(versions: Collection[int]) -> dict[int, dict[tuple[str, str], Rate]]:
    rates: dict[int, dict[tuple[str, str], Rate]] = {version: {} for version in versions}
    decimals = Meter.objects.filter(slug=OuterRef("meter")).values("decimals")
    prices = Price.objects.filter(version__in=rates) if rates else Price.objects.none()
    for price in prices.annotate(decimals=Subquery(decimals)):
        rates[price.version_id][price.meter, price.resource] = Rate(
            model=price.model,
            tiers=_tiers(price),
            decimals=price.decimals or 0,
            included=price.included,
            package=price.package or 1,
        )
    return rates


def _tiers(price: Price) -> tuple[Tier, ...]:
    if not price.tiers:
        return (Tier(None, Decimal(price.unit_price or 0)),)
    return tuple(Tier(tier["up_to"], Decimal(tier["unit_price"])) for tier in price.tiers)
