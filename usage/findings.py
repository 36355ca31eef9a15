"""What is amiss in a journal, and that staff have seen it.

It makes and stores findings for the drain, which alone finds anything, and writes down who has looked at one.
It never deletes or changes what was found.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Final

from django.db import transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict
from usage.models import Finding
from usage.records import Record, clean

Kind = Finding.Kind
TEXT_LENGTH: Final = 300
PAYLOAD_BYTES: Final = 4096  # of a torn tail; any record is shorter


def poison(record: Record, offset: int, why: str) -> Finding:
    """A whole record that cannot be counted, with its bytes."""
    return Finding(
        kind=Kind.POISON,
        offset=offset,
        first_sequence=min(record.sequence, 2**63 - 1),
        last_sequence=min(record.sequence, 2**63 - 1),
        text=clean(f"record {record.sequence} cannot be counted: {why}", TEXT_LENGTH),
        payload=record.payload.hex(),
    )


def missing(first: int, last: int, offset: int) -> Finding:
    """Sequences that no record has; both ends included."""
    return Finding(
        kind=Kind.MISSING,
        offset=offset,
        first_sequence=first,
        last_sequence=last,
        text=f"records {first} to {last} are missing" if first < last else f"record {first} is missing",
    )


def repeated(first: int, last: int, offset: int) -> Finding:
    """Sequences that were counted before; both ends included."""
    return Finding(
        kind=Kind.REPEATED,
        offset=offset,
        first_sequence=first,
        last_sequence=last,
        text=f"records {first} to {last} came again and are not counted"
        if first < last
        else f"record {first} came again and is not counted",
    )


def torn(size: int, offset: int, tail: bytes) -> Finding:
    """Bytes behind the last whole record of a journal that is finished."""
    return Finding(
        kind=Kind.TORN,
        offset=offset,
        text=f"its last {size} bytes are no record; kept",
        payload=tail[:PAYLOAD_BYTES].hex(),
    )


def lost(size: int, offset: int) -> Finding:
    """What was counted and is no more on the disk, of a journal that is finished by that."""
    return Finding(
        kind=Kind.LOST,
        offset=offset,
        text=f"{size} bytes that were counted are gone from the disk, as after a power cut; they count on",
    )


def empty() -> Finding:
    """A dead process's journal of which nothing reached the disk."""
    return Finding(kind=Kind.LOST, text="nothing of it reached the disk, as after a power cut")


def late(reason: str) -> Finding:
    """A journal that nobody waits for any more, and that came."""
    return Finding(
        kind=Kind.LATE,
        text=clean(
            f"its host was given up on ({reason}), and it is drained after all: it counts", TEXT_LENGTH
        ),
    )


def unreadable(offset: int, why: object) -> Finding:
    return Finding(kind=Kind.UNREADABLE, offset=offset, text=clean(f"{why}; left alone", TEXT_LENGTH))


def store(found: Iterable[Finding], spool: str, segment: int, now: dt.datetime) -> None:
    """Write them, each once: one that is there already stays as it is."""
    for finding in found:
        finding.spool, finding.segment, finding.found_at = spool, segment, now
    Finding.objects.bulk_create(found, ignore_conflicts=True, batch_size=500)


def unseen() -> int:
    return Finding.objects.filter(seen_at=None).count()


def see(finding: Finding, actor: Actor, *, now: dt.datetime) -> None:
    """Write down that somebody has looked at it. Raises Conflict when somebody has before."""
    with transaction.atomic():
        mine = Finding.objects.filter(pk=finding.pk, seen_at=None)
        if not mine.update(seen_at=now, seen_by=actor.label[:254]):
            raise Conflict("Somebody has seen this before.")
        data = {"finding": finding.pk, "kind": finding.kind, "journal": str(finding)}
        audit.append("finding.seen", actor=actor, at=now, data=data)
