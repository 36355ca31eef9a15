"""The plumbing under `serve`: what every process that it starts does first, and how it ends with its parent.

Nothing here answers a request.
"""

import atexit
import ctypes
import errno
import importlib
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connections
from django.utils import timezone

from usage import metering
from usage.drain import Drain
from usage.journal import JournalError

logger = logging.getLogger(__name__)

ROLES = {"all": "application", "gateway": "gateway", "portal": "pages"}
# The settings have been read. The server copies the environment into every request's, where these would lie
# beside the client's headers.
_SECRET_VARIABLES = ("SECRET_KEY", "DATABASE_URL", "EMAIL_URL", "VALKEY_URL")
_PR_SET_PDEATHSIG = 1
_RESTART_SECONDS = 1.0
KEYS_SECONDS = 5.0
_END_SECONDS = 10.0  # for a transaction to finish
_LAST_PASS_SECONDS = 10.0


# A WSGI callable, as the server wants it.
def load(target: str, patience: float = KEYS_SECONDS) -> Callable[..., Any]:
    """In a new server process: end with the parent, import the application, begin to follow the keys; wait
    for them, but no longer than `patience`, in seconds."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with_parent(parent.pid, signal.SIGKILL)
    module, _, name = target.partition(":")
    application: Callable[..., Any] = getattr(importlib.import_module(module), name)
    for variable in _SECRET_VARIABLES:
        os.environ.pop(variable, None)
    # Of the portal's role only the machine API needs them: its pages need not wait.
    _follow_the_keys(seconds=0 if name == ROLES["portal"] else patience)
    return application


def _follow_the_keys(seconds: float) -> None:
    """Begin to, and wait a little until they are known: the process listens once this returns.

    Without a database or a place for the journal there is nothing to wait for, and 503 is the answer.
    """
    try:
        directory = metering.start()
    except JournalError as error:
        logger.error("Not ready: the journal: %s", error)
        return
    deadline = time.monotonic() + seconds
    while not directory.ready and time.monotonic() < deadline:
        time.sleep(0.02)
    atexit.register(metering.stop)  # on a graceful end; any other is told by the free lock


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Have this process get the signal when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was told
            os.kill(os.getpid(), number)
        return
    threading.Thread(target=_watch_parent, args=(parent, number), daemon=True).start()


def _watch_parent(parent: int, number: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), number)


def release_database() -> None:
    """Before a fork: a child must not share connections, nor find a pool whose threads it has not."""
    for connection in connections.all(initialized_only=True):
        connection.close()
        close_pool = getattr(connection, "close_pool", None)  # PostgreSQL's backend
        if close_pool is not None:
            close_pool()


def bindable(host: str, port: int) -> str:
    """The address to bind for `host`. Raises OSError if it does not exist or somebody listens there.

    The server shares its port between processes (SO_REUSEPORT), and so would not notice another server.
    """
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
    return str(address[0])


def why_not(host: str, port: int, error: OSError) -> str:
    """The sentence for an address that `bindable` refuses."""
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine."
    if error.errno == errno.EADDRINUSE:
        return f"{where} is taken by another process; choose another port with --port."
    if error.errno == errno.EACCES:
        return f"This user may not listen on {where}; choose a port above 1023 with --port."
    return f"Cannot listen on {where}: {error.strerror}."


# A server process that forks off while another thread starts a program takes along the pipe by which that
# thread learns that the program runs; it would wait for as long as the process lives.
_no_fork = threading.Lock()
os.register_at_fork(
    before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release
)


class Housekeeping:
    """The `worker` command as a process of its own, started again when it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        # Started from this thread, which lives as long as the process: the kernel's "parent" is a thread.
        command = [sys.executable, str(settings.BASE_DIR / "manage.py"), "worker"]
        command += ["--parent", str(os.getpid())]
        while not self._stop.is_set():
            with self._lock:
                if self._stop.is_set():
                    return
                with _no_fork:
                    # A session of its own: Ctrl-C is for `serve`, which then ends this one last.
                    self._process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, start_new_session=True
                    )
            self._process.wait()
            self._stop.wait(_RESTART_SECONDS)

    def pids(self) -> list[int]:
        """Of its process, if it runs."""
        with self._lock:
            return [] if self._process is None else [self._process.pid]

    def stop(self) -> None:
        """End it after its transaction."""
        self._stop.set()
        with self._lock:
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def drain_what_is_left() -> None:
    """One pass over what the serving processes have left, with or without a worker; bounded in time."""
    deadline = time.monotonic() + _LAST_PASS_SECONDS
    try:
        Drain().once(timezone.now(), stop=lambda: time.monotonic() > deadline)
    except DatabaseError:
        logger.warning("The database is away; what is in the journals waits for the next start.")
