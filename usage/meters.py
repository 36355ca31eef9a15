"""What is counted. A meter has a name, a unit and a smallest unit in which its quantities are integers.

There is one built-in meter; plans and prices refer to meters by name. It knows nothing of keys or money.
"""

from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple

MAX_QUANTITY: Final = 2**53  # of one event, in the smallest unit: what every JSON reader keeps exactly


class Meter(NamedTuple):
    """`unit` is the singular, as the billing export has it. Quantities are whole numbers of its
    10**-`decimals`; a `sum` adds up what is reported, a `count` the reports."""

    name: str
    unit: str
    title: str
    aggregation: str = "sum"
    decimals: int = 0

    def smallest(self, value: Decimal) -> int:
        """A quantity in the smallest unit. Raises ValueError with a sentence that can be shown."""
        try:
            scaled = value.scaleb(self.decimals)
            whole = int(scaled) if abs(scaled) <= MAX_QUANTITY else -1
        except (InvalidOperation, ValueError, OverflowError):  # NaN, infinities
            whole = -1
        if whole < 0 or (value.is_signed() and value != 0):
            raise ValueError("The value is not a number from 0 to 2**53 smallest units.")
        if whole != scaled:
            raise ValueError(f"The value has more than {self.decimals} decimals.")
        return whole


REQUESTS: Final = Meter("requests", "request", "Requests")
METERS: Final = {meter.name: meter for meter in (REQUESTS,)}


def get(name: str) -> Meter | None:
    """The meter of this name, or None."""
    return METERS.get(name)


def unit_of(name: str) -> str:
    """The unit of a meter in the export; empty for one that this version does not know."""
    meter = get(name)
    return meter.unit if meter is not None else ""
