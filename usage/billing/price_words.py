"""Prices in words for people: what is included, and what each unit costs, a line a tier.

Customers and staff read the same words. It shapes text; what a price comes to is `usage.billing.rating`'s.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from usage.billing import money
from usage.billing.plans import PriceSpec
from usage.meters import Meter
from usage.models import PricingModel


class PriceWords(NamedTuple):
    """One price of a plan; `resource` is empty where it is for all that have no price of their own."""

    title: str
    resource: str
    unit: str
    included: str  # in units; empty: nothing is
    lines: list[str]


def words(specs: Iterable[PriceSpec], known: Mapping[str, Meter], currency: str) -> list[PriceWords]:
    """The prices of a version in `currency`, by meter, the resources' own after the general one."""
    return [
        PriceWords(
            title=known[spec.meter].title if spec.meter in known else spec.meter,
            resource=spec.resource,
            unit=known[spec.meter].unit if spec.meter in known else "unit",
            included=units(spec.included, known.get(spec.meter)) if spec.included else "",
            lines=_lines(spec, known.get(spec.meter), currency),
        )
        for spec in sorted(specs, key=lambda spec: (spec.meter, spec.resource))
    ]


def units(quantity: int, meter: Meter | None) -> str:
    """A quantity of smallest units in units, with thousands apart: `1,000,000` or `0.5`."""
    return f"{Decimal(money.plain(Decimal(meter.as_text(quantity) if meter else quantity))):,f}"


def _lines(spec: PriceSpec, meter: Meter | None, currency: str) -> list[str]:
    each = f"{currency} a {meter.unit if meter else 'unit'}"
    match spec.model:
        case PricingModel.PACKAGE:
            return [f"{spec.unit_price} {currency} for each begun {units(spec.package or 1, meter)}"]
        case PricingModel.GRADUATED:
            return list(_tiers(spec, meter, each, "The first {}", "Up to {}", "Beyond"))
        case PricingModel.VOLUME:
            return list(_tiers(spec, meter, each, "All, if up to {}", "All, if up to {}", "All, if more"))
        case _:
            return [f"{spec.unit_price} {each}"]


def _tiers(
    spec: PriceSpec, meter: Meter | None, each: str, first: str, between: str, last: str
) -> Iterable[str]:
    for number, (up_to, price) in enumerate(spec.tiers):
        if up_to is not None:
            yield f"{(between if number else first).format(units(up_to, meter))}: {price} {each}"
        else:
            yield f"{last}: {price} {each}" if number else f"{price} {each}"
