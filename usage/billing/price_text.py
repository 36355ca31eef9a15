"""Prices as lines of text, as staff write and read them in the admin; quantities in units.

`requests per_unit 0.002 included=1000`, `tokens resource=large package 5.00 of=1000`,
`tokens graduated 1000=0.02 5000=0.01 rest=0.005`. It shapes text; what a price may be is for
`usage.billing.plans` to say.
"""

import shlex
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from keys.lifecycle import Invalid
from usage.billing import money
from usage.billing.plans import PriceSpec
from usage.meters import Meter
from usage.models import PricingModel

_REST = "rest"


def parse(line: str, known: Mapping[str, Meter]) -> PriceSpec:
    """A price from its line. Raises Invalid with a sentence and the field `prices`."""
    try:
        words = shlex.split(line)
    except ValueError:
        words = []
    resource = words.pop(1).partition("=")[2] if len(words) > 1 and words[1].startswith("resource=") else ""
    if len(words) < 3:
        raise Invalid(
            "Write a price as: requests per_unit 0.002 included=1000, tokens package 5.00 of=1000, or "
            "tokens graduated 1000=0.02 rest=0.005.",
            "prices",
        )
    name, model, *rest = words
    meter = known.get(name)
    if meter is None:
        raise Invalid(f"There is no meter {name[:50]!r}.", "prices")
    included, package, price = 0, None, ""
    tiers: list[tuple[int | None, str]] = []
    for word in rest:
        left, equals, right = word.partition("=")
        if not equals:
            price = word
        elif left == "included":
            included = _quantity(right, meter)
        elif left == "of":
            package = _quantity(right, meter)
        else:
            tiers.append((None if left == _REST else _quantity(left, meter), right))
    return PriceSpec(name, resource, model, price, package, included, tiers)


def written(spec: PriceSpec, known: Mapping[str, Meter]) -> str:
    """The line from which `parse` makes the same price."""
    meter = known[spec.meter]
    words = [spec.meter, f"resource={spec.resource}" if spec.resource else "", spec.model, spec.unit_price]
    words += [f"{_REST if up_to is None else _units(up_to, meter)}={price}" for up_to, price in spec.tiers]
    if spec.model == PricingModel.PACKAGE and spec.package is not None:
        words.append(f"of={_units(spec.package, meter)}")
    if spec.included:
        words.append(f"included={_units(spec.included, meter)}")
    return shlex.join(word for word in words if word)


def _units(quantity: int, meter: Meter) -> str:
    return money.plain(Decimal(meter.as_text(quantity)))


def _quantity(text: str, meter: Meter) -> int:
    try:
        scaled = Decimal(text[:40]).scaleb(meter.decimals, money.EXACT)
        if scaled.is_finite() and scaled == int(scaled):
            return int(scaled)
    except (InvalidOperation, ArithmeticError, ValueError):
        pass
    raise Invalid(f"{text[:40]!r} is no quantity with at most {meter.decimals} decimals.", "prices")
