"""The log of refusals: rows that say of a call why it was refused, written by the drain and kept for a while.

It alone adds and deletes those rows, in the drain's transaction and in the worker's. It counts nothing: how
often calls were refused is the roll-ups' to say, also long after the rows are gone.
"""

import datetime as dt
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import connection

from usage import bulk
from usage.models import Refusal
from usage.records import Record
from usage.rollups import moment, outcome_name
from usage.traits import unpack

ROWS = 20  # of one key (or of nobody) and code in a minute, of what one transaction reads
BATCH = 5000  # rows deleted in one transaction
_MINUTE = 60_000_000  # µs
_NOTHING = (None, None, None)

# What sums of refusals add to a row that is there; should it be gone, they make one of what they know.
_ADD = """
INSERT INTO usage_refusal
  (spool, sequence, at, organization_id, key_id, secret_id, outcome, resource, address, user_agent, more)
{rows}
ON CONFLICT (spool, sequence) DO UPDATE SET more = usage_refusal.more + EXCLUDED.more
"""


class Entries:
    """Refusals of one journal, gathered until they are stored: as many rows as there may be at most."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Any]] = {}  # sequence → what the row holds; of mixed types, filled below
        # (minute, key, code) → [rows, sequence of the last]
        self._runs: dict[tuple[int, int, int], list[int]] = {}

    def add(self, record: Record) -> None:
        """Take one record of a call that was refused."""
        sequence, calls = record.continues or record.sequence, record.calls
        if not record.continues:
            run = self._runs.setdefault((record.time // _MINUTE, record.key, record.code), [0, 0])
            if run[0] >= ROWS:
                sequence = run[1]
            else:
                run[0] += 1
                run[1] = sequence
                calls -= 1  # the row itself stands for one
        row = self._rows.get(sequence)
        if row is None:
            self._rows[sequence] = [record, calls]
        else:
            row[1] += calls

    def store(self, spool: str) -> None:
        """Write them as rows of this spool, inside the caller's transaction."""
        bulk.execute(_ADD, [_row(spool, sequence, *self._rows[sequence]) for sequence in sorted(self._rows)])


def _row(spool: str, sequence: int, record: Record, more: int) -> tuple[object, ...]:
    at = connection.ops.adapt_datetimefield_value(moment(record.time))
    whose = (record.organization, record.key, record.secret) if record.organization else _NOTHING
    texts = outcome_name(record.code), record.resource, record.address, unpack(record.user_agent).agent
    return spool, sequence, at, *whose, *texts, more


def prune(now: dt.datetime, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete what is older than USAGE_REFUSAL_DAYS, in small transactions; returns the number of rows. `stop`
    is asked before each."""
    end, deleted = now - dt.timedelta(days=settings.USAGE_REFUSAL_DAYS), 0
    while not stop():
        oldest = Refusal.objects.filter(at__lt=end).order_by("at", "id").values("pk")[:BATCH]
        count, _ = Refusal.objects.filter(pk__in=oldest).delete()
        deleted += count
        if count < BATCH:
            break
    return deleted
