"""Billing periods: calendar months in UTC, half-open, and which of them are still open.

It alone says what a month is and which may still change; it counts and prices nothing. A month is cut before
its statement is written: from then on what comes late is booked to a later month.
"""

import datetime as dt
import re
from typing import NamedTuple, Self

from usage.models import ClosedPeriod

_PERIOD = re.compile(r"([0-9]{4})-([0-9]{2})", re.ASCII)


class Period(NamedTuple):
    """A calendar month in UTC."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`YYYY-MM`. Raises ValueError with a sentence that can be shown."""
        match = _PERIOD.fullmatch(text)
        if match is None or not 1 <= int(match[2]) <= 12 or not 2000 <= int(match[1]) <= 9000:
            raise ValueError(f"{text[:40]!r} is not a month; write it as 2026-01")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of(cls, moment: dt.datetime) -> Self:
        """The month that a moment is in."""
        utc = moment.astimezone(dt.UTC)
        return cls(utc.year, utc.month)

    @property
    def first_day(self) -> dt.date:
        return dt.date(self.year, self.month, 1)

    @property
    def start(self) -> dt.datetime:
        return dt.datetime(self.year, self.month, 1, tzinfo=dt.UTC)

    @property
    def end(self) -> dt.datetime:
        """The first moment that is not in it."""
        return dt.datetime(self.year + self.month // 12, self.month % 12 + 1, 1, tzinfo=dt.UTC)

    @property
    def next(self) -> Self:
        return type(self).of(self.end)

    @property
    def previous(self) -> Self:
        return type(self).of(self.start - dt.timedelta(days=1))

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


FIRST = Period(2000, 1)


def earliest_open() -> Period:
    """The first month that is not cut: nothing before it may change. Who acts on it holds `counting.share()`,
    for whoever cuts a month is alone."""
    last = ClosedPeriod.objects.order_by("-period").values_list("period", flat=True).first()
    return FIRST if last is None else Period(last.year, last.month).next


def is_closed(period: Period) -> bool:
    """Is its statement written, for ever?"""
    return ClosedPeriod.objects.filter(period=period.first_day).exclude(closed_at=None).exists()
