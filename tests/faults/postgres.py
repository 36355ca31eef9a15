"""A PostgreSQL of one test's own, from the tests' wheel, to be stopped, killed, frozen and started again.

The suite's server belongs to all tests and is never touched. Here the postmaster is this process's own child,
so that it ends at once and as it is told.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

from tests.embedded import import_get_server, is_root
from tests.faults.server import descendants, wait_until_gone

START_SECONDS = 30


class Postgres:
    """In a context that leaves neither a process nor a file behind; it has been started inside."""

    def __init__(self) -> None:
        # Root's server runs as another user, who must be able to reach the data: not below /root. Short, for
        # the path of a socket may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="latchkey-pg-", dir="/tmp" if is_root() else None))
        self._data = self.folder / "data"
        self._data.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgres://postgres@/postgres?host={self._data}"

    @property
    def conninfo(self) -> str:
        """The same as the driver has it."""
        return f"host={self._data} user=postgres dbname=postgres"

    def __enter__(self) -> Self:
        try:
            server = import_get_server(self.folder)(self._data, start=False)
            server.ensure_pgdata_inited()
            self._binary, self._user = server.bin_path / "postgres", server.system_user
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, recover what a crash left, and return once it answers."""
        assert self._process is None
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary, "-D", self._data, "-k", self._data, "-h", ""],
                cwd=self._data,
                user=self._user and pwd.getpwnam(self._user).pw_uid,
                group=self._user and pwd.getpwnam(self._user).pw_gid,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.02)

    def stop(self) -> None:
        """An immediate shutdown: every connection is cut, and the next start recovers as after a crash."""
        self._end_by(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL to the postmaster and all it started; nothing happens if it is not running."""
        if self._process is not None:
            self._end_by(signal.SIGKILL)

    def _end_by(self, number: signal.Signals) -> None:
        assert self._process is not None
        everything = [self._process.pid, *descendants(self._process.pid)]
        for pid in everything if number == signal.SIGKILL else everything[:1]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        self._process.wait(START_SECONDS)
        self._process = None
        wait_until_gone(everything, START_SECONDS)

    def freeze(self) -> None:
        """SIGSTOP to all of it: connections stay open, new ones are taken by the kernel, nothing answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in [self._process.pid, *descendants(self._process.pid)]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def query(self, sql: str) -> list[tuple[Any, ...]]:  # as the driver has them
        """The rows of one statement, through a connection of its own."""
        with self._connect() as connection:
            return connection.execute(sql.encode()).fetchall()

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.conninfo, connect_timeout=2, autocommit=True)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True
