"""Statement lines as the columns of an export, their quantities in units by each meter's decimals.

It alone turns smallest units into what a reader of an export sees; it rounds nothing and makes no float.
"""

from collections.abc import Iterable, Iterator, Mapping

from usage.billing import Line
from usage.meters import Meter

type Cells = dict[str, str | int | None]

_QUANTITIES = ("quantity", "included", "billable")


def of_lines(lines: Iterable[Line], known: Mapping[str, Meter]) -> Iterator[Cells]:
    """Each line's columns by name, in their order; `known` are the meters by name."""
    for line in lines:
        cells: Cells = line._asdict()
        meter = known.get(line.meter)
        for name in _QUANTITIES:
            if (quantity := getattr(line, name)) is not None:
                cells[name] = in_units(quantity, meter)
        yield cells


def in_units(quantity: int, meter: Meter | None) -> int | str:
    """A whole number, or text where the meter has decimals (`1.500`), so that no reader makes a float of it.
    Smallest units where this database has lost the meter."""
    return meter.as_text(quantity) if meter is not None and meter.decimals else quantity
