"""Walks what it is given and spreads the reading over processes; a little work is done where it is asked.

At most a few batches wait at a time, so that memory stays flat however much there is to read.
"""

import os
import signal
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from multiprocessing import get_context
from pathlib import Path

from keys.scanning import git
from keys.scanning.files import PART, Hit, Part, Result, Skipped, is_utf16, scan_parts, unread

BATCH = 16 * 1024 * 1024  # bytes
BATCH_ITEMS = 1000  # files, or objects of a repository
_WAITING = 3  # batches for each process

type Job = partial[Result]


def scan(
    paths: Iterable[str], prefixes: Collection[bytes], *, processes: int = 0, history: bool = True
) -> Iterator[Result]:
    """Everything under these paths, result by result as it is done; `processes` 0: one for each processor.

    A path that is a link is followed, links below it are not. Raises OSError for a path that does not exist.
    """
    walk = _Walk(history)
    jobs = chain(_file_jobs(walk, paths, prefixes), _history_jobs(walk, prefixes))
    processes = processes or os.cpu_count() or 1
    first = list(islice(jobs, 2))
    alone = len(first) < 2 or processes == 1  # new processes would take longer to start
    results = map(_run, chain(first, jobs)) if alone else _spread(chain(first, jobs), processes)
    of_history: dict[str, list[Hit]] = defaultdict(list)
    for result in results:
        if result.repository and result.hits:
            of_history[result.repository] += result.hits
            result.hits = []
        yield result
    for path, hits in of_history.items():
        yield Result(hits=git.name_places(path, hits))
    yield Result(skipped=walk.skipped)


def _run(job: Job) -> Result:
    return job()


def _spread(jobs: Iterable[Job], processes: int) -> Iterator[Result]:
    # Spawned: a fork would share the caller's connections to the database.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_leave_interrupts)
    waiting: set[Future[Result]] = set()
    try:
        for job in jobs:
            waiting.add(pool.submit(_run, job))
            if len(waiting) >= _WAITING * processes:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in done)
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    """Ctrl-C goes to all; the one that asked ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _file_jobs(walk: "_Walk", paths: Iterable[str], prefixes: Collection[bytes]) -> Iterator[Job]:
    sized = ((part, min(size, PART)) for path, size in walk.files(paths) for part in walk.parts(path, size))
    for batch in _batches(sized):
        yield partial(scan_parts, batch, prefixes)


def _history_jobs(walk: "_Walk", prefixes: Collection[bytes]) -> Iterator[Job]:
    for path in walk.repositories.values():
        try:
            for batch in _batches((each, each.size) for each in git.objects(path)):
                yield partial(git.scan_objects, path, batch, prefixes)
        except git.Unreadable as error:
            walk.skipped.append(Skipped(path, str(error)))


def _batches[T](sized: Iterable[tuple[T, int]]) -> Iterator[list[T]]:
    batch: list[T] = []
    total = 0
    for item, size in sized:
        batch.append(item)
        total += size
        if total >= BATCH or len(batch) >= BATCH_ITEMS:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


@dataclass(slots=True)
class _Walk:
    """The files under some paths, and what was met on the way to them."""

    history: bool
    repositories: dict[str, str] = field(default_factory=dict)  # by the folder of their objects
    skipped: list[Skipped] = field(default_factory=list)

    def files(self, paths: Iterable[str]) -> Iterator[tuple[str, int]]:
        """(path, size) of every file."""
        for path in paths:
            found = Path(path).stat()
            if stat.S_ISDIR(found.st_mode):
                yield from self._below(path)
            else:
                yield str(Path(path).resolve()) if Path(path).is_symlink() else path, found.st_size

    def parts(self, path: str, size: int) -> Iterator[Part]:
        """A large file in parts, so that several processes may read it."""
        try:
            if size <= PART or is_utf16(path):
                yield Part(path)
                return
        except OSError as error:
            self.skipped.append(unread(path, error))
            return
        for start in range(0, size, PART):
            yield Part(path, start, start + PART if start + PART < size else 0)

    def _below(self, top: str) -> Iterator[tuple[str, int]]:
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            self._note_repository(folder)
            try:
                with os.scandir(folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError as error:
                self.skipped.append(unread(folder, error))
                continue
            for entry in found:
                if entry.is_symlink():
                    self.skipped.append(Skipped(entry.path, "a link, not followed"))
                elif entry.is_dir(follow_symlinks=False):
                    # What is in there is compressed; it is read as history.
                    if entry.name != "objects" or not git.is_repository(folder):
                        waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    self.skipped.append(Skipped(entry.path, "not a file"))
                else:
                    try:
                        yield entry.path, entry.stat(follow_symlinks=False).st_size
                    except OSError as error:
                        self.skipped.append(unread(entry.path, error))

    def _note_repository(self, folder: str) -> None:
        if self.history and git.is_repository(folder):
            try:
                self.repositories.setdefault(git.common_folder(folder), folder)
            except git.Unreadable as error:
                self.skipped.append(Skipped(folder, str(error)))
