"""The lock between those who count and those who draw a line under what was counted.

Whoever adds to the counters shares it; whoever reads a sum that later additions must be told apart from (a
quota that begins, a period that closes) holds it alone. Both within a transaction, to whose end it lasts.
SQLite needs none: its transactions write one at a time.
"""

from typing import Final

from django.db import connection

_NUMBER: Final = 0x4C4B_5553  # "LKUS"; any other number would do


def share() -> None:
    """Wait for whoever holds it alone, then hold it with others."""
    _lock("pg_advisory_xact_lock_shared")


def alone() -> None:
    """Wait for all who share it, then hold it alone."""
    _lock("pg_advisory_xact_lock")


def _lock(function: str) -> None:
    assert connection.in_atomic_block, "the lock would be gone at once"
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s)", [_NUMBER])
