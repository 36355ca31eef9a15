"""The list of processes that answer from memory, and the question "has everyone heard?".

A process joins before its first read and acknowledges each event before it relies on it; so an event is
known everywhere once every process on the list has acknowledged it, or has died (its lock is free), or
may no longer answer from memory (its `serves_until` has passed by the database's clock).
"""

import datetime as dt
import fcntl
import os
import socket
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db.models.functions import Now
from django.utils import timezone

from keys.models import Process

POLL_SECONDS = 0.05


def _stale() -> dt.timedelta:
    return dt.timedelta(seconds=settings.KEYS_STALE_SECONDS)


def take_lock(path: Path) -> int:
    """Create and lock a process's lock file; the kernel frees it when the process ends, however."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def lock_is_free(path: Path) -> bool:
    """Has the process that held this lock (on this host) ended? A file that is gone says nothing: somebody
    else may have removed it, or another machine have the same name."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # cannot tell; so it may be alive
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def join(process_id: str, host: str, lock_path: Path, number: int = 0) -> None:
    """Put this process on the list, as one that has heard everything up to `number`."""
    Process.objects.update_or_create(
        pk=process_id,
        defaults={
            "host": host[:100],
            "pid": os.getpid(),
            "lock_path": str(lock_path),
            "feed_number": number,
            "serves_until": Now() + _stale(),
        },
        create_defaults={
            "host": host[:100],
            "pid": os.getpid(),
            "lock_path": str(lock_path),
            "started_at": timezone.now(),
            "feed_number": number,
            "serves_until": Now() + _stale(),
        },
    )


def acknowledge(process_id: str, number: int) -> bool:
    """Write that this process has applied `number` and may answer for KEYS_STALE_SECONDS more.

    False, and nothing is written, when it is not on the list or its time there has run out.
    """
    updated = Process.objects.filter(pk=process_id, serves_until__gt=Now()).update(
        feed_number=number, serves_until=Now() + _stale()
    )
    return updated == 1


def leave(process_id: str) -> None:
    """Take this process off the list: it answers no more."""
    Process.objects.filter(pk=process_id).delete()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A process that may still answer as before an event, and until when at the latest."""

    host: str
    pid: int
    until: dt.datetime


def _waiting(number: int) -> list[Waiting]:
    here = socket.gethostname()[:100]
    behind = Process.objects.filter(feed_number__lt=number, serves_until__gt=Now()).order_by("host", "pid")
    return [
        Waiting(process.host, process.pid, process.serves_until)
        for process in behind
        if process.host != here or not lock_is_free(Path(process.lock_path))
    ]


def known_everywhere(number: int, *, wait: float) -> list[Waiting]:
    """Wait up to `wait` seconds until event `number` is known to every process; return who is not there.

    An empty list means that no process answers from a picture older than the event.
    """
    deadline = time.monotonic() + wait
    while waiting := _waiting(number):
        if time.monotonic() >= deadline:
            return waiting
        time.sleep(POLL_SECONDS)
    return []


def forget_the_dead(spare: Collection[str] = ()) -> int:
    """Remove processes that ended without signing off, and their lock files; return how many.

    Those whose ids are in `spare` stay on the list, dead or not: somebody still needs to know of them.
    """
    here = socket.gethostname()[:100]
    dead = [
        process
        for process in Process.objects.exclude(pk__in=spare)
        if process.host == here and lock_is_free(Path(process.lock_path))
    ]
    long_silent = Process.objects.filter(serves_until__lt=Now() - dt.timedelta(days=1)).exclude(pk__in=spare)
    removed, _ = (Process.objects.filter(pk__in=[process.pk for process in dead]) | long_silent).delete()
    for process in dead:  # after the rows: a file that is gone proves nothing
        Path(process.lock_path).unlink(missing_ok=True)
    return removed
