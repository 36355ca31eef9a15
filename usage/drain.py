"""Journals into roll-ups, each record exactly once.

One transaction reads a stretch of a journal, adds it to the counters and moves the offset, with the spool's
row locked; a kill at any moment repeats and loses nothing. This module alone reads journals and decides
what has been counted. It never changes one: a file goes only after the transaction that finished it.
"""

import datetime as dt
import fcntl
import hashlib
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Min
from django.db.models.functions import Coalesce

from keys import presence
from usage import counting, ledger
from usage.journal import NEW_SUFFIX, SUFFIX
from usage.models import Segment, Spool
from usage.records import (
    CALL,
    FRAME,
    HEADER,
    HELD,
    RESPONSE,
    SEAL,
    Header,
    Reader,
    Record,
    Unreadable,
    has_begun,
)
from usage.rollups import Sums, moment

logger = logging.getLogger(__name__)

BATCH = 50_000  # records in one transaction
IDLE = dt.timedelta(seconds=5)  # how old a stored watermark may grow while a journal only ticks
TORN_SUFFIX = ".torn"  # a finished file that ends with bytes that are no record, kept for people
_NAME = re.compile(rf"([0-9A-Za-z]{{11}})\.([0-9]{{6}}){re.escape(SUFFIX)}", re.ASCII)
_ABANDONED_SECONDS = 3600.0


@dataclass
class DrainReport:
    """What one pass did. `problems` are sentences for the operator; they are logged too."""

    records: int = 0
    calls: int = 0
    segments_finished: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass
class _Stretch:
    """What one transaction reads of one file."""

    chain: bytes
    sequence: int  # of the last record
    sums: Sums = field(default_factory=Sums)
    records: int = 0
    calls: int = 0
    responses: int = 0
    last_time: int = 0
    full: bool = False  # the batch was, so that more may follow
    problem: str = ""
    unreadable: bool = False


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
        report = DrainReport()
        spools = self._list()
        # Every journal that is listed holds the watermark back from now on, not only once its turn comes.
        all_known = self._register(spools)
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
                    self._say(report, f"{name}: {error}; left alone")
                    break
        listed = {_name(spool, number) for spool, numbers in spools.items() for number in numbers}
        for name in self._readers.keys() - listed:
            del self._readers[name]
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
                    held = min(found.st_size, found.st_blocks * 512)  # what is only set aside is sparse
                    total += max(held - (known.offset if known else 0), 0)
                except FileNotFoundError:
                    continue
        return total

    def _register(self, spools: dict[str, list[int]]) -> bool:
        """Give every spool its row. False if a journal does not say whose it is or since when."""
        readable = True
        headers = []
        for spool in spools.keys() - self._known:
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
                    _make_row(header)
            self._known.update(header.spool for header in headers)
        self._known &= spools.keys()
        return readable

    def _list(self) -> dict[str, list[int]]:
        """Spool → its segments' numbers."""
        spools: dict[str, list[int]] = {}
        if not self.directory.is_dir():
            return spools
        for path in self.directory.iterdir():
            if match := _NAME.fullmatch(path.name):
                spools.setdefault(match[1], []).append(int(match[2]))
            elif path.suffix == NEW_SUFFIX:
                _remove_abandoned(path)
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
                try:
                    ignored, stretch = self._transaction(fd, reader, header, reached, now, orphan=orphan)
                except BaseException:
                    del self._readers[name]  # it is ahead of what was committed
                    raise
                progress(max(reader.offset - before, 0))
                report.records += stretch.records
                report.calls += stretch.calls
                if stretch.problem:
                    self._say(report, f"{name}: {stretch.problem}")
                if ignored is not None:
                    if ignored:
                        self._say(report, f"{name}: its last {ignored} bytes are no record; kept")
                    _dispose(path, torn=ignored > 0)
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
        reached: dt.datetime | None,
        now: dt.datetime,
        *,
        orphan: bool,
    ) -> tuple[int | None, _Stretch]:
        """Count one stretch. Returns the bytes ignored at the file's end if it is finished now.

        `reached` is how far the watermark may go; None: not at all, for there is a journal that nobody
        can place in time.
        """
        with transaction.atomic():
            counting.share()
            spool, segment = _locked_rows(header)
            stretch = _Stretch(bytes.fromhex(segment.chain), spool.sequence)
            if segment.finished_at is not None:
                # Counted and committed already; only the file is still here.
                return segment.ignored_bytes, stretch
            _go_to(fd, reader, segment.offset)
            self._read(fd, reader, stretch)
            ignored = None
            if orphan and not stretch.full and not stretch.unreadable:
                ignored = _leftover(fd, reader.offset)
            counts = stretch.calls or stretch.responses
            if ignored is None and not counts and not _is_old(spool, stretch, now):
                reader.rewind(segment.offset)
                return None, stretch
            following = self.directory / _name(header.spool, header.segment + 1)
            stretch.sums.store(spool.pk)
            if stretch.records:
                spool.sequence = stretch.sequence
                if reached is not None:
                    reached = min(moment(stretch.last_time), reached)
                    spool.watermark = max(reached, spool.watermark or reached)
            # A process opens its next segment before it leaves one; without that it is gone. Should it
            # come back after all (its disk was full), its next segment opens the spool again.
            spool.finished_at = now if ignored is not None and not following.exists() else None
            spool.save(update_fields=["sequence", "watermark", "finished_at"])
            if spool.finished_at is not None and not self._is_alive(header.spool):
                ledger.settle_spool(spool.pk)
            for name, calls, quantity in stretch.sums.outcomes():
                old = segment.sums.get(name, [0, 0])
                segment.sums[name] = [old[0] + calls, old[1] + quantity]
            segment.offset = reader.offset
            segment.records += stretch.records
            segment.chain = stretch.chain.hex()
            segment.ignored_bytes = ignored or 0
            segment.finished_at = now if ignored is not None else None
            segment.save(update_fields=["offset", "records", "sums", "chain", "ignored_bytes", "finished_at"])
            return ignored, stretch

    def _is_alive(self, spool: str) -> bool:
        """Does the process still hold its own lock? A full disk can make it leave its journal for a while."""
        lock = self.directory / f"{spool}.lock"
        return lock.exists() and not presence.lock_is_free(lock)

    def _read(self, fd: int, reader: Reader, stretch: _Stretch) -> None:
        """Add up whole records until the batch is full or the file ends."""
        sha256, add, chain, records, calls = hashlib.sha256, stretch.sums.add, stretch.chain, 0, 0
        try:
            for record in reader.records(lambda size, offset: os.pread(fd, size, offset)):
                chain = sha256(chain + record.payload).digest()
                records += 1
                stretch.last_time = record.time
                if record.kind != SEAL:
                    if record.sequence != stretch.sequence + 1:
                        stretch.problem = _out_of_order(record, stretch.sequence)
                        if record.sequence <= stretch.sequence:
                            continue
                    stretch.sequence = record.sequence
                    if record.kind == CALL or record.kind == HELD:
                        add(record)
                        calls += record.calls
                    elif record.kind == RESPONSE:
                        stretch.sums.add_response(record)
                        stretch.responses += record.calls
                if records >= self.batch:
                    stretch.full = True
                    break
        except Unreadable as error:
            # What was read before it counts; the rest waits for a version that knows it.
            stretch.unreadable = True
            stretch.problem = f"unreadable from byte {reader.offset} on: {error}"
        stretch.chain, stretch.records, stretch.calls = chain, records, calls

    def _say(self, report: DrainReport, problem: str) -> None:
        """Report it each time, log it once."""
        report.problems.append(problem)
        if problem not in self._said:
            self._said.add(problem)
            logger.warning("%s", problem)


def drain_once(now: dt.datetime) -> DrainReport:
    """One pass over this host's journals."""
    return Drain().once(now)


def complete_through() -> dt.datetime | None:
    """Every call answered before this moment is in the roll-ups; None if there was never a journal.

    A pass first gives every journal that it lists a row, and no watermark goes beyond that listing; so a
    journal that no pass has seen yet holds later events only (on this host; another host's begin to count
    at its own first pass). A journal that nobody can read stops every watermark.
    """
    behind: dt.datetime | None = Spool.objects.filter(finished_at=None).aggregate(
        at=Min(Coalesce("watermark", "started_at"))
    )["at"]
    if behind is not None:
        return behind
    ended: dt.datetime | None = Spool.objects.aggregate(at=Max("finished_at"))["at"]
    return ended


def _name(spool: str, number: int) -> str:
    return f"{spool}.{number:06d}{SUFFIX}"


def _lock_is_free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


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


def _make_row(header: Header) -> None:
    Spool.objects.get_or_create(
        id=header.spool,
        defaults={"host": header.host, "pid": header.pid, "started_at": moment(header.started)},
    )


def _locked_rows(header: Header) -> tuple[Spool, Segment]:
    _make_row(header)
    spool = Spool.objects.select_for_update().get(pk=header.spool)
    segment, _ = Segment.objects.get_or_create(spool=spool, number=header.segment)
    return spool, segment


def _go_to(fd: int, reader: Reader, offset: int) -> None:
    """Bring the reader to `offset`, with every text that was defined before it."""
    if reader.offset > offset:  # the transaction that went there was rolled back
        reader.rewind(0)
    if reader.offset < offset:
        for record in reader.records(lambda size, start: os.pread(fd, size, start)):
            if record.end >= offset:
                break
    if reader.offset != offset:
        raise Unreadable(f"byte {offset}, up to which it was read, is not the end of a record")


def _is_old(spool: Spool, stretch: _Stretch, now: dt.datetime) -> bool:
    """Is it time to store a watermark that only ticks have moved?"""
    if not stretch.records:
        return False
    reached = min(moment(stretch.last_time), now)
    return spool.watermark is None or reached - spool.watermark >= IDLE


def _out_of_order(record: Record, last: int) -> str:
    if record.sequence <= last:
        return f"record {record.sequence} came again and is not counted"
    return f"records {last + 1} to {record.sequence - 1} are missing"


def _dispose(path: Path, *, torn: bool) -> None:
    """The file of a finished segment; a failure is repaired by the next pass."""
    try:
        if torn:
            path.rename(path.with_name(path.name + TORN_SUFFIX))
        else:
            path.unlink()
    except FileNotFoundError:
        pass


def _remove_abandoned(path: Path) -> None:
    """A file left by a process that died while making it; it holds no event."""
    try:
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            path.unlink()
    except FileNotFoundError:
        pass
