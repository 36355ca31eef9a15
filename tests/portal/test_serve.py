"""`serve` as a process: what it refuses, what it keeps alive, and that it leaves nothing behind."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from pytest_django import Settings

from keys import lifecycle
from keys.directory import Directory
from portal import restart, serving
from portal.management.commands import serve
from portal.management.commands.serve import build_static_files
from tests.builders import environment, key, organization
from tests.faults.server import Server, descendants, free_port, wait_until_gone
from tests.waiting import until
from usage import client, metering
from usage.models import Rollup, Spool

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def issued(journal_dir: Path) -> lifecycle.Issued:
    return key(organization("acme"))


@pytest.fixture
def server(issued: lifecycle.Issued, tmp_path: Path) -> Iterator[Server]:
    with Server(environment(), log=tmp_path / "log") as server:
        yield server


def manage(*arguments: str, **overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(django_settings.BASE_DIR / "manage.py"), *arguments],
        env=environment(**overrides),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_it_serves_gateway_pages_and_health_and_counts(server: Server, issued: lifecycle.Issued) -> None:
    assert server.get("/healthz").body == b"ok\n"
    assert json.loads(server.get("/readyz").body) == {"ready": True, "reasons": []}
    allowed = server.get("/gateway/authorize", Authorization=f"Bearer {issued.plaintext}")
    assert (allowed.status, allowed.headers["X-Portal-Key"]) == (200, issued.key.public_id)
    page = server.get("/")
    assert page.status == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    until(Rollup.objects.filter(outcome="VALID").exists, 60, why=server.log.read_text)
    assert Rollup.objects.get().calls == 1


# For machines without curl: as much of it as README's line needs.
CURL = f"""
curl() {{ {sys.executable} - "$@" <<'PYTHON'
import sys, urllib.request
_, _, url, _, authorization, _, kind, _, body = sys.argv
headers = dict(each.split(": ", 1) for each in (authorization, kind))
print(urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers)).read().decode())
PYTHON
}}
"""


def test_the_readmes_call_to_the_machine_api_works(server: Server, issued: lifecycle.Issued) -> None:
    text = (django_settings.BASE_DIR / "README.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    (script,) = [block for block in blocks if "/v1/keys/verify" in block]
    script = script.replace("uv run manage.py", f"{sys.executable} manage.py")
    script = script.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
    if shutil.which("curl") is None:
        script = CURL + script
    done = subprocess.run(
        ["sh", "-c", script], cwd=django_settings.BASE_DIR, env=environment(KEY=issued.plaintext),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    assert (answer["code"], answer["organization"]["slug"]) == ("INSUFFICIENT_SCOPE", "acme")


def test_a_body_in_chunks_is_read_and_one_that_is_too_large_refused(
    server: Server, issued: lifecycle.Issued
) -> None:
    verifier = key(organization("provider"), scopes=("portal:verify",)).plaintext

    def verify(*chunks: bytes) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        headers = {"Authorization": f"Bearer {verifier}", "Content-Type": "application/json"}
        connection.request("POST", "/v1/keys/verify", iter(chunks), headers, encode_chunked=True)
        answer = connection.getresponse()
        code = json.loads(answer.read())["code"]
        connection.close()
        return answer.status, code

    body = json.dumps({"key": issued.plaintext}).encode()
    space = b" " * (1_048_576 - len(body))
    assert verify(body[:5], body[5:]) == (200, "VALID")
    assert verify(body, space) == (200, "VALID")
    assert verify(body, space, b" ") == (413, "TOO_LARGE")
    assert verify(body[:-1]) == (400, "BAD_REQUEST")
    assert verify() == (422, "INVALID")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_counts_what_is_left(
    server: Server, issued: lifecycle.Issued, number: signal.Signals
) -> None:
    for _ in range(5):
        server.get("/gateway/authorize", X_API_Key=issued.plaintext)
    children = descendants(server.process.pid)
    assert len(children) == 2
    assert server.stop(number, seconds=15) == 0
    wait_until_gone(children, 1)
    assert "Traceback" not in server.log.read_text()
    assert Rollup.objects.get().calls == 5
    assert Spool.objects.filter(finished_at=None).count() == 0


def test_without_a_worker_it_counts_what_it_answered_on_its_way_out(
    issued: lifecycle.Issued, journal_dir: Path, tmp_path: Path
) -> None:
    """As a container does, where the worker is another: nobody may ever look at this disk again."""
    with Server(environment(), "--no-worker", log=tmp_path / "log") as server:
        for _ in range(5):
            assert server.get("/gateway/authorize", X_API_Key=issued.plaintext).status == 200
        assert not Rollup.objects.exists()
        assert server.stop(signal.SIGTERM) == 0
    assert Rollup.objects.get().calls == 5
    assert Spool.objects.get().finished_at is not None
    assert [path.name for path in journal_dir.iterdir()] == ["drained"]


def test_its_children_end_when_it_is_killed_and_the_port_is_free(server: Server) -> None:
    children = descendants(server.process.pid)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    wait_until_gone(children, 60)  # one that has just begun reads that on a busy machine, too
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", server.port))


def test_a_killed_child_is_replaced(server: Server, issued: lifecycle.Issued) -> None:
    before = set(descendants(server.process.pid))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(descendants(server.process.pid)) - before) >= 2, 60, why=server.log.read_text)
    server.wait_until_ready()
    assert server.get("/gateway/authorize", X_API_Key=issued.plaintext).status == 200


def test_fifty_hanging_pages_do_not_stall_the_gateway_nor_the_end(
    server: Server, issued: lifecycle.Issued
) -> None:
    """Each begins a form that it never finishes, so that its page waits for the rest."""
    head = (
        b"POST /accounts/login/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5000\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\n"
        b"Cookie: csrftoken=" + b"a" * 32 + b"\r\n\r\nlogin=a"
    )
    hanging = []
    try:
        for _ in range(50):
            hanging.append(socket.create_connection(("127.0.0.1", server.port)))
            hanging[-1].sendall(head)
        began = time.monotonic()
        for _ in range(200):
            answer = server.get("/gateway/authorize", timeout=2, X_API_Key=issued.plaintext)
            assert answer.status == 200
        assert time.monotonic() - began < 5
        assert server.get("/healthz", timeout=2).status == 200
        refused = server.get("/", timeout=10)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "2")
        assert server.stop(seconds=20) in (0, 1)
    finally:
        for connection in hanging:
            connection.close()


def test_hanging_pages_and_calls_leave_each_other_and_the_gateway_alone(
    server: Server, issued: lifecycle.Issued
) -> None:
    """A body that does not come holds a call of the machine API up, if its caller has a key; a stranger's is
    refused before it is read."""

    def begin(path: str, *headers: str) -> socket.socket:
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Length: 5000", *headers]
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
        hanging.append(connection)
        connection.sendall("\r\n".join([*lines, "", '{"key": "a']).encode())
        return connection

    kind = "Content-Type: application/json"
    hanging: list[socket.socket] = []
    try:
        for _ in range(40):
            stranger = begin("/v1/keys/verify", kind, "X-API-Key: junk")
            assert stranger.recv(12) == b"HTTP/1.1 401"
        verifier = key(issued.key.organization, scopes=("portal:verify",))
        until(lambda: server.get("/v1/me", X_API_Key=verifier.plaintext).status == 200, 60)
        for _ in range(40):
            begin("/v1/keys/verify", kind, f"X-API-Key: {verifier.plaintext}")
        # All have arrived.
        until(lambda: server.get("/v1/me", X_API_Key=issued.plaintext).status == 503, 60)
        assert server.get("/").status == 200
        for _ in range(40):
            begin(
                "/accounts/login/",
                "Content-Type: application/x-www-form-urlencoded",
                "Cookie: csrftoken=" + "a" * 32,
            )
        began = time.monotonic()
        for _ in range(100):
            assert server.get("/gateway/authorize", timeout=2, X_API_Key=issued.plaintext).status == 200
        assert time.monotonic() - began < 5
        refused = server.get("/v1/me", X_API_Key=issued.plaintext)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert json.loads(refused.body)["code"] == "UNAVAILABLE"
    finally:
        for connection in hanging:
            connection.close()


def test_a_taken_port_is_one_clear_sentence(db: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = manage("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"127.0.0.1:{port} is taken by another process; choose another port with --port."
    ]


@pytest.mark.parametrize("options", [["--port", "0"], ["--workers", "0"], ["--role", "x"], ["--nope"]])
def test_bad_arguments_end_with_2(options: list[str]) -> None:
    done = manage("serve", *options)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_it_refuses_a_database_without_its_tables(tmp_path: Path) -> None:
    done = manage("serve", "--port", str(free_port()), DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_refuses_unsafe_settings(tmp_path: Path) -> None:
    done = manage("serve", "--port", str(free_port()), SECRET_KEY="")
    assert done.returncode == 1
    assert "portal.E001" in done.stderr


def test_roles_answer_their_own_part_only(issued: lifecycle.Issued, tmp_path: Path) -> None:
    with Server(environment(), "--role", "gateway", "--no-worker", log=tmp_path / "log") as gateway:
        assert len(descendants(gateway.process.pid)) == 1
        assert gateway.get("/gateway/authorize", X_API_Key=issued.plaintext).status == 200
        assert gateway.get("/").status == 404
        assert gateway.get("/v1/me", X_API_Key=issued.plaintext).status == 404
    with Server(environment(), "--role", "portal", "--no-worker", log=tmp_path / "log") as portal:
        assert portal.get("/").status == 200
        assert portal.get("/gateway/authorize", X_API_Key=issued.plaintext).status == 404
        # Its pages did not wait for the keys; the machine API says 503 until they are known.
        until(lambda: portal.get("/v1/me", X_API_Key=issued.plaintext).status != 503, 60)
        mine = json.loads(portal.get("/v1/me", X_API_Key=issued.plaintext).body)
        assert mine["key"]["id"] == issued.key.public_id


def test_the_environments_secrets_are_not_in_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_KEY", "s")
    monkeypatch.setenv("DATABASE_URL", "postgres://user:password@host/name")
    serving.load("portal.wsgi:pages")
    assert "DATABASE_URL" not in os.environ
    assert "SECRET_KEY" not in os.environ


def test_the_portals_role_follows_the_keys_without_waiting_for_them(
    journal_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine API needs them; its pages do not."""
    for name in serving._SECRET_VARIABLES:  # which go; the tests that follow get theirs back
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(Directory, "start", lambda directory: None)  # so that they are never known
    began = time.monotonic()
    serving.load("portal.wsgi:pages")
    assert time.monotonic() - began < serving.KEYS_SECONDS
    assert metering.process is not None
    began = time.monotonic()
    serving.load("portal.wsgi:application", patience=0.2)
    assert time.monotonic() - began >= 0.2


def test_a_new_process_takes_its_time_only_while_old_ones_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    patience: list[float] = []
    monkeypatch.setattr(serving, "load", lambda target, seconds: patience.append(seconds))
    with socket.socket() as listener, subprocess.Popen(["sleep", "60"]) as old:
        before = restart.Predecessor(listener, [old.pid])
        serve._load(None, "portal.wsgi:application")
        serve._load(before, "portal.wsgi:application")
        before.end()
        serve._load(before, "portal.wsgi:application")
    assert patience == [serving.KEYS_SECONDS, restart.READY_SECONDS, serving.KEYS_SECONDS]


# --- beside Django, in this process ----------------------------------------------------------------


def ask(path: str, **environ: str) -> tuple[str, bytes]:
    """One call of the WSGI callable, as the server makes it."""
    from portal import wsgi

    started: list[str] = []
    request = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    }
    body = b"".join(wsgi.application(request | environ, lambda status, *_: started.append(status)))
    return started[0], body


def test_not_ready_says_why(journal_dir: Path) -> None:
    metering.start(Directory(process_id="cold", lock_dir=journal_dir))
    try:
        journal_dir.rmdir()
        journal_dir.write_text("in the way")
        status, body = ask("/readyz")
    finally:
        metering.stop()
    assert status == "503 Service Unavailable"
    keys_reason, journal_reason = json.loads(body)["reasons"]
    assert "loaded" in keys_reason
    assert journal_reason.startswith("the journal: ")
    assert ask("/healthz") == ("200 OK", b"ok\n")


def test_without_a_place_for_the_journal_it_is_alive_and_refuses(
    settings: Settings, tmp_path: Path, issued: lifecycle.Issued
) -> None:
    """A disk that went away after the start; at the start a system check refuses it."""
    settings.USAGE_JOURNAL_DIR = tmp_path / "file"
    settings.USAGE_JOURNAL_DIR.write_text("")
    metering.stop()
    assert b"the journal: " in ask("/readyz")[1]
    assert ask("/healthz")[0] == "200 OK"
    refused = ask("/gateway/authorize", HTTP_X_API_KEY=issued.plaintext)
    assert refused[0] == "503 Service Unavailable"


def test_a_page_gives_its_place_back(journal_dir: Path) -> None:
    from portal import wsgi

    paths = ["/", "/nowhere/", "/static/css/base.css", "/accounts/login/"]
    for _ in range(wsgi.PAGES.running):
        for path in paths:
            assert not ask(path)[0].startswith("5")


def test_pages_get_the_address_and_scheme_behind_a_trusted_proxy(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portal import wsgi

    seen = []

    def django(environ: dict[str, str], start_response: object) -> list[bytes]:
        seen.append((environ["REMOTE_ADDR"], environ["wsgi.url_scheme"]))
        return []

    monkeypatch.setattr(wsgi, "_django", django)
    forwarded = {
        "HTTP_X_FORWARDED_FOR": "192.0.2.1, 198.51.100.7:4711",
        "HTTP_X_FORWARDED_PROTO": "https",
    }
    for trusted in ([], ["127.0.0.1/32"], ["127.0.0.1/32", "198.51.100.0/24"]):
        settings.TRUSTED_PROXIES = trusted
        with suppress(IndexError):
            ask("/", **forwarded)
    assert seen == [("127.0.0.1", "http"), ("198.51.100.7", "https"), ("192.0.2.1", "https")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", None, "127.0.0.1"),
        ("203.0.113.5", "192.0.2.1", "203.0.113.5"),
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "6.6.6.6,192.0.2.1 , 10.0.0.3", "192.0.2.1"),
        ("127.0.0.1", "10.0.0.4, 10.0.0.3", "10.0.0.4"),
        ("127.0.0.1", "[2001:db8::1]:5, 10.0.0.3", "2001:db8::1"),
        ("127.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("127.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1:567", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1, unknown, 10.0.0.3", "10.0.0.3"),
        ("127.0.0.1", "192.0.2.1, junk", "127.0.0.1"),
        ("127.0.0.1", "", ""),
        ("127.0.0.1", "fe80::1%eth0", "127.0.0.1"),
        ("junk", "192.0.2.1", ""),
    ],
)
def test_the_client_is_the_last_hop_that_is_not_ours(
    settings: Settings, peer: str, forwarded: str | None, address: str
) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.0/8", "10.0.0.0/8"]
    environ = {"REMOTE_ADDR": peer}
    if forwarded is not None:
        environ["HTTP_X_FORWARDED_FOR"] = forwarded
    assert client.address(environ) == address


def test_static_files_that_are_gone_are_built_again(settings: Settings, tmp_path: Path) -> None:
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
    build_static_files()
    manifest = settings.STATIC_ROOT / "staticfiles.json"
    style = settings.STATIC_ROOT / json.loads(manifest.read_text())["paths"]["css/base.css"]
    style.unlink()
    build_static_files()
    assert style.exists()


def test_static_files_that_are_built_may_be_where_nobody_writes(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.STATIC_ROOT = tmp_path / "static"
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
    build_static_files()
    lock = tmp_path / "static.lock"
    lock.unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)  # root may write everywhere
    build_static_files()
    assert not lock.exists()


def test_a_megabyte_in_a_header_is_refused_with_a_code(server: Server) -> None:
    huge = server.get("/gateway/authorize", Authorization="Bearer " + "x" * 1_048_576)
    assert (huge.status, huge.headers["X-Portal-Code"]) == (401, "MALFORMED")
