"""Journals into roll-ups, each record exactly once.

One transaction reads a stretch of a journal, adds it to the counters and moves the offset, with the spool's
row locked; a kill at any moment repeats and loses nothing. This module alone reads journals and decides
what has been counted; what cannot be goes into quarantine in the same transaction, and the others pass. It
never changes a journal: one is moved only after the transaction that finished it.
"""

import datetime as dt
import fcntl
import hashlib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.db import DataError, transaction

from keys import presence
from keys.verdicts import VALID
from usage import breaks, counting, findings, holds, kept, ledger, sources, watermark
from usage.journal import NEW_SUFFIX
from usage.models import Finding, Segment, Spool
from usage.records import (
    CALL,
    FRAME,
    HEADER,
    HELD,
    POISON,
    RESPONSE,
    SEAL,
    Header,
    Reader,
    Record,
    Unreadable,
    has_begun,
)
from usage.refusal_log import Entries
from usage.rollups import Sums, moment
from usage.room import BLOCK_BYTES, SUFFIX
from usage.watermark import complete_through as complete_through  # the answer that this module's work gives

logger = logging.getLogger(__name__)

BATCH = 50_000  # records in one transaction
IDLE = dt.timedelta(seconds=5)  # how old a stored watermark may grow while a journal only ticks
_NAME = re.compile(rf"([0-9A-Za-z]{{11}})\.([0-9]{{6}}){re.escape(SUFFIX)}", re.ASCII)


@dataclass
class DrainReport:
    """What one pass did. `problems` are sentences for the operator; they are logged too."""

    records: int = 0
    calls: int = 0
    segments_finished: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class _Stretch:
    """What one transaction reads of one file: at most `most` records. With `refused`, which says why, the
    first of them is poison."""

    most: int
    refused: str = ""
    chain: bytes = b""
    sequence: int = 0  # of the last record
    sums: Sums = field(default_factory=Sums)
    found: list[Finding] = field(default_factory=list)
    refusals: Entries = field(default_factory=Entries)
    records: int = 0
    calls: int = 0
    responses: int = 0
    last_time: int = 0
    full: bool = False  # there may be more
    unreadable: Finding | None = None

    def quarantine(self, record: Record, offset: int, why: str) -> None:
        """Its sequence is believed only where it is the next one."""
        if record.sequence == self.sequence + 1:
            self.sequence = record.sequence
        self.found.append(findings.poison(record, offset, why))

    def accepts(self, record: Record, offset: int) -> bool:
        """Is this record, which is not the next one, to be counted? What is amiss is noted."""
        first, last = self.sequence + 1, record.sequence - 1
        if record.sequence > self.sequence:
            self.found.append(findings.missing(first, last, offset))
            return True
        before = self.found[-1] if self.found else None
        if before and before.kind == Finding.Kind.REPEATED and before.last_sequence == last:
            self.found[-1] = findings.repeated(before.first_sequence, record.sequence, before.offset)
        else:
            self.found.append(findings.repeated(record.sequence, record.sequence, offset))
        return False


class Drain:
    """Drains one directory of journals; remembers how far into each file it knows the texts."""

    def __init__(self, directory: Path | None = None, *, batch: int = BATCH) -> None:
        self.directory = directory or Path(settings.USAGE_JOURNAL_DIR)
        self.batch = batch
        self._readers: dict[str, Reader] = {}
        self._known: set[str] = set()  # spools that have a row
        self._said: set[str] = set()

    def once(
        self,
        now: dt.datetime,
        *,
        progress: Callable[[int], object] = lambda size: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> DrainReport:
        """One pass over every journal.

        `now` is the moment at which the directory is listed: no journal that is not in the list holds an
        earlier event. `progress` is told the bytes read; `stop` is asked before each transaction. Raises
        DatabaseError when the database is away, with everything as it was.
        """
        report, stop = DrainReport(), breaks.with_breaks(stop)
        spools = self._list()
        self._bury_the_empty(spools, now, report)
        # Every journal that is listed holds the watermark back from now on, not only once its turn comes.
        all_known = self._register(spools, now)
        for spool, numbers in sorted(spools.items()):
            for number in sorted(numbers):
                name = _name(spool, number)
                try:
                    reached = now if all_known else None
                    if not self._file(name, spool, number, reached, now, report, progress, stop):
                        break
                except FileNotFoundError:
                    continue  # another drain has finished it
                except (OSError, Unreadable) as error:
                    known = self._readers.get(name)
                    self._find(
                        report, findings.unreadable(known.offset if known else 0, error), spool, number, now
                    )
                    break
        listed = {_name(spool, number) for spool, numbers in spools.items() for number in numbers}
        for name in self._readers.keys() - listed:
            del self._readers[name]
        watermark.store()
        ledger.settle_the_dead(now)
        return report

    def backlog(self) -> int:
        """Bytes of the journals that no pass of this object has read yet, at most; for a progress bar."""
        total = 0
        for spool, numbers in self._list().items():
            for number in numbers:
                name = _name(spool, number)
                known = self._readers.get(name)
                try:
                    found = (self.directory / name).stat()
                    held = min(
                        found.st_size, found.st_blocks * BLOCK_BYTES
                    )  # what is only set aside is sparse
                    total += max(held - (known.offset if known else 0), 0)
                except FileNotFoundError:
                    continue
        return total

    def _register(self, spools: dict[str, list[int]], now: dt.datetime) -> bool:
        """Give every spool its row. False if a journal does not say whose it is or since when."""
        readable = True
        headers = []
        # In one order: two drains at once that make the same rows never wait for each other in a circle.
        for spool in sorted(spools.keys() - self._known):
            number = min(spools[spool])
            try:
                with (self.directory / _name(spool, number)).open("rb") as file:
                    headers.append(_header(file.fileno(), spool, number))
            except FileNotFoundError:
                continue  # another drain has finished it
            except (OSError, Unreadable):
                readable = False  # named when its turn comes
        if headers:
            with transaction.atomic():
                for header in headers:
                    _open_row(header, max(spools[header.spool]), now)
            self._known.update(header.spool for header in headers)
        self._known &= spools.keys()
        return readable

    def _bury_the_empty(self, spools: dict[str, list[int]], now: dt.datetime, report: DrainReport) -> None:
        """Set dead journals aside of which nothing reached the disk: they must not hold anything back."""
        for spool in spools.keys() - self._known:
            for number in list(spools[spool]):
                path = self.directory / _name(spool, number)
                if not _is_dead_and_empty(path):
                    continue
                spools[spool].remove(number)
                with transaction.atomic():
                    findings.store([findings.empty()], spool, number, now)
                    if not spools[spool]:
                        Spool.objects.filter(pk=spool, finished_at=None).update(finished_at=now)
                        ledger.settle_spool(spool)
                self._say(report, f"{path.name}: {findings.empty().text}")
                kept.keep(path, torn=True, now=now)
            if not spools[spool]:
                del spools[spool]

    def _list(self) -> dict[str, list[int]]:
        """Spool → its segments' numbers."""
        spools: dict[str, list[int]] = {}
        if not self.directory.is_dir():
            return spools
        for path in self.directory.iterdir():
            if match := _NAME.fullmatch(path.name):
                spools.setdefault(match[1], []).append(int(match[2]))
            elif path.suffix == NEW_SUFFIX:
                kept.remove_abandoned(path)
        return spools

    def _file(
        self,
        name: str,
        spool: str,
        number: int,
        reached: dt.datetime | None,
        now: dt.datetime,
        report: DrainReport,
        progress: Callable[[int], object],
        stop: Callable[[], bool],
    ) -> bool:
        """Drain one file; True if it is finished and the next of its spool may be read."""
        path = self.directory / name
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        most, refused = self.batch, ""
        try:
            while not stop():
                # Asked before reading: a lock that is free stays free, and what lies there now is all.
                orphan = _lock_is_free(fd)
                reader = self._readers.get(name)
                if reader is None:
                    reader = self._readers[name] = Reader()
                elif not orphan and not has_begun(os.pread(fd, FRAME.size, reader.offset)):
                    return False
                header = _header(fd, spool, number)
                before = reader.offset
                stretch = _Stretch(most, refused)
                try:
                    ignored = self._transaction(fd, reader, header, stretch, reached, now, orphan=orphan)
                except (DataError, OverflowError) as error:
                    del self._readers[name]  # it is ahead of what was committed
                    if refused or not stretch.records:
                        raise
                    # One of these records is what the database refuses: halve them until it is alone.
                    most = max(stretch.records // 2, 1)
                    refused = _reason(error) if stretch.records == 1 else ""
                    continue
                except BaseException:
                    del self._readers[name]  # as above
                    raise
                if refused:
                    most, refused = self.batch, ""
                progress(max(reader.offset - before, 0))
                report.records += stretch.records
                report.calls += stretch.calls
                for finding in stretch.found:
                    self._say(report, f"{name}: {finding.text}")
                if stretch.unreadable is not None:
                    self._find(report, stretch.unreadable, spool, number, now)
                if ignored is not None:
                    kept.keep(path, torn=ignored > 0, now=now)
                    self._known.discard(spool)  # should it come back, it is opened again
                    report.segments_finished += 1
                    return True
                if not stretch.full:
                    return False
            return False
        finally:
            os.close(fd)

    def _transaction(
        self,
        fd: int,
        reader: Reader,
        header: Header,
        stretch: _Stretch,
        reached: dt.datetime | None,
        now: dt.datetime,
        *,
        orphan: bool,
    ) -> int | None:
        """Count one stretch. Returns the bytes ignored at the file's end if it is finished now.

        `reached` is how far the watermark may go; None: not at all, for there is a journal that nobody
        can place in time. Raises DataError or OverflowError for what the database cannot take.
        """
        with transaction.atomic():
            counting.share()
            spool, segment = _locked_rows(header)
            stretch.chain, stretch.sequence = bytes.fromhex(segment.chain), spool.sequence
            if segment.finished_at is not None:
                # Counted and committed already; only the file is still here.
                return segment.ignored_bytes
            if lost := _go_to(fd, reader, segment.offset, orphan=orphan):
                stretch.found.append(findings.lost(lost, reader.offset))
            _read(fd, reader, stretch)
            ignored = None
            if orphan and not stretch.full and stretch.unreadable is None:
                ignored = _leftover(fd, reader.offset)
                if ignored:
                    tail = os.pread(fd, min(ignored, findings.PAYLOAD_BYTES), reader.offset)
                    stretch.found.append(findings.torn(ignored, reader.offset, tail))
            counts = stretch.calls or stretch.responses or stretch.found or stretch.full
            if ignored is None and not counts and not _is_old(spool, stretch, now):
                reader.rewind(segment.offset)
                return None
            if spool.retired_at is not None and (stretch.calls or stretch.responses):
                stretch.found.append(findings.late(spool.retired_reason))
            following = self.directory / _name(header.spool, header.segment + 1)
            stretch.sums.store(spool.pk)
            sources.store(stretch.sums.sources)
            holds.keep(spool.pk, stretch.sums.held)
            findings.store(stretch.found, header.spool, header.segment, now)
            stretch.refusals.store(header.spool)
            spool.sequence = stretch.sequence
            if stretch.last_time and reached is not None:
                reached = min(moment(stretch.last_time), reached)
                spool.watermark = max(reached, spool.watermark or min(spool.started_at, now))
            # A process opens its next segment before it leaves one; without that it is gone. Should it
            # come back after all (its disk was full), its next segment opens the spool again.
            spool.finished_at = now if ignored is not None and not following.exists() else None
            spool.save(update_fields=["sequence", "watermark", "finished_at"])
            if spool.finished_at is not None and not self._is_alive(header.spool):
                ledger.settle_spool(spool.pk)
            for name, calls, quantity in stretch.sums.outcomes():
                old = segment.sums.get(name, [0, 0])
                segment.sums[name] = [old[0] + calls, old[1] + quantity]
            segment.offset = max(reader.offset, segment.offset)
            segment.records += stretch.records
            segment.chain = stretch.chain.hex()
            segment.ignored_bytes = ignored or 0
            segment.finished_at = now if ignored is not None else None
            segment.save(update_fields=["offset", "records", "sums", "chain", "ignored_bytes", "finished_at"])
            return ignored

    def _find(self, report: DrainReport, finding: Finding, spool: str, number: int, now: dt.datetime) -> None:
        """Report, and store once, what no transaction moves past."""
        problem = f"{_name(spool, number)}: {finding.text}"
        if problem not in self._said:
            findings.store([finding], spool, number, now)
        self._say(report, problem)

    def _is_alive(self, spool: str) -> bool:
        """Does the process still hold its own lock? A full disk can make it leave its journal for a while."""
        lock = self.directory / f"{spool}.lock"
        return lock.exists() and not presence.lock_is_free(lock)

    def _say(self, report: DrainReport, problem: str) -> None:
        """Report it each time, log it once."""
        report.problems.append(problem)
        if problem not in self._said:
            self._said.add(problem)
            logger.warning("%s", problem)


def drain_once(now: dt.datetime) -> DrainReport:
    """One pass over this host's journals."""
    return Drain().once(now)


def _read(fd: int, reader: Reader, stretch: _Stretch) -> None:
    """Add up whole records until the stretch is full or the file ends."""
    sha256, add, chain, records, calls = hashlib.sha256, stretch.sums.add, stretch.chain, 0, 0
    offset, refused, most = reader.offset, stretch.refused, stretch.most
    refuse, valid = stretch.refusals.add, VALID.number
    try:
        for record in reader.records(lambda size, offset: os.pread(fd, size, offset)):
            chain = sha256(chain + record.payload).digest()
            records += 1
            kind = record.kind
            if kind == POISON or refused:
                stretch.quarantine(record, offset, refused or record.resource)
            elif kind == SEAL:
                stretch.last_time = record.time
            elif record.sequence == stretch.sequence + 1 or stretch.accepts(record, offset):
                stretch.sequence = record.sequence
                stretch.last_time = record.time
                if kind in (CALL, HELD):
                    add(record)
                    calls += record.calls
                    if record.code != valid:
                        refuse(record)
                elif kind == RESPONSE:
                    stretch.sums.add_response(record)
                    stretch.responses += record.calls
            offset = record.end
            if records >= most:
                stretch.full = True
                break
    except Unreadable as error:
        # What was read before it counts; the rest waits for a version that knows it.
        why = f"unreadable from byte {reader.offset} on: {error}"
        stretch.unreadable = findings.unreadable(reader.offset, why)
    stretch.chain, stretch.records, stretch.calls = chain, records, calls


def _name(spool: str, number: int) -> str:
    return f"{spool}.{number:06d}{SUFFIX}"


def _lock_is_free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def _is_dead_and_empty(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fd = file.fileno()
            return not has_begun(os.pread(fd, FRAME.size, 0)) and _lock_is_free(fd) and not _leftover(fd, 0)
    except OSError:
        return False  # gone, or named when its turn comes


def _leftover(fd: int, offset: int) -> int:
    """Bytes behind the last whole record that are not just the zeros of a journal that was not sealed."""
    last = start = offset
    while block := os.pread(fd, 1 << 20, start):
        if written := len(block.rstrip(b"\0")):
            last = start + written
        start += len(block)
    return last - offset


def _header(fd: int, spool: str, number: int) -> Header:
    """What the file says it is; it must be what its name says."""
    reader = Reader()
    for record in reader.records(lambda size, offset: os.pread(fd, 4096, offset)):
        if record.kind == HEADER:
            break
    header = reader.header
    if header is None:
        raise Unreadable("no header")
    if (header.spool, header.segment) != (spool, number):
        raise Unreadable(f"the header of {_name(header.spool, header.segment)}")
    return header


def _make_row(header: Header) -> Spool:
    return watermark.register(header.spool, header.host, header.pid, moment(header.started))


def _open_row(header: Header, newest: int, now: dt.datetime) -> None:
    """A spool's row. One that was finished is waited for again if its process has come back, as after a full
    disk: from when it opened the segment that is first now, since what was before is counted."""
    row = _make_row(header)
    if row.finished_at is None:
        return
    counted = Segment.objects.filter(spool=row, number=newest).exclude(finished_at=None)
    if not counted.exists():
        opened = max(min(moment(header.opened), now), row.watermark or row.started_at)
        Spool.objects.filter(pk=row.pk).update(finished_at=None, watermark=opened)


def _locked_rows(header: Header) -> tuple[Spool, Segment]:
    _make_row(header)
    spool = Spool.objects.select_for_update().get(pk=header.spool)
    segment, _ = Segment.objects.get_or_create(spool=spool, number=header.segment)
    return spool, segment


def _go_to(fd: int, reader: Reader, offset: int, *, orphan: bool) -> int:
    """Bring the reader to `offset`, with every text that was defined before it.

    Returns how many bytes of that the disk has lost, as a power cut may make it: what a dead process's file
    lacks was counted, and nothing can follow it. Raises Unreadable where somebody still writes.
    """
    if reader.offset > offset:  # the transaction that went there was rolled back
        reader.rewind(0)
    if reader.offset < offset:
        for record in reader.records(lambda size, start: os.pread(fd, size, start)):
            if record.end >= offset:
                break
    if reader.offset > offset or (reader.offset < offset and not orphan):
        raise Unreadable(f"byte {offset}, up to which it was read, is not the end of a record")
    return offset - reader.offset


def _is_old(spool: Spool, stretch: _Stretch, now: dt.datetime) -> bool:
    """Is it time to store a watermark that only ticks have moved?"""
    if not stretch.records:
        return False
    reached = min(moment(stretch.last_time), now)
    return spool.watermark is None or reached - spool.watermark >= IDLE


def _reason(error: Exception) -> str:
    """The database's own words, in one short line."""
    return f"the database refuses it: {str(error).strip().partition(chr(10))[0][:200]}"
