"""One file of a journal: open, locked, mapped into memory, with room set aside before it is used.

It alone asks the disk for space. It knows neither what a record is nor when the next file begins, and takes
no lock: `usage.journal` calls it under one.
"""

import errno
import mmap
import os
import threading
from pathlib import Path
from typing import Final

from usage import records

RESERVE_BYTES: Final = 1024 * 1024  # asked of the disk at once
# Room behind the most that a segment holds for what is written last: a call and four new texts, or a seal.
SLACK: Final = 5 * (records.FRAME.size + records.MAX_PAYLOAD)

# Meter, resource, address and user agent of a call; a segment defines each text once and then names it.
type Labels = tuple[str, str, str, str]


class Segment:
    """An open, locked, mapped file: `size` bytes of records, then zeros.

    Below `room_until` the next event may be written without a look at the disk, or at anything else; once the
    segment has failed that is 0. `synced` is the last sequence known to have reached the disk.
    """

    __slots__ = (
        "_most", "closed", "failed", "fd", "labels", "map", "mark", "path", "reserved", "room_until", "size",
        "sync_lock", "synced", "texts", "written",
    )  # fmt: skip

    def __init__(self, fd: int, path: Path, most: int) -> None:
        self.fd = fd
        self.path = path
        self._most = most  # bytes, after which the next segment begins
        os.ftruncate(fd, most + SLACK)  # sparse: only what is reserved takes space
        self.map = mmap.mmap(fd, most + SLACK)
        self.size = self.reserved = self.room_until = 0
        self.texts: dict[str, int] = {"": 0}
        self.labels: dict[Labels, tuple[int, ...]] = {}  # the ids of their texts
        self.mark = object()  # who holds on to it knows this segment by it, and keeps nothing of it alive
        self.failed = self.closed = False
        self.sync_lock = threading.Lock()
        self.written = self.synced = 0
        try:
            self.make_room()
        except OSError:
            self.map.close()  # it holds the lock, and the place on the disk, as the descriptor does
            raise

    @property
    def is_full(self) -> bool:
        return self.size >= self._most

    def make_room(self) -> None:
        """Have the disk set more bytes aside. Raises OSError when it has none."""
        more = min(RESERVE_BYTES, len(self.map) - self.reserved)
        _allocate(self.fd, self.reserved, more)
        self.reserved += more
        self.room_until = min(self.reserved - SLACK, self._most)

    def put(self, data: bytes) -> None:
        """Copy a record behind the others; the slack has room for what comes after `room_until`."""
        end = self.size + len(data)
        self.map[self.size : end] = data
        self.size = end

    def fail(self) -> None:
        self.failed, self.room_until = True, 0

    def let_go(self) -> None:
        """Close the file as a process that ends does: the map and its descriptor hold the lock too."""
        self.closed = True
        self.map.close()
        os.close(self.fd)


def _allocate(fd: int, start: int, length: int) -> None:
    """Have the file system set these bytes aside, as zeros. Raises OSError when it has none left."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, start, length)
    elif os.pwrite(fd, bytes(length), start) != length:  # macOS
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
