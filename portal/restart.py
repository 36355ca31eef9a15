"""SIGHUP: `serve` begins again with the code and settings as they are now, and no call notices.

The process replaces its own program (exec), so its id and its socket stay; the new program starts new
processes on that socket and ends the old ones once those are ready. What waits in the socket meanwhile is
served by whoever comes first. Nothing here serves.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from django.conf import settings

from portal.server import KILL_SECONDS, Server

logger = logging.getLogger(__name__)

_HANDED_ON: Final = "SERVE_HANDED_ON"  # the socket's descriptor, then the old processes' ids
_TRY_SECONDS: Final = 60
# So long the old processes go on while the new ones are not ready: to read a million keys, or to get a turn
# at a busy database, takes a while, and until then their answer would be 503.
READY_SECONDS: Final = 300.0


class Predecessor:
    """What the program before this one left: its socket, and the processes that still serve from it."""

    def __init__(self, listener: socket.socket, pids: list[int]) -> None:
        self.listener = listener
        self._pids = pids
        self._lock = threading.Lock()

    @property
    def serves(self) -> bool:
        """Are there processes that still do?"""
        return bool(self._pids)

    def replace(self, http: Server) -> None:
        """End the old processes once all new ones are ready to serve, in the background."""
        http.started = threading.Thread(target=self._replace, args=(http,), daemon=True).start

    def _replace(self, http: Server) -> None:
        waiting = threading.Thread(target=_wait_for_all, args=(http,), daemon=True)
        waiting.start()
        waiting.join(READY_SECONDS)
        late = waiting.is_alive()
        self.end()
        if late:
            logger.warning("The new processes were not ready in time; the old ones have ended all the same.")
        else:
            logger.info("The new processes serve; the old ones have ended.")

    def end(self) -> None:
        """Let them finish what they have begun, and no longer than `serve` itself would."""
        with self._lock:
            pids, self._pids = self._pids, []
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + KILL_SECONDS
            for pid in pids:
                _reap(pid, deadline)


def _wait_for_all(http: Server) -> None:
    for _ in range(http.workers):
        http.wait_for_one()


def _reap(pid: int, deadline: float) -> None:
    """Wait for a child of this process, and kill it at the deadline."""
    with suppress(ChildProcessError):
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() >= deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return
            time.sleep(0.02)


def predecessor() -> Predecessor | None:
    """What this program was handed, if it was begun by `begin_again`."""
    handed = os.environ.pop(_HANDED_ON, "")
    if not handed:
        return None
    fd, *pids = (int(each) for each in handed.split(","))
    return Predecessor(socket.socket(fileno=fd), pids)


def begin_again(http: Server, pids: list[int], options: list[str]) -> None:
    """Run `serve` with these options in place of this program; `pids` are children to be ended later.

    First a process of its own tries whether it would start; if not, everything stays as it is. Call it in
    the main thread: to the kernel the processes are that one's children.
    """
    command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "serve", *options]
    environment = _first_environment()
    try:
        tried = subprocess.run(
            [*command, "--check"],
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=_TRY_SECONDS,
            check=False,
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        tried = 1
    if tried:
        logger.error("SIGHUP: it would not start again (see above), so it goes on as it is.")
        return
    if http.interrupt_signal:  # told to end while it was tried; the new program would know nothing of that
        return
    logger.info("SIGHUP: it begins again with the code and settings as they are now.")
    http.listener.set_inheritable(True)
    environment[_HANDED_ON] = ",".join(map(str, [http.listener.fileno(), *pids]))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the new program has its own handler
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606  it needs no shell


def _first_environment() -> dict[str, str]:
    """The environment that this process was given: its own by now has the values of `.env`, too, which may
    have changed there."""
    try:
        given = Path("/proc/self/environ").read_bytes()
    except OSError:  # not Linux
        return dict(os.environ)
    pairs = (os.fsdecode(each).partition("=") for each in given.split(b"\0") if b"=" in each)
    found = {name: value for name, _, value in pairs}
    found.pop(_HANDED_ON, None)
    return found
