"""Live quantities as events for billing systems that price usage themselves: Stripe, OpenMeter, Lago.

One event a line of usage, with an id that is the same whenever the month is exported. Fees, credits and what
is included stay with that system. This module alone says which lines those are and whom they are addressed
to, and keeps what had to be left out; it knows no system's format.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from keys.models import Environment
from usage.billing import Line, Period
from usage.exports.cells import Cells

SHOWN = 20  # lines that are named; the others are a number

_SECOND = dt.timedelta(seconds=1)
# What a line is about. Its numbers may change while a month is open, its event's id never does.
_IDENTITY = ("key", "environment", "meter", "resource", "tier", "kind", "original_period")


class Event(NamedTuple):
    """A quantity to be billed elsewhere."""

    id: str  # at most 100 characters of ASCII
    customer: str  # as the billing system knows the organization
    meter: str
    value: str  # a plain decimal in the meter's unit
    at: dt.datetime  # the month's last second: inside of it, and accepted for longest
    about: dict[str, str]  # key, and resource and original_period where there are any


@dataclass(slots=True)
class LeftOut:
    """Usage that a billing system cannot be sent."""

    organizations: dict[str, None] = field(default_factory=dict)  # that it has no id for, in their order
    lines: list[Line] = field(default_factory=list)  # whose value it refuses: the first of them
    more_lines: int = 0

    def __bool__(self) -> bool:
        return bool(self.organizations or self.lines)

    def refused(self, line: Line) -> None:
        if len(self.lines) < SHOWN:
            self.lines.append(line)
        else:
            self.more_lines += 1


def addressed(
    lines: Iterable[Line],
    ids: Mapping[str, str],
    takes: Callable[[Line], bool],
    left_out: LeftOut,
) -> Iterator[Line]:
    """The lines that become events, with the organization's id in the billing system for its
    `external_customer`. Organizations that have none, and lines that the system does not take, are put into
    `left_out` instead."""
    for line in lines:
        if not line.meter or not line.quantity or line.environment == Environment.TEST:
            continue
        customer = ids.get(line.organization)
        if not customer:
            left_out.organizations[line.organization] = None
        elif not takes(line):
            left_out.refused(line)
        else:
            yield line._replace(external_customer=customer)


def of_cells(lines: Iterable[Cells]) -> Iterator[Event]:
    """An event for each line that `addressed` let through."""
    for (period, organization, _), own in groupby(lines, key=itemgetter("period", "organization", "key")):
        at = Period.parse(str(period)).end - _SECOND
        seen: Counter[tuple[str, ...]] = Counter()  # two subscriptions in a month may make lines alike
        for cells in own:
            identity = tuple(str(cells[name] or "") for name in _IDENTITY)
            seen[identity] += 1
            text = "\n".join([str(period), str(organization), *identity, str(seen[identity])])
            yield Event(
                id=f"{period}-{hashlib.sha256(text.encode()).hexdigest()[:40]}",
                customer=str(cells["external_customer"]),
                meter=str(cells["meter"]),
                value=str(cells["quantity"]),
                at=at,
                about={
                    name: str(cells[name])
                    for name in ("key", "resource", "original_period")
                    if cells[name] is not None
                },
            )
