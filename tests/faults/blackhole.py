"""A door to the tests' PostgreSQL that can be shut: connections stay open and nothing passes any more.

That is how a lost network looks from inside a process, which a closed port does not show.
"""

import contextlib
import select
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

SOCKET = ".s.PGSQL.5432"


class Door:
    """Listens in `folder` as PostgreSQL would and passes everything to the server in `behind`."""

    def __init__(self, folder: Path, behind: Path) -> None:
        self.folder = folder
        self._behind = str(behind / SOCKET)
        self._shut = threading.Event()
        self._ended = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._open: list[socket.socket] = [self._listener]

    def __enter__(self) -> Self:
        self._listener.bind(str(self.folder / SOCKET))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for each in self._open:
            each.close()

    def shut(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._shut.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._behind)
                self._open += [client, server]
                threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        with contextlib.suppress(OSError, ValueError):
            while not self._ended.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.1)
                if self._shut.is_set():
                    self._ended.wait()
                for end in readable:
                    data = end.recv(65_536)
                    if not data:
                        client.close()
                        server.close()
                        return
                    other[end].sendall(data)
