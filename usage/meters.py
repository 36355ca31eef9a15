"""What is counted. A meter has a name, a unit and a smallest unit in which its quantities are integers.

`requests` is built in; staff define the others (`usage.definitions`). This module alone knows which there
are: `get` answers from memory, for what may be counted now; `read` from the database, for what was counted
ever. It knows nothing of keys or money, and never writes.
"""

import os
import re
import threading
import time
from collections.abc import Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final, NamedTuple

from keys.directory import Unavailable
from usage import models

MAX_QUANTITY: Final = 2**53  # of one event, in the smallest unit: what every JSON reader keeps exactly
MAX_DECIMALS: Final = 6
PATTERN: Final = r"[a-z][a-z0-9]*([_-][a-z0-9]+)*"
MAX_NAME: Final = 50
FRESH_SECONDS: Final = 1.0  # how long a process believes its memory while nothing tells it of changes
_NAME = re.compile(PATTERN, re.ASCII)


class Meter(NamedTuple):
    """`unit` is the singular, as the billing export has it. Quantities are whole numbers of its
    10**-`decimals`; a `sum` adds up what is reported, a `count` the reports."""

    name: str
    unit: str
    title: str
    aggregation: str = "sum"
    decimals: int = 0

    def smallest(self, value: Decimal) -> int:
        """A quantity in the smallest unit: of a count 1, or 0 for a value of 0.

        Raises ValueError with a sentence that can be shown."""
        try:
            scaled = value.scaleb(self.decimals, _EXACT)
            whole = int(scaled) if abs(scaled) <= MAX_QUANTITY else -1
        except (ArithmeticError, ValueError):  # NaN, infinities, what is far too large or long
            whole = -1
        if whole < 0 or (value.is_signed() and value != 0):
            raise ValueError("The value is not a number from 0 to 2**53 smallest units.")
        if whole != scaled:
            raise ValueError(f"The value has more than {self.decimals} decimals.")
        return self.counted(whole)

    def counted(self, quantity: int) -> int:
        """What one call or event of this quantity adds, in the smallest unit."""
        return min(quantity, 1) if self.aggregation == "count" else quantity

    def as_text(self, quantity: int) -> str:
        """A sum of smallest units as a plain decimal of units: 1500 of three decimals are `1.500`."""
        if not self.decimals:
            return str(quantity)
        whole, rest = divmod(abs(quantity), 10**self.decimals)
        return f"{'-' if quantity < 0 else ''}{whole}.{rest:0{self.decimals}}"

    @property
    def smallest_text(self) -> str:
        """The smallest quantity that there is, in units."""
        return self.as_text(1)


# Nobody writes more digits; who does is told that it is no number.
_EXACT: Final = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
REQUESTS: Final = Meter("requests", "request", "Requests")


class _Picture(NamedTuple):
    """The meters that may be counted now, by name."""

    meters: Mapping[str, Meter]
    read_at: float  # monotonic seconds


# Another number means that `get` may answer differently: what is remembered with one is never older than it.
generation = 0
_picture: _Picture | None = None
_followed = False
_lock = threading.Lock()


def is_name(text: str) -> bool:
    """May `text` name a meter? Lower case, digits, single hyphens and underscores, at most 50 characters."""
    return len(text) <= MAX_NAME and _NAME.fullmatch(text) is not None


def get(name: str) -> Meter | None:
    """The meter of this name that may be counted now, or None. Raises Unavailable in a process that follows
    the feed and could not read it yet."""
    return REQUESTS if name == REQUESTS.name else _known().get(name)


def exists(name: str) -> bool:
    """Was there ever a meter of this name? One query, but for `requests`."""
    return name == REQUESTS.name or models.Meter.objects.filter(slug=name).exists()


def cost(name: str, asked: int) -> int:
    """What a call that was asked about with this cost adds to its meter, in the smallest unit."""
    meter = get(name)
    return asked if meter is None else meter.counted(asked)


def read(*, archived: bool = True) -> dict[str, Meter]:
    """Every meter there ever was by name, `requests` first, or those that may be counted now; one query."""
    rows = models.Meter.objects.order_by("slug")
    rows = rows if archived else rows.filter(archived_at=None)
    found = [Meter(row.slug, row.unit, row.title, row.aggregation, row.decimals) for row in rows]
    return {meter.name: meter for meter in (REQUESTS, *found)}


def reload() -> _Picture:
    """Read anew what `get` answers from."""
    global _picture, generation
    with _lock:
        read_at = time.monotonic()
        found = read(archived=False)
        changed = _picture is None or found != _picture.meters
        _picture = picture = _Picture(found, read_at)
        if changed:
            generation += 1  # after the picture: who sees the number sees the picture
        return picture


def follow() -> None:
    """From now on somebody reloads at every change; memory is believed for as long as the keys' is."""
    global _followed
    _followed = True


def forget() -> None:
    """Nobody does any more."""
    global _followed, _picture, generation
    with _lock:
        _followed, _picture = False, None
        generation += 1


def _known() -> Mapping[str, Meter]:
    picture = _picture
    if _followed:
        if picture is None:
            raise Unavailable("the meters are being loaded")
    elif picture is None or time.monotonic() - picture.read_at >= FRESH_SECONDS:
        picture = reload()
    return picture.meters


def _after_fork() -> None:
    """The parent's follower is not this process's; another thread of it may have held the lock."""
    global _lock
    _lock = threading.Lock()
    forget()


os.register_at_fork(after_in_child=_after_fork)
