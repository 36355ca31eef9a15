"""Held calls: counted like any other when they are made, and settled by one event each (`usage.events`).

The drain keeps a row of each in the transaction that counts the call. This module alone knows which request
may still be settled, and by whom first; it adds nothing to any counter.
"""

import datetime as dt
import re
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from enum import Enum
from typing import Final, NamedTuple

from keys.models import Process
from usage.models import Hold, Spool
from usage.records import Record
from usage.rollups import moment

POLL_SECONDS: Final = 0.05
_CHUNK: Final = 1000  # rows in one statement
_REQUEST = re.compile(r"([0-9A-Za-z]{11})-([1-9][0-9]{0,17})", re.ASCII)


class Reference(NamedTuple):
    """A request id: the process that recorded the call, and the place in its journal."""

    spool: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.spool}-{self.sequence}"


class Missing(Enum):
    """Why there is no held call."""

    UNKNOWN = "no process of this portal gave this id"
    NOT_YET = "the call may be in a journal that is not drained so far"
    NOT_HELD = "the call was not held, or refused, or is too long ago"


def parse(request_id: str) -> Reference | None:
    """The parts of a request id, or None if it cannot be one."""
    match = _REQUEST.fullmatch(request_id)
    return None if match is None else Reference(match[1], int(match[2]))


def keep(spool: str, held: Iterable[Record]) -> None:
    """Remember the held calls of a stretch, inside the transaction that counts them."""
    Hold.objects.bulk_create(
        (
            Hold(
                spool=spool,
                sequence=record.sequence,
                organization_id=record.organization,
                key_id=record.key,
                meter=record.meter,
                resource=record.resource,
                cost=record.cost,
                at=moment(record.time),
            )
            for record in held
        ),
        batch_size=_CHUNK,
    )


def find(wanted: Collection[Reference], *, wait: float) -> dict[Reference, Hold | Missing]:
    """Each held call, or why there is none. Outside any transaction it waits up to `wait` seconds for the
    drain, and looks each time anew."""
    deadline = time.monotonic() + wait
    while True:
        found = _look(wanted)
        if Missing.NOT_YET not in found.values() or time.monotonic() >= deadline:
            return found
        time.sleep(POLL_SECONDS)


def settle(wanted: Collection[Reference], now: dt.datetime) -> set[Reference]:
    """Mark held calls as settled; returns those that were not before. Inside the caller's transaction, to
    whose end others who settle the same calls wait."""
    settled = set()
    for spool, sequences in _by_spool(wanted):
        open_ones = Hold.objects.filter(spool=spool, sequence__in=sequences, settled_at=None)
        locked = list(open_ones.order_by("sequence").select_for_update().values_list("sequence", flat=True))
        Hold.objects.filter(spool=spool, sequence__in=locked).update(settled_at=now)
        settled |= {Reference(spool, sequence) for sequence in locked}
    return settled


def reopen(settled: Collection[Reference]) -> None:
    """Take back what `settle` has marked in the same transaction, of calls that no event settles."""
    for spool, sequences in _by_spool(settled):
        Hold.objects.filter(spool=spool, sequence__in=sequences).update(settled_at=None)


def _by_spool(references: Collection[Reference]) -> list[tuple[str, list[int]]]:
    found: defaultdict[str, list[int]] = defaultdict(list)
    for spool, sequence in references:
        found[spool].append(sequence)
    return sorted(found.items())


def _look(wanted: Collection[Reference]) -> dict[Reference, Hold | Missing]:
    """In four queries at most. How far each journal is drained is read first, so that what is missing then
    was not in it."""
    if not wanted:
        return {}
    names = {reference.spool for reference in wanted}
    spools = Spool.objects.in_bulk(names)
    serving = set(Process.objects.filter(pk__in=names).values_list("pk", flat=True))
    # Every sequence in every journal: a few rows too many, and one statement.
    rows = Hold.objects.filter(spool__in=names, sequence__in={reference.sequence for reference in wanted})
    holds = {Reference(hold.spool, hold.sequence): hold for hold in rows}

    def missing(reference: Reference) -> Missing:
        spool = spools.get(reference.spool)
        if spool is not None and reference.sequence <= spool.sequence:
            return Missing.NOT_HELD
        writes = reference.spool in serving or (spool is not None and spool.finished_at is None)
        return Missing.NOT_YET if writes else Missing.UNKNOWN

    return {reference: holds.get(reference) or missing(reference) for reference in wanted}
