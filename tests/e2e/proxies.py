"""The recipes of usage/recipes/ in their real proxies, word for word but for the ports, and what is around.

That is an API and a stub of the portal, which remember what reached them, and a client that sends exactly
what it is told to.
"""

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from django.conf import settings

from tests.faults.server import free_port

RECIPES: Path = settings.BASE_DIR / "usage" / "recipes"
NAMES = ("nginx", "caddy", "haproxy", "envoy")
_PLACES = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
_AROUND_NGINX = """
{user} daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {recipe}
}}
"""


class Call(NamedTuple):
    """A request as it reached a server; names of headers as they were written."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value under this name, in any of the spellings that a server could take for it."""
        wanted = re.sub("[^a-z0-9]", "-", name.lower())
        return [value for key, value in self.headers if re.sub("[^a-z0-9]", "-", key.lower()) == wanted]


class Answer(NamedTuple):
    """What the client got; names of headers in lower case. The status 0 is a closed connection."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        parsed: dict[str, object] = json.loads(self.body)
        return parsed


class Recorder(ThreadingHTTPServer):
    """A server that keeps every call, and answers each with `status`, `answers` and `body`."""

    CLOSED = 0  # as a status: the connection ends without an answer
    SILENT = -1  # and here it does not even end

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[Call] = []
        self.status = 200
        self.answers: dict[str, str] = {}
        self.body = b""
        self.ends = threading.Event()
        self.clients: set[int] = set()  # their ports: one a connection

    @property
    def last(self) -> Call:
        return self.calls[-1]


class _Handler(BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _answer(self) -> None:
        body = self._body()
        self.server.clients.add(self.client_address[1])
        self.server.calls.append(Call(self.command, self.path, list(self.headers.items()), body))
        if self.server.status == Recorder.SILENT:
            self.server.ends.wait(60)
        if self.server.status in (Recorder.CLOSED, Recorder.SILENT):
            self.close_connection = True
            return
        self.send_response(self.server.status)
        for name, value in self.server.answers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.server.body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # whatever the method is
            return self._answer
        raise AttributeError(name)

    def handle(self) -> None:
        with suppress(ConnectionError):  # a proxy that ends, or thinks better of it
            super().handle()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def recorder() -> Iterator[Recorder]:
    """A `Recorder` that serves in a thread."""
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield server
        finally:
            server.ends.set()
            server.shutdown()


class Front:
    """A proxy that runs, and the API behind it."""

    def __init__(self, port: int, api: Recorder) -> None:
        self.port = port
        self.api = api

    def ask(
        self, path: str = "/orders/1", *headers: tuple[str, str], method: str = "GET", body: bytes = b""
    ) -> Answer:
        """Send this, with nothing made better on the way."""
        sent = [("Host", "api.example.com"), *headers]
        if not any(name.lower() == "connection" for name, _ in headers):
            sent.append(("Connection", "close"))
        if body:
            sent.append(("Content-Length", str(len(body))))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent), "", ""]
        return self.raw("\r\n".join(lines).encode("latin-1") + body, method)

    def raw(self, data: bytes, method: str = "GET") -> Answer:
        """The first answer to these bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as connection:
            with suppress(OSError):  # refused before it was read to the end; the answer may be there
                connection.sendall(data)
            try:
                response = http.client.HTTPResponse(connection, method=method)
                response.begin()
            except (http.client.HTTPException, ConnectionError):
                return Answer(0, {}, b"")
            try:
                body = response.read()
            except ConnectionError:
                body = b""  # reset, because there was more to read than the proxy cared for
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, headers, body)


def binary(name: str) -> str | None:
    """Where this proxy is, if it is on this machine."""
    return shutil.which(name, path=_PLACES)


def _unchanged(text: str) -> str:
    return text


@contextmanager
def running(
    name: str, folder: Path, portal: int, api: Recorder, edit: Callable[[str], str] = _unchanged
) -> Iterator[Front]:
    """The proxy of this name with its recipe, before a portal (its port) and an API.

    A test that asks what would happen without some word of the recipe may `edit` its text.
    """
    port = free_port()
    ports = {"8000": portal, "9000": api.server_port, "8080": port}

    def place(file: str) -> Path:
        text = edit((RECIPES / file).read_text())
        if file == "haproxy.cfg":
            text = text.replace("/etc/haproxy/", f"{folder}/")
        text = re.sub(r"\b(8000|9000|8080)\b", lambda found: str(ports[found[0]]), text)
        path = folder / file
        if name == "nginx":  # whose workers would else be somebody who may not write to this folder
            user = "user root;" if os.geteuid() == 0 else ""
            text = _AROUND_NGINX.format(folder=folder, recipe=text, user=user)
        path.write_text(text)
        return path

    match name:
        case "nginx":
            options = ["-p", str(folder), "-c", str(place("nginx.conf"))]
        case "caddy":
            options = ["run", "--adapter", "caddyfile", "--config", str(place("Caddyfile"))]
        case "haproxy":
            place("haproxy-portal.lua")
            options = ["-db", "-f", str(place("haproxy.cfg"))]
        case _:
            options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
            options += ["-c", str(place("envoy.yaml"))]
    own = {"HOME": str(folder), "CADDY_ADMIN": f"unix/{folder}/admin", "XDG_DATA_HOME": str(folder)}
    log = folder / "proxy.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(binary(name)), *options],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=os.environ | own,
            cwd=folder,
        )
    try:
        _wait_until_it_listens(port, process, log)
        yield Front(port, api)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError(f"the proxy does not listen:\n{log.read_text()[-4000:]}")
