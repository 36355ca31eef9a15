"""Adds calls to the counters: hourly roll-ups, each secret's last use, how calls were answered, quotas.

The one place with SQL of its own: an upsert that adds, which the ORM has not, the same text on SQLite and
PostgreSQL. Rows are written in the order of their keys, so that two writers never wait for each other in a
circle. It opens no transaction and decides nothing about what is counted once.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from django.db import connection

from keys.verdicts import BY_NUMBER, Code
from usage import ledger
from usage.records import Record

_HOUR = 3_600_000_000  # µs
_CHUNK = 500  # rows in one statement
_VALID = Code.VALID.number

_ADD_CALLS = """
INSERT INTO usage_rollup
  (organization_id, hour, key_id, meter, resource, outcome, booked_period, calls, quantity)
VALUES {rows}
ON CONFLICT (organization_id, hour, key_id, meter, resource, outcome, booked_period) DO UPDATE SET
  calls = usage_rollup.calls + EXCLUDED.calls,
  quantity = usage_rollup.quantity + EXCLUDED.quantity
"""
_ADD_RESPONSES = """
INSERT INTO usage_responserollup (organization_id, hour, key_id, resource, status_class, responses)
VALUES {rows}
ON CONFLICT (organization_id, hour, key_id, resource, status_class) DO UPDATE SET
  responses = usage_responserollup.responses + EXCLUDED.responses
"""
_ADD_USE = """
INSERT INTO usage_secretuse (secret_id, calls, last_used_at, address, user_agent)
VALUES {rows}
ON CONFLICT (secret_id) DO UPDATE SET
  calls = usage_secretuse.calls + EXCLUDED.calls,
  last_used_at = CASE WHEN EXCLUDED.last_used_at >= usage_secretuse.last_used_at
    THEN EXCLUDED.last_used_at ELSE usage_secretuse.last_used_at END,
  address = CASE WHEN EXCLUDED.last_used_at >= usage_secretuse.last_used_at
    THEN EXCLUDED.address ELSE usage_secretuse.address END,
  user_agent = CASE WHEN EXCLUDED.last_used_at >= usage_secretuse.last_used_at
    THEN EXCLUDED.user_agent ELSE usage_secretuse.user_agent END
"""


def moment(microseconds: int) -> dt.datetime:
    """A journal's time as a datetime, exactly (a float would round it)."""
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds)


class Sums:
    """Calls added up in memory until they are stored."""

    def __init__(self) -> None:
        # (organization, hours since the epoch, key, meter, resource, code) → [calls, quantity]
        self._rollups: dict[tuple[int, int, int, str, str, int], list[int]] = {}
        # secret → [calls, time, address, user agent]
        self._uses: dict[int, list[Any]] = {}  # a row of mixed types, filled below
        # (code, meter) → [calls, quantity]; every call is here, those without a key too
        self._outcomes: dict[tuple[int, str], list[int]] = {}
        # (organization, hours since the epoch, key, resource, class of the status) → responses
        self._responses: dict[tuple[int, int, int, str, int], int] = {}
        # (organization, hours since the epoch, key, meter, bits of the quotas charged) → cost
        self._charges: dict[tuple[int, int, int, str, int], int] = {}

    def add(self, record: Record) -> None:
        """Count one call record. What was refused counts apart, and its quantity is 0."""
        (
            _,
            _,
            at,
            _,
            _,
            organization,
            key,
            secret,
            cost,
            calls,
            code,
            meter,
            resource,
            address,
            agent,
            charged,
        ) = record
        quantity = cost if code == _VALID else 0
        outcome = self._outcomes.setdefault((code, meter), [0, 0])
        outcome[0] += calls
        outcome[1] += quantity
        if not organization:
            return
        group = organization, at // _HOUR, key, meter, resource, code
        rollup = self._rollups.setdefault(group, [0, 0])
        rollup[0] += calls
        rollup[1] += quantity
        if code == _VALID:
            use = self._uses.setdefault(secret, [0, 0, "", ""])
            use[0] += calls
            if charged:
                charge = organization, at // _HOUR, key, meter, charged
                self._charges[charge] = self._charges.get(charge, 0) + cost
            if at >= use[1]:
                use[1:] = at, address, agent

    def add_response(self, record: Record) -> None:
        """Count how one call was answered."""
        group = record.organization, record.time // _HOUR, record.key, record.resource, record.code
        self._responses[group] = self._responses.get(group, 0) + record.calls

    def outcomes(self) -> Iterator[tuple[str, int, int]]:
        """("<outcome>/<meter>", calls, quantity) of every call, those without a key included."""
        for (code, meter), (calls, quantity) in self._outcomes.items():
            yield f"{outcome_name(code)}/{meter}", calls, quantity

    def store(self, spool: str = "") -> None:
        """Add them to the database, inside the caller's transaction; `spool` is whose journal it was."""
        hour = connection.ops.adapt_datetimefield_value
        day = connection.ops.adapt_datefield_value
        rollups = []
        for key in sorted(self._rollups):
            organization, hours, key_id, meter, resource, code = key
            start = moment(hours * _HOUR)
            rollups.append(
                (
                    *(organization, hour(start), key_id, meter, resource, outcome_name(code)),
                    *(day(start.date().replace(day=1)), *self._rollups[key]),
                )
            )
        _execute(_ADD_CALLS, rollups)
        _execute(
            _ADD_USE,
            [
                (secret, calls, hour(moment(at)), address, user_agent)
                for secret, (calls, at, address, user_agent) in sorted(self._uses.items())
            ],
        )
        _execute(
            _ADD_RESPONSES,
            [
                (organization, hour(moment(hours * _HOUR)), key, resource, status_class, responses)
                for (organization, hours, key, resource, status_class), responses in sorted(
                    self._responses.items()
                )
            ],
        )
        ledger.add_drained(
            spool,
            [
                (organization, key, meter, moment(hours * _HOUR), quantity)
                for (organization, hours, key, meter, _, code), (_, quantity) in self._rollups.items()
                if code == _VALID and quantity
            ],
            {
                (organization, key, meter, moment(hours * _HOUR), bits): cost
                for (organization, hours, key, meter, bits), cost in self._charges.items()
            },
        )


def outcome_name(number: int) -> str:
    """A code's name as roll-ups hold it; a number of a later version keeps its own."""
    code = BY_NUMBER.get(number)
    return code.text if code is not None else f"CODE_{number}"


def _execute(statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with connection.cursor() as cursor:
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            places = ", ".join(["(" + ", ".join(["%s"] * len(chunk[0])) + ")"] * len(chunk))
            cursor.execute(statement.format(rows=places), [value for row in chunk for value in row])
