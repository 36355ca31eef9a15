"""A door to PostgreSQL that cuts a connection when its transaction is committed and nobody knows it yet."""

import contextlib
import random
import select
import socket

from tests.faults.blackhole import Door


class Scissors(Door):
    """Passes everything, but of the commits only so many answers; `cuts` counts those that never came."""

    def __init__(self, *arguments: object, share: float = 0.5, seed: int = 1) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # as Door's
        self.share = share
        self.cuts = 0
        self._chance = random.Random(seed)

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        committing = False
        answer = b""
        with contextlib.suppress(OSError, ValueError), client, server:
            while not self._ended.is_set():
                readable, _, _ = select.select([client, server], [], [], 0.1)
                if client in readable:
                    data = client.recv(65_536)
                    if not data:
                        return
                    if b"COMMIT" in data and self._chance.random() < self.share:
                        committing, answer = True, b""
                    server.sendall(data)
                if server in readable:
                    data = server.recv(65_536)
                    if not data:
                        return
                    if not committing:
                        client.sendall(data)
                        continue
                    answer += data
                    # CommandComplete with its tag, and ReadyForQuery outside of a transaction.
                    if b"COMMIT\0" in answer and answer.endswith(b"Z\x00\x00\x00\x05I"):
                        self.cuts += 1
                        return
