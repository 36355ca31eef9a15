"""A real `serve` for tests: started on a free port, asked over HTTP, ended or killed with all it started."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.waiting import until

ROOT = Path(__file__).resolve().parent.parent.parent


class Response(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, from /proc."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = int(fields[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pids: list[int], seconds: float) -> None:
    """Wait for processes to end; fails with those that have not."""

    def left() -> list[int]:
        return [pid for pid in pids if is_running(pid)]

    until(lambda: not left(), seconds, why=lambda: f"still running: {left()}")


RENAMED = "import os, socket, sys; socket.sethostname(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"


def on_host(name: str) -> list[str]:
    """What to put before a command so that its machine has this name (in a namespace of its own)."""
    if not name:
        return []
    as_root = ["--map-root-user"] if os.geteuid() else []
    return ["unshare", *as_root, "--uts", sys.executable, "-c", RENAMED, name]


class Server:
    """`manage.py serve` with the given options, in a context that leaves no process behind."""

    ready_seconds = 30.0  # how long it may take to be ready; with very many keys more

    def __init__(
        self,
        environment: Mapping[str, str],
        *options: str,
        log: Path,
        port: int | None = None,
        host: str = "",
        before: Sequence[str] = (),
    ) -> None:
        """With `host` it believes itself to be on a machine of that name. What is `before` the command must
        become it, in the same process."""
        self.port = port or free_port()
        self.log = log
        self._out = log.open("ab")
        command = [*before, *on_host(host), sys.executable, str(ROOT / "manage.py"), "serve"]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port), *options],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def get(self, path: str, *, timeout: float = 10, **headers: str) -> Response:
        return self.request("GET", path, timeout=timeout, **headers)

    def request(
        self, method: str, path: str, body: str | None = None, *, timeout: float = 10, **headers: str
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, headers=sent)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        finally:
            connection.close()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.ready_seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.get("/readyz", timeout=2).status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"serve is not ready:\n{self.log.read_text()[-4000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        """Ask it to end; returns its exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)

    def wait_for_log(self, text: str, seconds: float = 30) -> None:
        """Return once its log has this text."""
        until(lambda: text in self.log.read_text(), seconds, why=lambda: self.log.read_text()[-4000:])

    def hang_up(self) -> None:
        """Ask it to begin again with the code and settings as they are now."""
        self.process.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """SIGKILL to everything it started, at once."""
        self._out.close()
        everything = [self.process.pid, *descendants(self.process.pid)]
        for pid in everything:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        wait_until_gone(everything, 5)
