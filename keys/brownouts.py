"""Announced brownouts: short refusals in a key's last days, so that nobody meets its end unprepared.

Pure: when they are follows from the key's id, its expiry and its policy's days, so that a page and a mail can
list them long before. The first is so many days before the expiry, and each further one halfway from there to
the end; the id moves them by minutes, or all keys of one day would stop at once.
"""

import datetime as dt
from functools import lru_cache
from typing import Final
from zlib import crc32

MOST_DAYS: Final = 30
SECONDS: Final = 120.0  # that one lasts
# Whoever made a key for less knows when it ends.
BRIEF: Final = dt.timedelta(days=2)
_LAST: Final = 3600.0  # seconds before the expiry: no brownout is nearer to it
_SPREAD: Final = 60  # minutes
_DAY: Final = 86_400.0


def lead(days: int | None) -> float:
    """In so many seconds before the expiry there may be a brownout; 0: never."""
    return days * _DAY + _SPREAD * 60 if days else 0.0


@lru_cache(maxsize=8192)
def starts(key: str, expires_at: float, days: int) -> tuple[float, ...]:
    """When the brownouts of the key with this public id begin, in order: full minutes, as epoch seconds."""
    earlier = crc32(key.encode()) % _SPREAD * 60
    found, left = [], days * _DAY
    while left >= _LAST:
        found.append((expires_at - left) // 60 * 60 - earlier)
        left /= 2
    return tuple(found)


def until(key: str, expires_at: float, days: int | None, now: float) -> float:
    """The end of the brownout that the key is in; 0.0: it is in none. `expires_at` may be infinite."""
    if not days or not expires_at - lead(days) <= now < expires_at:
        return 0.0
    begun = (start for start in starts(key, expires_at, days) if start <= now < start + SECONDS)
    return next((start + SECONDS for start in begun), 0.0)


def is_brief(created_at: dt.datetime, expires_at: dt.datetime | None) -> bool:
    """Is the key's whole life too short for brownouts?"""
    return expires_at is not None and expires_at - created_at < BRIEF


def to_come(
    key: str, created_at: dt.datetime, expires_at: dt.datetime | None, days: int | None, now: dt.datetime
) -> list[dt.datetime]:
    """When the brownouts begin that are not over yet, in order."""
    if not days or expires_at is None or is_brief(created_at, expires_at):
        return []
    after = now.timestamp() - SECONDS
    return [
        dt.datetime.fromtimestamp(start, dt.UTC)
        for start in starts(key, expires_at.timestamp(), days)
        if start > after
    ]
