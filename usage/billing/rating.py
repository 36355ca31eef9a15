"""What usage costs: pure functions from quantities and terms to rated lines, exact to the minor unit.

Each line is rounded once, half to even, and then shared among its keys by largest remainder. This module
alone applies a price. It reads no database, no clock and no setting, and nothing here is a float.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from usage.billing import money
from usage.billing.money import EXACT
from usage.billing.periods import Period
from usage.models import PricingModel

_SECOND: Final = dt.timedelta(seconds=1)


class Tier(NamedTuple):
    """Quantities up to and including `up_to` (in the smallest unit; None: all above) cost this each unit."""

    up_to: int | None
    unit_price: Decimal


class Rate(NamedTuple):
    """A price. `included` and `package` are in the meter's smallest unit, of which a unit has 10**`decimals`;
    prices that have no tiers have one, which is open."""

    model: str
    tiers: tuple[Tier, ...]
    decimals: int = 0
    included: int = 0
    package: int = 1


class Terms(NamedTuple):
    """A subscription: what is priced how in [start, end). `fee` is a month's, in minor units; `rates` are by
    meter and resource, of which an empty one stands for all without a rate of their own."""

    id: int
    start: dt.datetime
    end: dt.datetime | None
    currency: str
    fee: int
    rates: Mapping[tuple[str, str], Rate]

    def price_of(self, meter: str, resource: str) -> str | None:
        """The resource under which this usage is priced; None: it has no price."""
        for each in (resource, ""):
            if (meter, each) in self.rates:
                return each
        return None

    def seconds_in(self, period: Period) -> int:
        """How long it runs in that month."""
        start, end = max(self.start, period.start), min(self.end or period.end, period.end)
        return max((end - start) // _SECOND, 0)


class Used(NamedTuple):
    """What one key used of one meter and resource under one subscription (its id; None: under none)."""

    subscription: int | None
    key: str  # its public id
    live: bool
    meter: str
    resource: str
    quantity: int  # in the meter's smallest unit


class Share(NamedTuple):
    """One key's part of a line: quantities in the smallest unit, the amount in minor units."""

    key: str
    quantity: int
    included: int
    billable: int
    amount: int


class Rated(NamedTuple):
    """A line of a bill: one subscription, meter, price and tier, and whose it is."""

    subscription: int | None
    live: bool
    meter: str
    resource: str
    tier: str  # its number, where the price has tiers
    unit_price: Decimal  # of a unit, or of a package; 0 where the usage is listed only
    amount: int
    shares: list[Share]


class Fee(NamedTuple):
    """A subscription's fee for the time it ran in a month: seconds, and minor units."""

    subscription: int
    seconds: int
    monthly: int
    amount: int


class Part(NamedTuple):
    """What one price makes of a quantity, in one of its tiers."""

    tier: str
    included: int
    billable: int
    unit_price: Decimal
    amount: int


def parts(rate: Rate, quantity: int, currency: str) -> list[Part]:
    """Price a quantity of 0 or more (in the smallest unit). What is included comes off first and stands in
    the first part; packages and tiers count what remains."""
    included = min(quantity, rate.included)
    return [
        Part(tier, included if place == 0 else 0, billable, price, money.minor(amount, currency))
        for place, (tier, billable, price, amount) in enumerate(_priced(rate, quantity - included))
    ]


def fee(terms: Terms, period: Period) -> Fee | None:
    """The month's fee for the seconds that the subscription runs in it; None where there is none."""
    seconds = terms.seconds_in(period)
    if not seconds or not terms.fee:
        return None
    amount = money.half_even(terms.fee * seconds, (period.end - period.start) // _SECOND)
    return Fee(terms.id, seconds, terms.fee, amount)


def rate(used: Iterable[Used], terms: Mapping[int, Terms]) -> Iterator[Rated]:
    """Rate one organization's usage of a period, whose subscriptions are `terms` by id.

    The whole live quantity under one price is rated at once and then shared by the keys' quantities, ties to
    the smaller key id by code points; `included` and `billable` add up to each key's own quantity. Test
    environments' usage, and what has no price or subscription, is listed at 0 and uses up nothing.
    """
    groups: dict[tuple[int | None, bool, str, str, bool], dict[str, int]] = {}
    for each in used:
        under = None if each.subscription is None else terms[each.subscription].price_of(*each[3:5])
        resource = each.resource if under is None else under
        group = each.subscription, each.live, each.meter, resource, under is not None
        by_key = groups.setdefault(group, {})
        by_key[each.key] = by_key.get(each.key, 0) + each.quantity
    for (subscription, live, meter, resource, priced), by_key in groups.items():
        keys = sorted(key for key, quantity in by_key.items() if quantity)
        quantities = [by_key[key] for key in keys]
        total = sum(quantities)
        # Below 0 only where what was held was settled for less after the rest was billed.
        if subscription is None or not priced or not live or total <= 0:
            shares = [
                Share(key, quantity, 0, quantity if live else 0, 0)
                for key, quantity in zip(keys, quantities, strict=True)
            ]
            if shares:
                yield Rated(subscription, live, meter, resource, "", Decimal(0), 0, shares)
            continue
        mine = terms[subscription]
        found = parts(mine.rates[meter, resource], total, mine.currency)
        for part, shared in zip(found, _shared(found, keys, quantities), strict=True):
            yield Rated(subscription, live, meter, resource, part.tier, part.unit_price, part.amount, shared)


def _priced(rate: Rate, billable: int) -> Iterator[tuple[str, int, Decimal, Decimal]]:
    """(tier, quantity, price, exact amount) of what is left when the included is taken off."""
    match rate.model:
        case PricingModel.PER_UNIT:
            yield "", billable, rate.tiers[0].unit_price, _cost(billable, rate.tiers[0], rate)
        case PricingModel.PACKAGE:
            price = rate.tiers[0].unit_price
            yield "", billable, price, EXACT.multiply(Decimal(-(-billable // rate.package)), price)
        case PricingModel.VOLUME:
            number, tier = next(
                (number, tier)
                for number, tier in enumerate(rate.tiers, 1)
                if tier.up_to is None or billable <= tier.up_to
            )
            yield str(number), billable, tier.unit_price, _cost(billable, tier, rate)
        case PricingModel.GRADUATED:
            below = 0
            for number, tier in enumerate(rate.tiers, 1):
                reached = billable if tier.up_to is None else min(billable, tier.up_to)
                if reached > below or number == 1:
                    yield str(number), reached - below, tier.unit_price, _cost(reached - below, tier, rate)
                below = max(below, reached)


def _cost(quantity: int, tier: Tier, rate: Rate) -> Decimal:
    return EXACT.multiply(Decimal(quantity).scaleb(-rate.decimals, EXACT), tier.unit_price)


def _shared(found: Sequence[Part], keys: Sequence[str], quantities: Sequence[int]) -> Iterator[list[Share]]:
    """Each part's shares, in the order of the keys. What is included, and each tier's quantity, is taken from
    what is left of the keys' quantities, so that a key's add up to its own; amounts are shared by the keys'
    whole quantities."""
    left = list(quantities)
    for part in found:
        taken = []
        for quantity in (part.included, part.billable):
            own = money.apportion(quantity, left) if quantity else [0] * len(left)
            left = [rest - mine for rest, mine in zip(left, own, strict=True)]
            taken.append(own)
        amounts = money.apportion(part.amount, quantities)
        yield [
            Share(key, included + billable, included, billable, amount)
            for key, included, billable, amount in zip(keys, *taken, amounts, strict=True)
            if included or billable or amount
        ]
