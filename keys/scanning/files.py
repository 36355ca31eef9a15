"""Reads files, or parts of large ones, and finds the secrets in them.

Blocks are read, not mapped: a file that somebody cuts short meanwhile would kill a process that has it
mapped. Links are not followed, and nothing is read that is not a regular file.
"""

import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from keys import tokens

BLOCK = 1024 * 1024  # bytes that are read at once; small enough to stay in the processor's cache
PART = 64 * BLOCK  # of a large file, for one process
_OVERLAP = tokens.LONGEST - 1  # of two blocks: no secret is cut by their border
_UTF16 = (b"\xff\xfe", b"\xfe\xff")  # byte order marks


class Part(NamedTuple):
    """A file from one byte up to another; `stop` 0: to its end."""

    path: str
    start: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """A secret and where it stands; `place` is a path, or one in a repository's history."""

    place: str
    line: int
    secret: str = field(repr=False)
    binary: bool = False


class Skipped(NamedTuple):
    """What was not read, and why."""

    path: str
    why: str


def unread(path: str, error: OSError) -> Skipped:
    return Skipped(path, (error.strerror or str(error)).lower())


@dataclass(slots=True)
class Result:
    """What came of some files, or of some of a repository's objects."""

    hits: list[Hit] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    files: int = 0
    objects: int = 0
    size: int = 0  # bytes
    repository: str = ""  # whose objects these are; their places are then `<kind> <hash>`

    def add(self, other: "Result") -> None:
        self.hits += other.hits
        self.skipped += other.skipped
        self.files += other.files
        self.objects += other.objects
        self.size += other.size


def scan_parts(parts: Collection[Part], prefixes: Collection[bytes]) -> Result:
    """The secrets in these, in their order."""
    result = Result()
    for part in parts:
        result.files += part.start == 0
        try:
            found = list(_secrets(part, prefixes, result))
            if found:
                result.hits += _with_lines(part.path, found)
        except OSError as error:
            result.skipped.append(unread(part.path, error))
    return result


def _secrets(part: Part, prefixes: Collection[bytes], result: Result) -> Iterator[tuple[int, str]]:
    """(offset in the file, secret). What begins in this part is found here, wherever it ends."""
    stop = part.stop + _OVERLAP if part.stop else 0
    before, offset = b"", part.start
    for block in _blocks(part.path, part.start, stop):
        result.size += len(block)
        content = before + block
        begins = offset - len(before)
        for found, secret in tokens.find(content, prefixes):
            # What lies in the overlap as a whole was found in the block before.
            if found + len(secret) > len(before) and not (part.stop and begins + found >= part.stop):
                yield begins + found, secret
        offset += len(block)
        before = content[-_OVERLAP:]


def _blocks(path: str, start: int = 0, stop: int = 0) -> Iterator[bytes]:
    """The file's content; of UTF-16 every other byte, so that ASCII is read as such."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("not a file")
        narrow = _narrowing(os.pread(handle, 2, 0))
        offset = start
        while block := os.pread(handle, min(BLOCK, stop - offset) if stop else BLOCK, offset):
            offset += len(block)
            yield narrow(block)
    finally:
        os.close(handle)


def _narrowing(begin: bytes) -> Callable[[bytes], bytes]:
    return _without_zeros if begin in _UTF16 else _as_it_is


def _without_zeros(block: bytes) -> bytes:
    return block.replace(b"\0", b"")


def _as_it_is(block: bytes) -> bytes:
    return block


def is_utf16(path: str) -> bool:
    """Such a file is read from its begin by one process: offsets in it are not the file's own."""
    with Path(path).open("rb") as file:
        return file.read(2) in _UTF16


def _with_lines(path: str, found: list[tuple[int, str]]) -> Iterator[Hit]:
    """The secrets with the numbers of their lines; the file is read once more, up to the last of them."""
    lines, offset, binary, waiting = 1, 0, False, iter(found)
    place = next(waiting, None)
    for block in _blocks(path):
        binary = binary or (offset == 0 and b"\0" in block[:8192])
        begin = 0
        while place is not None and place[0] < offset + len(block):
            end = place[0] - offset
            lines += block.count(b"\n", begin, end)
            yield Hit(path, lines, place[1], binary)
            begin, place = end, next(waiting, None)
        if place is None:
            return
        lines += block.count(b"\n", begin)
        offset += len(block)


def hits_in(content: bytes, place: str, prefixes: Collection[bytes]) -> Iterator[Hit]:
    """The secrets in what is in memory as a whole."""
    binary = b"\0" in content[:8192]
    content = _narrowing(content[:2])(content)
    lines, begin = 1, 0
    for found, secret in tokens.find(content, prefixes):
        lines += content.count(b"\n", begin, found)
        begin = found
        yield Hit(place, lines, secret, binary)
