"""A power cut, replayed: what a journal did to the disk is recorded, and then a part of it is lost.

`python -m tests.faults.power --states 20000` is the long form; `test_power.py` tries a thousand states. What
was synced stays. Of the rest each sector has the contents of some moment since, each file a size that it had
since, and each rename happened or not. With `power` every call that was answered must be there, and neither
mode may make up a record or have one twice.
"""

import argparse
import collections
import mmap
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple
from unittest import mock

from usage import journal, records, segment
from usage import journal as journals
from usage.journal import Journal
from usage.records import CALL, SEAL, read_records
from usage.room import SUFFIX

SECTOR: Final = 512
THREADS: Final = 3
SEGMENT: Final = 12_000  # bytes, so that there are several


class Event(NamedTuple):
    """One thing done to a file (by its number); `until` of a sync is the moment at which it began."""

    kind: str  # create, store, size, sync, rename, sync_folder
    file: int = 0
    offset: int = 0
    data: bytes = b""
    name: str = ""
    until: int = 0


@dataclass
class Recording:
    """What was done, in order, and which call was answered after which moment."""

    events: list[Event] = field(default_factory=list)
    answered: list[tuple[int, int]] = field(default_factory=list)  # (moment, sequence)
    written: set[bytes] = field(default_factory=set)  # payloads
    lock: threading.RLock = field(default_factory=threading.RLock)
    files: dict[int, int] = field(default_factory=dict)  # descriptor → number
    count: int = 0

    def note(self, event: Event) -> int:
        with self.lock:
            self.events.append(event)
            return len(self.events)


class _Map:
    """A map whose stores are recorded."""

    def __init__(self, recording: Recording, fd: int, length: int) -> None:
        self._recording, self._file = recording, recording.files[fd]
        self._map = mmap.mmap(fd, length)

    def __setitem__(self, where: slice, data: bytes) -> None:
        with self._recording.lock:
            self._map[where] = data
            self._recording.note(Event("store", self._file, where.start, bytes(data)))

    def __len__(self) -> int:
        return len(self._map)

    def close(self) -> None:
        self._map.close()


class _Os:
    """The `os` of the journal: what changes a file is recorded, everything is done."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def __getattr__(self, name: str) -> Any:  # any of os
        return getattr(os, name)

    def open(self, path: Path, flags: int, *mode: int) -> int:
        recording = self._recording
        with recording.lock:
            fd = os.open(path, flags, *mode)
            recording.files.pop(fd, None)  # another file's, which is closed
            if flags & os.O_CREAT:
                recording.count += 1
                recording.files[fd] = recording.count
                recording.note(Event("create", recording.count, name=path.name))
        return fd

    def ftruncate(self, fd: int, length: int) -> None:
        with self._recording.lock:
            os.ftruncate(fd, length)
            self._recording.note(Event("size", self._recording.files[fd], length))

    def fsync(self, fd: int) -> None:
        self._sync(os.fsync, fd)

    def fdatasync(self, fd: int) -> None:
        self._sync(os.fdatasync, fd)

    def _sync(self, function: Callable[[int], None], fd: int) -> None:
        began = len(self._recording.events)
        function(fd)
        file = self._recording.files.get(fd)  # None: the folder
        event = Event("sync_folder", until=began) if file is None else Event("sync", file, until=began)
        self._recording.note(event)


@contextmanager
def recorded(recording: Recording) -> Iterator[None]:
    """While it lasts, what `usage.journal` does to files is done, and recorded."""
    real_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        with recording.lock:
            recording.note(Event("rename", name=f"{path.name} {target.name}"))
            return real_rename(path, target)

    def put_call(into: _Map, start: int, size: int, crc: int, payload: bytes) -> None:
        data = records.FRAME.pack(size, crc) + payload
        into[start : start + len(data)] = data

    maps = SimpleNamespace(mmap=lambda fd, length: _Map(recording, fd, length))
    with (
        mock.patch.object(journal, "os", _Os(recording)),
        mock.patch.object(segment, "os", _Os(recording)),
        mock.patch.object(segment, "mmap", maps),
        mock.patch.object(journal, "_put_call", put_call),  # which takes no map but the kernel's
        mock.patch.object(Path, "rename", rename),
    ):
        yield


def record(folder: Path, *, power: bool, calls: int, seed: int) -> Recording:
    """Some threads write calls to one journal."""
    recording = Recording()
    with recorded(recording):
        written = Journal(folder, power=power, tick=False, segment_bytes=SEGMENT)
        written.start()

        def write(number: int) -> None:
            chance = random.Random(seed * 100 + number)
            for _ in range(calls // THREADS):
                agent = f"agent/{chance.randrange(30)}"
                labels = "requests", f"GET /{chance.randrange(9)}", "192.0.2.1", agent
                sequence = written.append(journals.Event(1, number, 1, 1, 1, labels))
                with recording.lock:
                    recording.answered.append((len(recording.events), sequence))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        written.close()
    for path in folder.iterdir():
        recording.written |= {each.payload for each in read_records(path.read_bytes())}
    return recording


class _File:
    """A file as the disk may have it after a cut."""

    def __init__(self, events: list[tuple[int, Event]], chance: random.Random) -> None:
        synced = max((event.until for _, event in events if event.kind == "sync"), default=0)
        sizes = [(at, event.offset) for at, event in events if event.kind == "size"]
        settled = [size for at, size in sizes if at < synced]
        self.data = bytearray(
            chance.choice([*(settled or [0])[-1:], *(size for at, size in sizes if at >= synced)])
        )
        stores = [(at, event) for at, event in events if event.kind == "store"]
        moments = [at for at, _ in stores if at >= synced]
        # Of each sector, up to which moment its stores reached the disk.
        last: dict[int, int] = collections.defaultdict(
            lambda: synced if not moments or chance.random() < 0.3 else chance.choice(moments) + 1
        )
        for at, event in stores:
            for start in range(event.offset - event.offset % SECTOR, event.offset + len(event.data), SECTOR):
                if at < max(synced, last[start // SECTOR]):
                    first = max(start, event.offset)
                    end = min(start + SECTOR, event.offset + len(event.data), len(self.data))
                    if first < end:
                        self.data[first:end] = event.data[first - event.offset : end - event.offset]


def after_cut(recording: Recording, moment: int, chance: random.Random) -> dict[str, bytes]:
    """The folder as it may be found when the power went at this moment: name → contents."""
    events = list(enumerate(recording.events[:moment]))
    folder_synced = max((event.until for _, event in events if event.kind == "sync_folder"), default=0)
    names: dict[str, int] = {}
    for at, event in events:
        if event.kind in ("create", "rename") and at >= folder_synced and chance.random() < 0.5:
            if event.kind == "create":
                continue
            break  # a folder's entries reach the disk in order
        if event.kind == "create":
            names[event.name] = event.file
        elif event.kind == "rename":
            old, new = event.name.split()
            if old in names:
                names[new] = names.pop(old)
    of_file: dict[int, list[tuple[int, Event]]] = collections.defaultdict(list)
    for at, event in events:
        of_file[event.file].append((at, event))
    return {name: bytes(_File(of_file[file], chance).data) for name, file in names.items()}


def judge(recording: Recording, moment: int, found: dict[str, bytes], *, power: bool) -> list[str]:
    """What is wrong with the folder."""
    wrong = []
    sequences: collections.Counter[int] = collections.Counter()
    for name, data in found.items():
        if not name.endswith(SUFFIX):
            continue
        for each in read_records(data):
            if each.payload not in recording.written:
                wrong.append(f"{name}: record {each.sequence} was never written")
            if each.kind == CALL:
                sequences[each.sequence] += 1
            elif each.kind == SEAL:
                continue
    wrong += [f"call {number} is there {times} times" for number, times in sequences.items() if times > 1]
    if power:
        answered = {sequence for at, sequence in recording.answered if at <= moment}
        wrong += [f"call {sequence} was answered and is lost" for sequence in answered - sequences.keys()]
    return wrong


def run(states: int, *, power: bool, calls: int = 300, seed: int = 1) -> tuple[int, list[str]]:
    """Try so many states; returns how many of them had lost something, and what was wrong."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="latchkey-power-") as name:
        recording = record(Path(name), power=power, calls=calls, seed=seed)
    wrong: list[str] = []
    losses = 0
    whole = sum(event.kind == "store" for event in recording.events)
    for number in range(states):
        moment = chance.randrange(len(recording.events) + 1)
        found = after_cut(recording, moment, chance)
        held = sum(len(list(read_records(data))) for data in found.values())
        losses += held < sum(event.kind == "store" for event in recording.events[:moment]) <= whole
        wrong += [f"state {number}: {each}" for each in judge(recording, moment, found, power=power)]
    return losses, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    failed = []
    for power in (True, False):
        losses, wrong = run(options.states // 2, power=power, seed=options.seed)
        failed += wrong
        print(
            f"{'power' if power else 'process'}: {options.states // 2} states, {losses} of them without "
            f"something that was written; {len(wrong)} wrong (seed {options.seed})"
        )
    if failed:
        sys.exit("\n".join(failed[:10]))


if __name__ == "__main__":
    main()
