"""Calls through a real nginx, counted five times: by the client, nginx, journals, roll-ups and the export.

`python -m tests.faults.million --calls 1000000` is the long form, on a database of its own; `test_million.py`
makes fewer. The numbers must be the same to the last call.
"""

import argparse
import csv
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.faults import alone
from tests.faults.server import ROOT, Server, free_port

THREADS = 8
AT_ONCE = 20  # requests written before their answers are read
PATH = "/orders/1"
_EXPORT = ("export_billing", "--allow-open", "--output", "-")
SCOPE = "orders:read"  # what the recipe asks for there


class Counts(NamedTuple):
    """Allowed calls, as each has counted them."""

    client: int
    nginx: int
    journals: int
    rollups: int
    export: int

    @property
    def are_equal(self) -> bool:
        return len(set(self)) == 1


def _ask(port: int, secret: str, calls: int, found: list[int]) -> None:
    request = f"GET {PATH} HTTP/1.1\r\nHost: api\r\nAuthorization: Bearer {secret}\r\n\r\n".encode()
    allowed = 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        while calls:
            some = min(calls, AT_ONCE)
            connection.sendall(request * some)
            answers = b""
            while answers.count(b"HTTP/1.1 ") < some or not answers.endswith(b"\r\n\r\n"):
                more = connection.recv(65_536)
                assert more, "nginx closed the connection"
                answers += more
            allowed += answers.count(b"HTTP/1.1 204")
            calls -= some
    found.append(allowed)


def _make_calls(port: int, secret: str, calls: int) -> int:
    found: list[int] = []
    shares = [calls // THREADS + (number < calls % THREADS) for number in range(THREADS)]
    threads = [threading.Thread(target=_ask, args=(port, secret, share, found)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == THREADS, "a client failed"
    return sum(found)


def run(calls: int, secret: str, environment: Mapping[str, str], folder: Path, *, workers: int = 2) -> Counts:
    """Make the calls, end everything in peace, and count."""
    from django.db import connections

    from tests.e2e import proxies

    api, accesses = free_port(), folder / "access.log"

    def edit(recipe: str) -> str:
        """An API in nginx itself, a log, and connections that last."""
        recipe = recipe.replace("127.0.0.1:9000", f"127.0.0.1:{api}")
        recipe = recipe.replace(
            "listen 8080;", f"listen 8080; access_log {accesses} combined; keepalive_requests 1000000000;"
        )
        return f"{recipe}\nserver {{ listen 127.0.0.1:{api}; location / {{ return 204; }} }}\n"

    served = {**environment, "TRUSTED_PROXIES": "127.0.0.1/32"}
    with Server(served, "--workers", str(workers), log=folder / "log") as server, proxies.recorder() as idle:
        with proxies.running("nginx", folder, server.port, idle, edit) as front:
            client = _make_calls(front.port, secret, calls)
        assert server.stop(seconds=60) == 0
    connections.close_all()
    with accesses.open() as lines:
        nginx = sum(line.split('" ')[1].startswith("204 ") for line in lines)
    return Counts(client, nginx, *_counted(secret, environment))


def _counted(secret: str, environment: Mapping[str, str]) -> tuple[int, int, int]:
    """The key's allowed calls in journals, roll-ups and export."""
    from django.db.models import Sum

    from keys import tokens
    from keys.models import Secret
    from usage.models import Rollup, Segment

    key = Secret.objects.select_related("key").get(digest=tokens.digest(secret)).key
    sums = [segment.sums.get("VALID/requests", [0, 0])[0] for segment in Segment.objects.all()]
    rows = Rollup.objects.filter(key=key, outcome="VALID")
    rollups = rows.aggregate(calls=Sum("calls"))["calls"] or 0
    exported = 0
    for month in sorted({f"{row.booked_period:%Y-%m}" for row in rows}):
        done = subprocess.run(
            [sys.executable, str(ROOT / "manage.py"), *_EXPORT, "--period", month],
            env=dict(environment),
            capture_output=True,
            text=True,
            check=True,
        )
        lines = csv.DictReader(io.StringIO(done.stdout))
        exported += sum(int(line["quantity"]) for line in lines if line["key"] == key.public_id)
    return sum(sums), rollups, exported


def figures(counts: Counts) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts._asdict().items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000)
    options = parser.parse_args()
    with (
        alone.portal(os.environ.get("DATABASE_URL", "")) as (environment, _),
        tempfile.TemporaryDirectory(prefix="latchkey-million-") as name,
    ):
        from tests import builders

        organization = builders.organization("million")
        secret = builders.key(organization, scopes=(SCOPE,)).plaintext
        began = time.monotonic()
        counts = run(options.calls, secret, environment, Path(name))
        print(f"{figures(counts)}; {time.monotonic() - began:.0f} s")
        if not counts.are_equal or counts.client != options.calls:
            sys.exit("They differ.")


if __name__ == "__main__":
    main()
