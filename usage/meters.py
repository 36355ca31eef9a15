"""What is counted. A meter has a name, a unit and a smallest unit in which its quantities are integers.

There is one built-in meter; plans and prices refer to meters by name. It knows nothing of keys or money.
"""

from typing import Final, NamedTuple


class Meter(NamedTuple):
    """`unit` is the singular, as the billing export has it; quantities are whole numbers of it."""

    name: str
    unit: str
    title: str


REQUESTS: Final = Meter("requests", "request", "Requests")
METERS: Final = {meter.name: meter for meter in (REQUESTS,)}


def unit_of(name: str) -> str:
    """The unit of a meter in the export; empty for one that this version does not know."""
    meter = METERS.get(name)
    return meter.unit if meter is not None else ""
