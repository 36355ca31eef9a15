"""Adds calls to the counters: hourly roll-ups, each secret's last use, how calls were answered, quotas.

A place with SQL of its own (another is `usage.events`): an upsert that adds, which the ORM has not, the same
text on SQLite and PostgreSQL. Rows are written in the order of their keys, so that two writers never wait for
each other in a circle. It opens no transaction and decides nothing about what is counted once.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.db import connection

from keys.verdicts import BY_NUMBER, Code
from usage import bulk, ledger, organization_rollups, resources
from usage.billing import periods
from usage.billing.periods import Period
from usage.meters import REQUESTS
from usage.records import HELD, Record
from usage.traits import unpack

# Organization, hour, key, meter, resource, outcome.
type Group = tuple[int, dt.datetime, int, str, str, str]

_HOUR = 3_600_000_000  # µs
_HOUR_LONG = dt.timedelta(hours=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_VALID = Code.VALID.number

_ADD_CALLS = """
INSERT INTO usage_rollup
  (organization_id, hour, key_id, meter, resource, outcome, booked_period, calls, quantity)
{rows}
ON CONFLICT (organization_id, hour, key_id, meter, resource, outcome, booked_period) DO UPDATE SET
  calls = usage_rollup.calls + EXCLUDED.calls,
  quantity = usage_rollup.quantity + EXCLUDED.quantity
"""
_ADD_RESPONSES = """
INSERT INTO usage_responserollup (organization_id, hour, key_id, resource, status_class, responses)
{rows}
ON CONFLICT (organization_id, hour, key_id, resource, status_class) DO UPDATE SET
  responses = usage_responserollup.responses + EXCLUDED.responses
"""
_ADD_USE = """
INSERT INTO usage_secretuse (secret_id, calls, last_used_at, address, user_agent)
{rows}
ON CONFLICT (secret_id) DO UPDATE SET
  calls = usage_secretuse.calls + EXCLUDED.calls,
  last_used_at = CASE WHEN EXCLUDED.last_used_at >= usage_secretuse.last_used_at
    THEN EXCLUDED.last_used_at ELSE usage_secretuse.last_used_at END,
  address = CASE WHEN EXCLUDED.last_used_at >= usage_secretuse.last_used_at
    THEN EXCLUDED.address ELSE usage_secretuse.address END,
  user_agent = CASE WHEN EXCLUDED.last_used_at >= usage_secretuse.last_used_at
    THEN EXCLUDED.user_agent ELSE usage_secretuse.user_agent END
"""

# Hours into the first of them: what is there afterwards adds up to what was there before.
_FOLD = """
INSERT INTO {table} ({others}, hour, {sums})
SELECT {others}, %s, {added} FROM {table}
WHERE organization_id = %s AND hour > %s AND hour < %s
GROUP BY {others}
ON CONFLICT ({others}, hour) DO UPDATE SET {updates}
"""
_UNFOLDED = "DELETE FROM {table} WHERE organization_id = %s AND hour > %s AND hour < %s"
# Roll-ups by the hour: table → the columns that, with the hour, are its key, and those that are summed.
_HOURLY = {
    "usage_rollup": (
        ("organization_id", "key_id", "meter", "resource", "outcome", "booked_period"),
        ("calls", "quantity"),
    ),
    "usage_organizationrollup": (
        ("organization_id", "environment", "meter", "resource", "outcome", "booked_period"),
        ("calls", "quantity"),
    ),
    "usage_responserollup": (
        ("organization_id", "key_id", "resource", "status_class"),
        ("responses",),
    ),
}


def fold(organization: int, start: dt.datetime, end: dt.datetime) -> None:
    """Merge the roll-ups of an organization's hours in [start, end) into the first of them.

    Inside the caller's transaction, which must be alone in counting (`usage.counting`).
    """
    first, last = (connection.ops.adapt_datetimefield_value(each) for each in (start, end))
    with connection.cursor() as cursor:
        for table, (others, sums) in _HOURLY.items():
            statement = _FOLD.format(
                table=table,
                others=", ".join(others),
                sums=", ".join(sums),
                added=", ".join(f"CAST(SUM({each}) AS bigint)" for each in sums),
                updates=", ".join(f"{each} = {table}.{each} + EXCLUDED.{each}" for each in sums),
            )
            cursor.execute(statement, [first, organization, first, last])
            cursor.execute(_UNFOLDED.format(table=table), [organization, first, last])


def moment(microseconds: int) -> dt.datetime:
    """A journal's time as a datetime, exactly (a float would round it)."""
    return _EPOCH + dt.timedelta(microseconds=microseconds)


def booked_period(at: dt.datetime, first: Period) -> dt.date:
    """The first day of the month whose statement carries what happened at this moment: its own, or `first`,
    the earliest that is open, if that is later."""
    return max(Period.of(at), first).first_day


class Sums:
    """Calls added up in memory until they are stored. `held` are the calls that an event may settle."""

    def __init__(self) -> None:
        # (organization, hours since the epoch, key, meter, resource, code) → [calls, quantity]
        self._rollups: dict[tuple[int, int, int, str, str, int], list[int]] = {}
        # (secret, address, text of the user agent) → [accepted calls, time of the first, of the last, key]
        self.sources: dict[tuple[int, str, str], list[int]] = {}
        # (code, meter) → [calls, quantity] of calls without a key
        self._nameless: dict[tuple[int, str], list[int]] = {}
        # (organization, hours since the epoch, key, resource, class of the status) → responses
        self._responses: dict[tuple[int, int, int, str, int], int] = {}
        self.held: list[Record] = []
        # (organization, hours since the epoch, key, meter, bits of the quotas charged) → cost
        self._charges: dict[tuple[int, int, int, str, int], int] = {}

    def add(self, record: Record) -> None:
        """Count one call record. What was refused counts apart, and its quantity is 0."""
        (kind, _, at, _, _, organization, key, secret, cost, calls, code,
         meter, resource, address, agent, charged) = record  # fmt: skip
        quantity = cost if code == _VALID else 0
        if not organization:
            outcome = self._nameless.setdefault((code, meter), [0, 0])
            outcome[0] += calls
            outcome[1] += quantity
            return
        group = organization, at // _HOUR, key, meter, resource, code
        rollup = self._rollups.get(group)
        if rollup is None:
            rollup = self._rollups[group] = [0, 0]
        rollup[0] += calls
        rollup[1] += quantity
        if code == _VALID:
            if kind == HELD:
                self.held.append(record)
            place = secret, address, agent
            source = self.sources.get(place)
            if source is None:
                source = self.sources[place] = [0, at, at, key]
            source[0] += calls
            if at > source[2]:
                source[2] = at
            if charged:
                charge = organization, at // _HOUR, key, meter, charged
                self._charges[charge] = self._charges.get(charge, 0) + cost

    def add_response(self, record: Record) -> None:
        """Count how one call was answered."""
        group = record.organization, record.time // _HOUR, record.key, record.resource, record.code
        self._responses[group] = self._responses.get(group, 0) + record.calls

    def add_event(
        self, organization: int, key: int, meter: str, resource: str, at: dt.datetime, quantity: int
    ) -> None:
        """Count what was reported from outside: a quantity, less than 0 where it corrects, and no call."""
        group = organization, (at - _EPOCH) // _HOUR_LONG, key, meter, resource, _VALID
        self._rollups.setdefault(group, [0, 0])[1] += quantity

    def outcomes(self) -> Iterator[tuple[str, int, int]]:
        """("<outcome>/<meter>", calls, quantity) of every call, those without a key included."""
        totals = {outcome: tuple(sums) for outcome, sums in self._nameless.items()}
        for (_, _, _, meter, _, code), (calls, quantity) in self._rollups.items():
            before = totals.get((code, meter), (0, 0))
            totals[code, meter] = before[0] + calls, before[1] + quantity
        for (code, meter), (calls, quantity) in totals.items():
            yield f"{outcome_name(code)}/{meter}", calls, quantity

    def rollups(self) -> Iterator[tuple[Group, int, int]]:
        """(group, calls, quantity) of every hour, in the order in which they are stored."""
        for key in sorted(self._rollups):
            organization, hours, key_id, meter, resource, code = key
            calls, quantity = self._rollups[key]
            start = moment(hours * _HOUR)
            yield (organization, start, key_id, meter, resource, outcome_name(code)), calls, quantity

    def store(self, spool: str = "") -> None:
        """Add them to the database, inside the caller's transaction, which shares in counting
        (`usage.counting`); `spool` is whose journal it was, if any. What is of a closed month is booked late.
        Resources beyond the bound come together under `other`; the sums in here keep all names."""
        named, first = resources.bounded(self._resources()), periods.earliest_open()
        hour = connection.ops.adapt_datetimefield_value
        day = connection.ops.adapt_datefield_value
        totals: dict[Group, list[int]] = {}
        for (organization, start, key, meter, resource, outcome), calls, quantity in self.rollups():
            label = named[organization, meter, resource]
            total = totals.setdefault((organization, start, key, meter, label, outcome), [0, 0])
            total[0] += calls
            total[1] += quantity
        added: list[bulk.Row] = [
            (owner, hour(start), *rest, day(booked_period(start, first)), calls, quantity)
            for (owner, start, *rest), (calls, quantity) in sorted(totals.items())
        ]
        organization_rollups.add(added)
        bulk.execute(_ADD_CALLS, added)
        bulk.execute(
            _ADD_USE,
            [
                (secret, calls, hour(moment(at)), address, user_agent)
                for secret, (calls, at, address, user_agent) in sorted(self._uses().items())
            ],
        )
        responses: Counter[tuple[int, int, int, str, int]] = Counter()
        for (organization, hours, key, resource, status_class), count in self._responses.items():
            label = named[organization, REQUESTS.name, resource]
            responses[organization, hours, key, label, status_class] += count
        bulk.execute(
            _ADD_RESPONSES,
            [
                (organization, hour(moment(hours * _HOUR)), key, resource, status_class, count)
                for (organization, hours, key, resource, status_class), count in sorted(responses.items())
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

    def _uses(self) -> dict[int, list[Any]]:  # a row of mixed types
        """Secret → [calls, time of the last, its address, its user agent]."""
        uses: dict[int, list[Any]] = {}
        for (secret, address, agent), (calls, _, last, _) in self.sources.items():
            use = uses.setdefault(secret, [0, 0, "", ""])
            use[0] += calls
            if last >= use[1]:
                use[1:] = last, address, unpack(agent).agent
        return uses

    def _resources(self) -> Iterator[resources.Group]:
        """What is to be booked under some resource; responses go by the meter of requests."""
        for organization, _, _, meter, resource, _ in self._rollups:
            yield organization, meter, resource
        for organization, _, _, resource, _ in self._responses:
            yield organization, REQUESTS.name, resource


def outcome_name(number: int) -> str:
    """A code's name as roll-ups hold it; a number of a later version keeps its own."""
    code = BY_NUMBER.get(number)
    return code.text if code is not None else f"CODE_{number}"
