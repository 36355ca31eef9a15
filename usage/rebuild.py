"""The roll-ups, recomputed from what they were made of: journals that are kept, and events from outside.

It proves, or disproves, that the counters are the sum of what was recorded, for the hours of which everything
is still there, and says of which it is not. Each journal is checked against the running SHA-256 that was
stored when it was drained. It never changes anything.
"""

import datetime as dt
import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from django.db import transaction
from django.db.models import Min, Sum

from usage import counting
from usage.events import EARLIEST
from usage.kept import FOLDER, TORN_SUFFIX
from usage.models import Event, Finding, ResourceBound, Rollup, Segment, Spool
from usage.records import CALL, HELD, POISON, SEAL, Reader, Unreadable
from usage.resources import OTHER
from usage.rollups import Group, Sums, moment
from usage.room import SUFFIX

_HOUR: Final = dt.timedelta(hours=1)
_MARGIN: Final = dt.timedelta(minutes=5)  # by which a record may be later than its journal's last pass


class Difference(NamedTuple):
    """A group whose roll-ups are not what was recorded; each as (calls, quantity)."""

    group: Group
    counted: tuple[int, int]
    recorded: tuple[int, int]


class Gap(NamedTuple):
    """Whole hours that cannot be compared, [start, end), and why."""

    start: dt.datetime
    end: dt.datetime
    why: str


@dataclass
class Result:
    """What came of a comparison; `groups` and `hours` say how much was compared."""

    groups: int = 0
    hours: int = 0
    differences: list[Difference] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)


@dataclass
class _Counted:
    """What the database said at one moment."""

    segments: list[Segment]
    first: dt.datetime | None  # when the first journal was begun
    rollups: dict[Group, tuple[int, int]]
    events: Sums
    # Organizations and meters with an `other`: of which resource a call was is not to be told from roll-ups.
    bounded: set[tuple[int, str]]
    quarantine: dict[tuple[str, int], set[int]]  # spool and segment → offsets of records that do not count


@dataclass
class _Read:
    """A segment read again; `why` says what is wrong with it."""

    segment: Segment
    why: str = ""
    first: dt.datetime | None = None
    last: dt.datetime | None = None


def compare(
    directory: Path,
    start: dt.datetime,
    end: dt.datetime,
    *,
    organization: int | None = None,
    progress: Callable[[int], object] = lambda size: None,
) -> Result:
    """Compare the roll-ups of [start, end), both whole hours, with journals and events.

    `directory` has the journals, those that are kept in a folder in it. Counting waits while the roll-ups are
    read, so that they and the journals are of one moment; the journals are read after it. `progress` is told
    the bytes.
    """
    counted = _counted(start, end)
    recorded: dict[Group, tuple[int, int]] = {}
    _add(recorded, counted.events, counted, start, end)
    result = Result(gaps=_before(counted.first, start, end))
    by_spool: dict[str, list[Segment]] = {}
    for segment in counted.segments:
        by_spool.setdefault(segment.spool_id, []).append(segment)
    for segments in by_spool.values():
        reads = []
        for read, sums in _read_spool(directory, segments, counted.quarantine, progress):
            reads.append(read)
            if not read.why:
                _add(recorded, sums, counted, start, end)
        result.gaps += _gaps(reads, start, end)
    uncovered = {hour for gap in result.gaps for hour in _hours(gap.start, gap.end)}
    result.hours = len(set(_hours(start, end)) - uncovered)
    for group in sorted(counted.rollups.keys() | recorded.keys()):
        if group[1] in uncovered or organization not in (None, group[0]):
            continue
        result.groups += 1
        pair = counted.rollups.get(group, (0, 0)), recorded.get(group, (0, 0))
        if pair[0] != pair[1]:
            result.differences.append(Difference(group, *pair))
    return result


def _counted(start: dt.datetime, end: dt.datetime) -> _Counted:
    with transaction.atomic():
        counting.alone()
        segments = (
            Segment.objects.select_related("spool")
            .filter(spool__started_at__lt=end)
            .exclude(spool__finished_at__lt=start - _MARGIN)
            .order_by("spool", "number")
        )
        rows = (
            Rollup.objects.filter(hour__gte=start, hour__lt=end)
            .values_list("organization_id", "hour", "key_id", "meter", "resource", "outcome")
            .annotate(calls_sum=Sum("calls"), quantity_sum=Sum("quantity"))
        )
        reported = Event.objects.filter(received_at__gte=start - EARLIEST, at__gte=start, at__lt=end)
        fields = ("organization_id", "key_id", "meter", "resource", "at", "quantity")
        events = Sums()
        for event in reported.values_list(*fields).iterator():
            events.add_event(*event)
        reached = ResourceBound.objects.filter(reached_at__isnull=False)
        bounded = set(reached.values_list("organization_id", "meter"))
        rollups: dict[Group, tuple[int, int]] = {}
        for organization, hour, key, meter, resource, outcome, calls, quantity in rows.iterator():
            group = organization, hour, key, meter, resource, outcome
            _put(rollups, group, bounded, calls, quantity)
        quarantine: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        poison = Finding.objects.filter(kind=Finding.Kind.POISON)
        for spool, number, offset in poison.values_list("spool", "segment", "offset"):
            quarantine[spool, number].add(offset)
        return _Counted(
            [segment for segment in segments if segment.sums],  # who has none has no calls
            Spool.objects.aggregate(first=Min("started_at"))["first"],
            rollups,
            events,
            bounded,
            quarantine,
        )


def _add(
    found: dict[Group, tuple[int, int]], sums: Sums, counted: _Counted, start: dt.datetime, end: dt.datetime
) -> None:
    for group, calls, quantity in sums.rollups():
        if start <= group[1] < end:
            _put(found, group, counted.bounded, calls, quantity)


def _put(
    found: dict[Group, tuple[int, int]],
    group: Group,
    bounded: Collection[tuple[int, str]],
    calls: int,
    quantity: int,
) -> None:
    """Add to a group, without its resource where that may have been booked as `other`."""
    organization, hour, key, meter, resource, outcome = group
    if resource and (organization, meter) in bounded:
        group = organization, hour, key, meter, OTHER, outcome
    before = found.get(group, (0, 0))
    found[group] = before[0] + calls, before[1] + quantity


# --- journals --------------------------------------------------------------------------------------


def _read_spool(
    directory: Path,
    segments: Iterable[Segment],
    quarantine: Mapping[tuple[str, int], set[int]],
    progress: Callable[[int], object],
) -> Iterator[tuple[_Read, Sums]]:
    """Each segment's calls. As in the drain, a record that comes again or is in quarantine does not count."""
    last: int | None = None  # the sequence; None where the segment before could not be read
    for segment in segments:
        read, sums = _Read(segment), Sums()
        path = _find(directory, segment)
        if path is None:
            read.why, last = "is not kept", None
        else:
            try:
                apart = quarantine.get((segment.spool_id, segment.number), set())
                last = _read(path, read, sums, last, apart)
            except (OSError, Unreadable) as error:
                read.why, last = f"cannot be read ({error})", None
            progress(segment.offset)
        yield read, sums


def _read(path: Path, read: _Read, sums: Sums, last: int | None, apart: Collection[int]) -> int | None:
    segment, chain, records, offset = read.segment, b"", 0, 0
    with path.open("rb") as file:
        reader = Reader()
        for record in reader.records(lambda size, offset: os.pread(file.fileno(), size, offset)):
            if record.end > segment.offset:
                break
            chain = hashlib.sha256(chain + record.payload).digest()
            records += 1
            if record.kind != POISON:
                read.last = moment(record.time)
                read.first = read.first or read.last
            begins, offset = offset, record.end
            if record.kind == POISON or begins in apart:
                if last is not None and record.sequence == last + 1:
                    last = record.sequence
            elif record.kind != SEAL and (last is None or record.sequence > last):
                last = record.sequence
                if record.kind in (CALL, HELD):
                    sums.add(record)
            if record.end == segment.offset:
                break
    if (records, chain.hex()) != (segment.records, segment.chain):
        read.why = "is not what was counted: its running SHA-256 differs"
        return None
    return last


def _find(directory: Path, segment: Segment) -> Path | None:
    """The file, whether it is kept, was torn, or is still written."""
    name = f"{segment.spool_id}.{segment.number:06d}{SUFFIX}"
    for path in (directory / FOLDER / name, directory / FOLDER / f"{name}{TORN_SUFFIX}"):
        if path.exists():
            return path
    for path in (directory / name, directory / f"{name}{TORN_SUFFIX}"):
        if path.exists():
            return path
    return None


# --- what cannot be compared -----------------------------------------------------------------------


def _before(first: dt.datetime | None, start: dt.datetime, end: dt.datetime) -> list[Gap]:
    """The hours before there was a journal: what is counted there was not recorded by this portal."""
    known = end if first is None else _hour_of(first)
    return [Gap(start, min(known, end), "no journal is so old")] if start < known else []


def _gaps(reads: list[_Read], start: dt.datetime, end: dt.datetime) -> list[Gap]:
    """For each segment that does not count here, all hours that may have calls of it."""
    found = []
    for place, read in enumerate(reads):
        if not read.why:
            continue
        spool = read.segment.spool
        begins = next(
            (each.last for each in reads[place::-1] if not each.why and each.last), spool.started_at
        )
        ends = next((each.first for each in reads[place:] if not each.why and each.first), spool.finished_at)
        first = max(_hour_of(begins), start)
        last = end if ends is None else min(_hour_of(ends + _MARGIN) + _HOUR, end)
        if first < last:
            name = f"{spool.pk}.{read.segment.number:06d}"
            found.append(Gap(first, last, f"the journal {name} of {spool.host} {read.why}"))
    return found


def _hours(start: dt.datetime, end: dt.datetime) -> Iterator[dt.datetime]:
    while start < end:
        yield start
        start += _HOUR


def _hour_of(at: dt.datetime) -> dt.datetime:
    return at.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
