"""Subscriptions and published prices, read from the database as `usage.billing.rating` takes them.

It alone turns rows into terms; it computes no amount and writes nothing.
"""

from collections.abc import Iterable
from decimal import Decimal

from django.db.models import F, Q, QuerySet

from keys.models import Organization
from usage import meters
from usage.billing.periods import Period
from usage.billing.rating import Rate, Terms, Tier
from usage.models import PlanVersion, Price, Subscription


def in_period(period: Period) -> QuerySet[Subscription]:
    """The subscriptions that run in some hour of the month."""
    rows = Subscription.objects.filter(start__lt=period.end).filter(Q(end=None) | Q(end__gt=period.start))
    return rows.exclude(end=F("start"))


def of_period(period: Period, organization: Organization | None = None) -> dict[int, dict[int, Terms]]:
    """Organization (primary key) → subscription (primary key) → its terms, of all that run in the month, in
    order of their starts; four queries."""
    rows = in_period(period).order_by("organization_id", "start", "id")
    if organization is not None:
        rows = rows.filter(organization=organization)
    found: dict[int, dict[int, Terms]] = {}
    subscriptions = list(rows)
    versions = PlanVersion.objects.in_bulk({row.version_id for row in subscriptions})
    rates = _rates(versions.values())
    for row in subscriptions:
        version = versions[row.version_id]
        found.setdefault(row.organization_id, {})[row.pk] = Terms(
            row.pk, row.start, row.end, version.currency, version.fee, rates[version.pk]
        )
    return found


def of_version(version: PlanVersion) -> dict[tuple[str, str], Rate]:
    """The version's rates by meter and resource."""
    return _rates([version])[version.pk]


def _rates(versions: Iterable[PlanVersion]) -> dict[int, dict[tuple[str, str], Rate]]:
    known = meters.read()
    rates: dict[int, dict[tuple[str, str], Rate]] = {version.pk: {} for version in versions}
    for price in Price.objects.filter(version__in=list(rates)):
        meter = known.get(price.meter)
        rates[price.version_id][price.meter, price.resource] = Rate(
            model=price.model,
            tiers=_tiers(price),
            decimals=meter.decimals if meter else 0,
            included=price.included,
            package=price.package or 1,
        )
    return rates


def _tiers(price: Price) -> tuple[Tier, ...]:
    if not price.tiers:
        return (Tier(None, Decimal(price.unit_price or 0)),)
    return tuple(Tier(tier["up_to"], Decimal(tier["unit_price"])) for tier in price.tiers)
