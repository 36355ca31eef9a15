"""SIGHUP to `serve`, again and again, under load: no call is refused, lost, or answered with an error.

`python -m tests.faults.restarts --rounds 100` is the long form, on a database of its own; `test_restarts.py`
restarts a few times. The clients write HTTP themselves. A server may close a connection at any time before it
has read a request; that it had not is proved by the journals, which hold what was answered and nothing more.
"""

import argparse
import collections
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import alone
from tests.faults.load import AUTHORIZE
from tests.faults.server import Server, descendants

THREADS = 4
LOG_SHOWN = 20_000  # characters
FRESH = 5  # calls on one connection, so that new ones are made all the time


@dataclass
class Tally:
    """What the clients saw. `unread`: the connection was closed before any byte of an answer."""

    restarts: int = 0
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    requests: set[str] = field(default_factory=set)
    unread: int = 0
    refused: int = 0  # connections
    broken: int = 0  # answers that broke off
    longest: float = 0.0  # seconds that a call took
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Client:
    def __init__(self, port: int, secret: str, tally: Tally) -> None:
        self._port = port
        self._tally = tally
        head = f"GET {AUTHORIZE} HTTP/1.1\r\nHost: portal\r\nAuthorization: Bearer {secret}\r\n\r\n"
        self._request = head.encode()
        self._socket: socket.socket | None = None
        self._calls = 0  # on this connection

    def call(self) -> None:
        began = time.monotonic()
        if self._socket is None and not self._connect():
            return
        assert self._socket is not None
        answer = b""
        with suppress(OSError):
            self._socket.sendall(self._request)
            while b"\r\n\r\n" not in answer:
                more = self._socket.recv(4096)
                if not more:
                    break
                answer += more
        self._count(answer, time.monotonic() - began)

    def _count(self, answer: bytes, seconds: float) -> None:
        with self._tally.lock:
            if b"\r\n\r\n" in answer:  # an allowed call has no body
                self._tally.statuses[int(answer[9:12])] += 1
                self._tally.requests.add(_header(answer, b"x-portal-request"))
                self._tally.longest = max(self._tally.longest, seconds)
                self._calls += 1
                if self._calls < FRESH and b"connection: close" not in answer.lower():
                    return
            elif answer:
                self._tally.broken += 1
            else:
                self._tally.unread += 1
        self.close()

    def _connect(self) -> bool:
        try:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=20)
        except OSError:
            with self._tally.lock:
                self._tally.refused += 1
            return False
        self._calls = 0
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _header(answer: bytes, name: bytes) -> str:
    for line in answer.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.lower() == name:
            return value.strip().decode()
    return ""


def _load(port: int, secret: str, tally: Tally, stop: threading.Event) -> None:
    client = _Client(port, secret, tally)
    while not stop.is_set():
        client.call()
    client.close()


def _processes(server: Server) -> set[int]:
    return set(descendants(server.process.pid))


def restart(server: Server, seconds: float = 60) -> None:
    """Begin again, and wait until the old processes have ended and the new ones serve."""
    before = _processes(server)
    server.hang_up()
    deadline = time.monotonic() + seconds
    while _processes(server) & before or len(_processes(server)) < len(before):
        told = server.log.read_text()[-4000:]
        assert time.monotonic() < deadline, f"the old processes live on:\n{told}"
        assert server.process.poll() is None, told
        time.sleep(0.05)


def run(rounds: int, secret: str, environment: Mapping[str, str], log: Path, *, workers: int = 2) -> Tally:
    tally, stop = Tally(), threading.Event()
    with Server(environment, "--workers", str(workers), log=log) as server:
        threads = [
            threading.Thread(target=_load, args=(server.port, secret, tally, stop)) for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(rounds):
                restart(server)
                tally.restarts += 1
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert server.stop() == 0
    return tally


def figures(tally: Tally, counted: int) -> str:
    return (
        f"{tally.restarts} restarts: {dict(tally.statuses)} answered, {counted} counted, "
        f"{tally.refused} connections refused, {tally.broken} answers broken off, {tally.unread} connections "
        f"closed before the call was read; the longest call took {tally.longest:.2f} s"
    )


def is_right(tally: Tally, counted: int) -> bool:
    """Nothing refused, wrong, broken off, lost or double; and nothing read that was not answered."""
    answered = sum(tally.statuses.values())
    return (
        set(tally.statuses) == {200}
        and not tally.refused
        and not tally.broken
        and tally.unread <= THREADS * tally.restarts
        and answered == counted == len(tally.requests)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with alone.portal(os.environ.get("DATABASE_URL", "")) as (environment, folder):
        from django.db import connections
        from django.db.models import Sum
        from django.utils import timezone

        from tests import builders
        from usage.drain import drain_once
        from usage.models import Rollup

        secret = builders.key(builders.organization(f"restarts-{int(time.time())}")).plaintext
        before = Rollup.objects.aggregate(calls=Sum("calls"))["calls"] or 0
        connections.close_all()
        tally = run(options.rounds, secret, environment, folder / "log", workers=options.workers)
        drain_once(timezone.now())  # what `serve` had no time for at its end
        counted = (Rollup.objects.aggregate(calls=Sum("calls"))["calls"] or 0) - before
        print(figures(tally, counted))
        if not is_right(tally, counted):
            print((folder / "log").read_text()[-LOG_SHOWN:], file=sys.stderr)
            sys.exit("Not as it should be.")


if __name__ == "__main__":
    main()
