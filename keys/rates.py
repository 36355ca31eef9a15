"""Rates such as `10/second`: the text that policies and keys hold, parsed; pure."""

import re
from typing import NamedTuple

UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}  # seconds
MAX_LIMIT = 1_000_000_000
MAX_RATES = 4
# The number of a rate, or of a quota with or without its meter, that is long enough for separators.
_LONG = re.compile(r"\b[0-9]{4,16}(?=(?: [a-z0-9_.-]{1,50})?/(?:second|minute|hour|day|month)\b)", re.ASCII)


class Rate(NamedTuple):
    """At most `limit` calls in any one window of `seconds`."""

    limit: int
    seconds: int

    @property
    def text(self) -> str:
        unit = next(name for name, seconds in UNITS.items() if seconds == self.seconds)
        return f"{self.limit}/{unit}"


def shown(text: str) -> str:
    """The rates and quotas in `text` for people, on pages alone: `1,000/second`, which `parse` refuses."""
    return _LONG.sub(lambda number: f"{int(number[0]):,}", text)


def parse(text: str) -> Rate:
    """`N/second`, `/minute`, `/hour` or `/day`. Raises ValueError with a sentence that can be shown."""
    number, _, unit = text.strip().partition("/")
    if not (number.isascii() and number.isdigit() and len(number) <= 10 and unit in UNITS):
        raise ValueError(f"{text[:40]!r} is not a rate; write it as 10/second, 600/minute or 1000/hour.")
    limit = int(number)
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"A rate is between 1 and {MAX_LIMIT:,} calls.")
    return Rate(limit, UNITS[unit])
