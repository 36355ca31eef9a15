"""What the commands about billing share: how they read a month, and how they write its totals."""

import argparse
from collections.abc import Iterator, Mapping

from usage import meters
from usage.billing import Period
from usage.exports.cells import in_units


def month(text: str) -> Period:
    """argparse's type for `YYYY-MM`."""
    try:
        return Period.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def totals(
    lines: int, quantity_by_meter: Mapping[str, int], amount_by_currency: Mapping[str, str]
) -> Iterator[str]:
    """What a statement adds up to, one fact a line."""
    known = meters.read()
    yield f"lines: {lines}"
    for name, quantity in sorted(quantity_by_meter.items()):
        yield f"{name}: {in_units(quantity, known.get(name))}"
    for currency, amount in sorted(amount_by_currency.items()):
        yield f"{currency}: {amount}"
