"""The journal: every decision of the gateway, durable before it is answered, and what came of it if known.

Each process copies its events into a file of its own that is mapped into memory (mmap(2), MAP_SHARED): the
bytes are the kernel's at once, so that SIGKILL loses nothing that was answered. A `write` would do the same,
but lets go of the interpreter for each event, and under load that costs more than the event. Space is
reserved before it is used (`usage.segment`), for a full disk must be an error and never a fault; so is a
folder that holds all it may (`usage.room`).

The process holds a lock on the file for life, so that a free lock means nobody will write there again. This
module alone writes there. It opens nothing before the first use (workers fork first), and never touches the
database.
"""

import fcntl
import logging
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from django.conf import settings

from keys import tokens
from usage import records
from usage.clock import Clock
from usage.records import CALL, CHARGED_SHIFT, HEADER, RESPONSE, SEAL, TEXT, TICK, VERSION, frame
from usage.room import SUFFIX, Room
from usage.segment import RESERVE_BYTES, Labels, Segment, sync_directory

logger = logging.getLogger(__name__)

NEW_SUFFIX: Final = ".new"  # not yet locked, or without its header: nobody reads it
SPOOL_LENGTH: Final = 11  # 62**11 > 2**64
SEGMENT_BYTES: Final = 64 * 1024 * 1024
SEGMENT_TEXTS: Final = 65_536
TICK_SECONDS: Final = 1.0

_pack_head, _pack_tail = records.HEAD.pack, records.CALL_TAIL.pack
_pack_call = records.CALL_PARTS.pack
_CALL_SIZE: Final = records.CALL_BODY.size
_CALL_FRAME: Final = struct.Struct(f"{records.FRAME.format}{_CALL_SIZE}s")
_CALL_FRAME_SIZE: Final = _CALL_FRAME.size
_put_call = _CALL_FRAME.pack_into
_SEED: Final = records.SEED
_crc32 = zlib.crc32


class JournalError(Exception):
    """The event is not durable, so the call must not be allowed."""


class Unsure(JournalError):
    """The event may be in the journal or not; the call must not be allowed all the same."""


class TooLate(Exception):
    """The moment before which an event was to be written has passed; nothing was written."""


class Event:
    """What is written of one call, or of several alike, but for the moment and the place in the journal: who
    calls often has one made once.

    Ids are 0 where there is none; `code` is `Code.number`; `kind` is CALL or HELD.
    """

    __slots__ = ("_facts", "kind", "labels", "mark", "tail")

    def __init__(
        self,
        organization: int,
        key: int,
        secret: int,
        code: int,
        cost: int,
        labels: Labels,
        calls: int = 1,
        kind: int = CALL,
    ) -> None:
        self._facts = organization, key, secret, cost, calls, code
        self.kind = kind
        self.labels = labels
        self.mark: object = None  # of the segment that `tail` is for
        self.tail = b""  # of its record

    def name_texts(self, mark: object, ids: tuple[int, ...]) -> None:
        """Its labels have these ids in the segment with this mark."""
        self.tail = _pack_tail(*self._facts, *ids)
        self.mark = mark


class Journal:
    """One process's journal. Thread-safe; `clock` gives ns since the epoch, and `monotonic` bears it out;
    `max_bytes` is what all journals of the directory may hold together (0: no bound)."""

    def __init__(
        self,
        directory: Path,
        *,
        power: bool = False,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] | None = None,
        segment_bytes: int = SEGMENT_BYTES,
        segment_texts: int = SEGMENT_TEXTS,
        max_bytes: int = 0,
        tick: bool = True,
    ) -> None:
        self.directory = directory
        self.spool = tokens.base62(int.from_bytes(os.urandom(8)), SPOOL_LENGTH)
        self._power = power
        self._time = clock
        if monotonic is None:  # a clock of somebody's own is believed
            monotonic = time.monotonic_ns if clock is time.time_ns else clock
        self.clock = Clock(clock, monotonic)
        self._segment_bytes = segment_bytes
        self._segment_texts = segment_texts
        self._tick = tick
        self.room = Room(directory, max_bytes)
        self._lock = threading.Lock()
        self._segment: Segment | None = None
        self._number = -1  # of the last segment opened
        self._sequence = 0  # of the last record written
        self._last = 0  # its time
        self.started = 0  # µs; 0 until it is opened
        self._stop = threading.Event()
        self._ticker: threading.Thread | None = None

    def start(self) -> None:
        """Open the journal if it is not, without an event. Raises JournalError."""
        with self._lock:
            self._ready()

    def append(self, event: Event, charged: int = 0, before: int = 0, wait: bool = True) -> int:
        """Write one event; returns its sequence once it is as durable as `USAGE_DURABILITY` asks.

        `charged` are the bits of the quotas that it was charged to; `before` (µs since the epoch) is the end
        of a period that it must be in; without `wait` it is not held to USAGE_DURABILITY. Raises TooLate
        after that period, and JournalError: the event is in no file, or (Unsure) perhaps, and the call must
        be refused.
        """
        # Not `with`: that costs a tenth of the whole call.
        self._lock.acquire()
        try:
            segment = self._segment
            if segment is None or segment.size >= segment.room_until:
                segment = self._ready()
            if event.mark is not segment.mark:
                segment = self._label(segment, event)
            sequence = self._sequence + 1
            now = self._time() // 1000
            if now > self.clock.until:
                self._doubt(now)
            if now < self._last:
                now = self._last
            if before and now >= before:
                raise TooLate
            kind = event.kind | charged << CHARGED_SHIFT if charged else event.kind
            payload = _pack_call(VERSION, kind, sequence, now, event.tail)
            # `records.frame` and `Segment.put`, spelled out: these are the lines that every call pays for.
            start = segment.size
            _put_call(segment.map, start, _CALL_SIZE, _crc32(payload, _SEED), payload)
            segment.size = start + _CALL_FRAME_SIZE
            segment.written = self._sequence = sequence
            self._last = now
        finally:
            self._lock.release()
        if self._power and wait:
            self._wait(segment, sequence)
        return sequence

    def append_response(
        self, organization: int, key: int, resource: str, status_class: int, responses: int = 1
    ) -> None:
        """Write how a call that was allowed was answered; `status_class` is 1 to 5.

        It never waits for the disk: nobody is promised it. Raises JournalError.
        """
        with self._lock:
            segment = self._with_texts(self._ready(), 1)
            text = self._text(segment, resource, records.RESOURCE_LENGTH)
            sequence, now = self._sequence + 1, self._now()
            body = VERSION, RESPONSE, sequence, now, organization, key, responses, status_class, text
            segment.put(frame(records.RESPONSE_BODY.pack(*body)))
            segment.written = self._sequence = sequence
            self._last = now

    def request_id(self, sequence: int | str) -> str:
        """The public id of a call: it names the journal and the place in it. For "": what all begin with."""
        return f"{self.spool}-{sequence}"

    def tick(self) -> None:
        """Measure the folder, and move the watermark if nothing was written for a second; a failure is the
        next append's."""
        self.room.measure()
        with self._lock:
            self.clock.look()
            segment = self._segment
            if segment is None:
                return
            if segment.failed:  # let go of it even if no event comes, so that it can be drained
                self._leave(segment)
                self._segment = None
                return
            now = max(self._last, self._time() // 1000)
            found = os.fstat(segment.fd)
            if found.st_nlink == 0 or found.st_size < len(segment.map):
                # Somebody deleted it, or cut it off: what is written there can no longer be counted.
                logger.error("The journal %s was deleted; a new one begins.", segment.path.name)
                self._failed(segment, "it was deleted")
            elif now <= self.clock.until and now - self._last >= TICK_SECONDS * 1_000_000:
                with suppress(JournalError):  # the next event's
                    self._mark(self._ready(), TICK, now)

    def close(self) -> None:
        """Seal the journal; a later append goes on in a new segment."""
        with self._lock:
            self._stop.set()
            self._stop, self._ticker = threading.Event(), None
            if self._segment is not None:
                self._seal(self._segment)
                self._segment = None

    def forget(self) -> None:
        """After a fork, in the child: the files are the parent's; only close our copies of them."""
        if self._segment is not None:
            self._segment.let_go()

    # --- under the lock ---

    def _now(self) -> int:
        """The time of a record, in µs. Raises JournalError when it cannot be known."""
        now = self._time() // 1000
        if now > self.clock.until:
            self._doubt(now)
        return max(self._last, now)

    def _doubt(self, now: int) -> None:
        """A time later than the last look allows: the clock leapt, or the looks came late."""
        self.clock.look()
        if now > self.clock.until:
            raise JournalError("this clock was set, and the database has not borne it out yet")

    def _ready(self) -> Segment:
        """The segment to write to, opened now if need be, with room for an event and its texts."""
        if self._ticker is None and self._tick:
            self._ticker = threading.Thread(
                target=self._run_ticker, args=(self._stop,), name="journal-tick", daemon=True
            )
            self._ticker.start()
        segment = self._segment
        if segment is not None and segment.failed:
            self._leave(segment)
            self._segment = segment = None
        elif segment is not None and segment.size >= segment.room_until and self.room.is_full:
            self._seal(segment)  # a drain can take away only what nobody writes to
            self._segment = segment = None
        if segment is None:
            self._segment = segment = self._open()
        elif segment.is_full:
            segment = self._rotate()
        elif segment.size >= segment.room_until:
            try:
                segment.make_room()
            except OSError as error:
                raise self._failed(segment, error) from error
            self.room.take(RESERVE_BYTES)
        return segment

    def _rotate(self) -> Segment:
        """The next segment is open and locked before the old one is let go: a live process always holds
        a lock that the drain can see."""
        old = self._segment
        new = self._open()
        if old is not None:
            self._seal(old)
        self._segment = new
        return new

    def _open(self) -> Segment:
        if self.room.is_full:
            raise JournalError(self.room.sentence)
        now = self._now()
        self.started = self.started or now
        number = self._number + 1
        path = self.directory / f"{self.spool}.{number:06d}{SUFFIX}"
        new = path.with_suffix(NEW_SUFFIX)
        fd, segment = -1, None
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Under its own name only once it is locked and says what it is, so that the drain never takes
            # a file that is just being made for a dead one.
            fcntl.flock(fd, fcntl.LOCK_EX)
            data = frame(
                _pack_head(VERSION, HEADER, self._sequence + 1, now)
                + records.HEADER_BODY.pack(
                    records.MAGIC, self.spool.encode(), os.getpid(), number, self.started
                )
                + socket.gethostname()[: records.HOST_LENGTH].encode("utf-8", "replace")
            )
            segment = Segment(fd, path, self._segment_bytes)
            segment.put(data)
            if self._power:
                os.fsync(fd)
            new.rename(path)
            if self._power:
                sync_directory(self.directory)
        except OSError as error:
            if segment is not None:
                segment.let_go()
            elif fd >= 0:
                os.close(fd)
            if fd >= 0:
                for leftover in (new, path):
                    leftover.unlink(missing_ok=True)
            raise JournalError(f"cannot open a segment: {error}") from error
        self.room.take(RESERVE_BYTES)
        self._number = number
        self._sequence += 1
        self._last = now
        segment.written = segment.synced = self._sequence
        return segment

    def _label(self, segment: Segment, event: Event) -> Segment:
        """Have the event name its texts as the segment does, each defined now if it was not; the segment
        that knows them."""
        labels = event.labels
        ids = segment.labels.get(labels)
        if ids is None:
            segment = self._with_texts(segment, len(labels))
            lengths = records.LABEL_LENGTHS
            ids = tuple(
                self._text(segment, text, length) for text, length in zip(labels, lengths, strict=True)
            )
            if all(len(text) <= length for text, length in zip(labels, lengths, strict=True)):
                segment.labels[labels] = ids  # a longer text is not kept in memory, but labelled anew
        event.name_texts(segment.mark, ids)
        return segment

    def _with_texts(self, segment: Segment, more: int) -> Segment:
        """The segment, or the next one if this has too many texts already."""
        known = max(len(segment.texts), len(segment.labels))
        return self._rotate() if known + more > self._segment_texts else segment

    def _text(self, segment: Segment, text: str, length: int) -> int:
        """The id of a text, which is defined now if it was not, cut to its longest."""
        cut = text[:length]
        number = segment.texts.get(cut)
        if number is None:
            number = segment.texts[cut] = len(segment.texts)
            sequence, now = self._sequence + 1, self._now()
            head = _pack_head(VERSION, TEXT, sequence, now) + records.TEXT_ID.pack(number)
            segment.put(frame(head + records.clean(cut, length).encode()))
            segment.written = self._sequence = sequence
            self._last = now
        return number

    def _mark(self, segment: Segment, kind: int, now: int) -> None:
        """Write a tick or a seal."""
        # A seal repeats the last sequence: the next segment is open by then and its header has the next one.
        sequence = segment.written if kind == SEAL else self._sequence + 1
        segment.put(frame(_pack_head(VERSION, kind, sequence, now)))
        segment.written = sequence
        self._sequence = max(self._sequence, sequence)
        self._last = now

    def _failed(self, segment: Segment, why: object) -> JournalError:
        """Leave the segment, whose records are all whole: the next event goes on in a new one, under the
        sequence that this one did not use."""
        segment.fail()
        self._leave(segment)
        if self._segment is segment:
            self._segment = None
        return JournalError(f"cannot write to {segment.path.name}: {why}")

    def _seal(self, segment: Segment) -> None:
        self._mark(segment, SEAL, self._last)
        self._leave(segment)

    def _leave(self, segment: Segment) -> None:
        with segment.sync_lock:
            if segment.closed:
                return
            if self._power and not segment.failed:
                try:
                    os.fdatasync(segment.fd)
                    segment.synced = segment.written
                except OSError:
                    segment.fail()
            with suppress(OSError):
                os.ftruncate(segment.fd, segment.size)  # gives back what was reserved
            segment.let_go()

    # --- outside the lock ---

    def _wait(self, segment: Segment, sequence: int) -> None:
        """Group commit: whoever comes first syncs for all who have written by then. A sync that failed is
        never tried again (the kernel may have dropped the pages and call the next one a success)."""
        with segment.sync_lock:
            if segment.synced >= sequence:
                return
            if segment.failed or segment.closed:
                raise Unsure("the segment failed before the event reached the disk")
            target = segment.written
            try:
                os.fdatasync(segment.fd)
            except OSError as error:
                segment.fail()
                raise Unsure(f"cannot sync {segment.path.name}: {error}") from error
            segment.synced = target

    def _run_ticker(self, stop: threading.Event) -> None:
        while not stop.wait(TICK_SECONDS / 2):
            self.tick()


_current: Journal | None = None
_current_lock = threading.Lock()


def current() -> Journal:
    """This process's journal; made on first use, opened at its first event."""
    global _current
    if _current is None:
        with _current_lock:
            if _current is None:
                _current = Journal(
                    settings.USAGE_JOURNAL_DIR,
                    power=settings.USAGE_DURABILITY == "power",
                    max_bytes=settings.USAGE_JOURNAL_MAX_BYTES,
                )
    return _current


def reset() -> None:
    """Seal this process's journal; the next use makes another."""
    global _current
    if _current is not None:
        _current.close()
        _current = None


def _after_fork() -> None:
    global _current, _current_lock
    _current_lock = threading.Lock()
    if _current is not None:
        _current.forget()
        _current = None


os.register_at_fork(after_in_child=_after_fork)
