"""The servers that are compared, each pinned to processors of its own and ended with all it started."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg

from tests.faults.server import Server, free_port


@contextmanager
def pinned(cpus: str) -> Iterator[None]:
    """What is started inside runs on these processors."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(each) for each in cpus.split(",")})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Host(Server):
    """A WSGI callable, served as `serve` serves."""

    def __init__(
        self,
        environment: Mapping[str, str],
        target: str,
        *,
        log: Path,
        workers: int = 1,
        threads: int | None = None,
    ) -> None:
        self.port = free_port()
        self.log = log
        self._out = log.open("ab")
        command = [sys.executable, "-m", "tests.bench.host", target, str(self.port), str(workers)]
        self.process = subprocess.Popen(
            [*command, *([str(threads)] if threads else [])],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            start_new_session=True,
        )

    def wait_until_ready(self) -> None:
        """Any answer will do."""
        deadline = monotonic() + self.ready_seconds
        while monotonic() < deadline and self.process.poll() is None:
            try:
                self.get("/", timeout=2)
            except (OSError, HTTPException):
                sleep(0.05)
            else:
                return
        raise AssertionError(f"{self.process.args!r} does not answer:\n{self.log.read_text()[-4000:]}")


def prepare_peers(database_url: str, redis_url: str, folder: Path) -> dict[str, str]:
    """Their tables and credentials; returns the environment for their server."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.bench.peers.settings",
        "PEERS_DATABASE_URL": database_url,
        "PEERS_REDIS_URL": redis_url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.peers.prepare"], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise AssertionError(f"The peers cannot be prepared:\n{done.stderr[-4000:]}")
    for name, lines in json.loads(done.stdout).items():
        (folder / name).write_text("\n".join(lines) + "\n")
    return environment


def sql(url: str, statement: str) -> list[tuple[Any, ...]]:  # rows as the driver has them
    """Run one statement on a connection of its own; its rows if it has any."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def another_database(url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return re.sub(r"@/\w+", f"@/{name}", url)
