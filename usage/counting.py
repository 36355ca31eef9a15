"""The lock between those who count and those who draw a line under what was counted.

Whoever adds to the counters shares it; whoever reads a sum that later additions must be told apart from (a
quota that begins, a period that closes) holds it alone. Both within a transaction, to whose end it lasts.
SQLite needs none: its transactions write one at a time.
"""

from collections.abc import Collection
from typing import Final

from django.db import connection

_NUMBER: Final = 0x4C4B_5553  # "LKUS"; any other number would do
_TURNS: Final = 64


def share() -> None:
    """Wait for whoever holds it alone, then hold it with others."""
    _lock("pg_advisory_xact_lock_shared")


def alone() -> None:
    """Wait for all who share it, then hold it alone."""
    _lock("pg_advisory_xact_lock")


def take_turns(organizations: Collection[int]) -> None:
    """Hold these organizations (primary keys) alone among those who take turns; everybody else may count."""
    assert connection.in_atomic_block, "the locks would be gone at once"
    if organizations and connection.vendor == "postgresql":
        # Some share a turn, which makes them wait longer and the server's table of locks never full.
        turns = sorted({pk % _TURNS for pk in organizations})
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(%s, turn) FROM unnest(%s::int[]) AS turn", [_NUMBER, turns]
            )


def _lock(function: str) -> None:
    assert connection.in_atomic_block, "the lock would be gone at once"
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {function}(%s)", [_NUMBER])
