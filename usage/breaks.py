"""Breaks in long work, for others who write to SQLite.

Its lock is no queue: who waits for it asks again ten times a second (sqlite3_busy_timeout), and work in many
transactions lets go of it for a moment between two of them. The drain of a long backlog would keep everybody
else out until their patience ends. PostgreSQL needs no breaks.
"""

import time
from collections.abc import Callable
from typing import Final

from django.db import connection

EVERY_SECONDS: Final = 1.0
# Longer than the 100 ms at which SQLite's waiters ask in the end, so that each of them finds it free.
BREAK_SECONDS: Final = 0.12


def with_breaks(stop: Callable[[], bool]) -> Callable[[], bool]:
    """`stop`, which long work asks between its transactions; on SQLite it takes a break every second."""
    if connection.vendor != "sqlite":
        return stop
    last = time.monotonic()

    def asked() -> bool:
        nonlocal last
        if time.monotonic() - last >= EVERY_SECONDS:
            time.sleep(BREAK_SECONDS)
            last = time.monotonic()
        return stop()

    return asked
