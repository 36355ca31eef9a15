"""Hard quotas such as `100000/month`: the text that policies and keys hold, parsed; their periods; pure."""

import datetime as dt
import re
from typing import Final, NamedTuple

UNITS: Final = ("day", "month")  # of the calendar, in UTC
MAX_LIMIT: Final = 2**53  # in the meter's smallest unit: what every JSON reader keeps exactly
MAX_QUOTAS: Final = 8
CALLS: Final = "requests"  # the meter of a quota that names none
_TEXT = re.compile(r"([0-9]{1,16})(?: +([a-z][a-z0-9_.-]{0,49}))?/(day|month)", re.ASCII)
_DAY = dt.timedelta(days=1)


class Quota(NamedTuple):
    """At most `limit` of `meter`, in its smallest unit, in any one day or month of UTC."""

    limit: int
    meter: str
    unit: str

    @property
    def text(self) -> str:
        meter = "" if self.meter == CALLS else f" {self.meter}"
        return f"{self.limit}{meter}/{self.unit}"


def parse(text: str) -> Quota:
    """`N/month`, `N/day`, `N METER/month` or `N METER/day`. Raises ValueError with a sentence that can be
    shown."""
    found = _TEXT.fullmatch(text.strip()) if len(text) <= 200 else None
    if found is None:
        shown = text[:40].encode("utf-8", "replace").decode()
        raise ValueError(
            f"{shown!r} is not a quota; write it as 100000/month, 5000/day or 5000000 input_tokens/month."
        )
    limit = int(found[1])
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"A quota is between 1 and {MAX_LIMIT:,}.")
    return Quota(limit, found[2] or CALLS, found[3])


def period(unit: str, at: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """The day or month that `at` is in, as [start, end) in UTC."""
    day = at.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "day":
        return day, day + _DAY
    start = day.replace(day=1)
    return start, (start + 31 * _DAY).replace(day=1)
