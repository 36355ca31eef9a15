"""README's nginx, word for word but for the ports, in front of an API that says what reached it."""

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
from django.conf import settings
from django.utils import timezone

from keys import lifecycle
from keys.lifecycle import Issued
from tests import builders
from tests.faults.server import Server, free_port

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]

_AROUND = """
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {readme}
}}
"""


class Api(BaseHTTPRequestHandler):
    """The provider's API: answers with what it was sent."""

    def do_GET(self) -> None:
        body = json.dumps({"path": self.path, "headers": [[k.lower(), v] for k, v in self.headers.items()]})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def _lower(headers: Message) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class Front:
    def __init__(self, port: int, issued: Issued) -> None:
        self.port = port
        self.issued = issued

    def get(self, path: str = "/orders/1", **headers: str) -> Answer:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        for name, value in headers.items():
            request.add_header(name.replace("__", "\0").replace("_", "-").replace("\0", "_"), value)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return Answer(response.status, _lower(response.headers), response.read())
        except urllib.error.HTTPError as error:
            return Answer(error.code, _lower(error.headers), error.read())


@pytest.fixture
def front(journal_dir: Path, tmp_path: Path) -> Iterator[Front]:
    acme = builders.organization("acme")
    issued = builders.key(acme, scopes=("orders:read",))
    api = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=api.serve_forever, daemon=True).start()
    environment = builders.environment(TRUSTED_PROXIES="127.0.0.1/32")
    with Server(environment, "--no-worker", log=tmp_path / "log") as portal:
        blocks = re.findall(r"```nginx\n(.*?)```", (settings.BASE_DIR / "README.md").read_text(), re.DOTALL)
        port = free_port()
        text = (
            "".join(blocks)
            .replace("127.0.0.1:8000", f"127.0.0.1:{portal.port}")
            .replace("127.0.0.1:9000", f"127.0.0.1:{api.server_port}")
            .replace("listen 8080", f"listen 127.0.0.1:{port}")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(_AROUND.format(folder=tmp_path, readme=text))
        nginx = subprocess.Popen([str(NGINX), "-p", str(tmp_path), "-c", str(config)])
        try:
            front = Front(port, issued)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                try:
                    front.get("/")
                    break
                except OSError:
                    time.sleep(0.05)
            yield front
        finally:
            nginx.terminate()
            nginx.wait(10)
            api.shutdown()
            api.server_close()


def test_the_api_learns_who_calls_and_never_sees_the_key(front: Front) -> None:
    answer = front.get(
        authorization=f"Bearer {front.issued.plaintext}",
        x_portal_organization="umbrella",
        x_portal_key="key_forged",
        x_portal_rule="cost=0",
        x__portal__organization="umbrella",
    )
    assert answer.status == 200
    assert front.issued.plaintext.encode() not in answer.body
    sent = json.loads(answer.body)["headers"]
    organizations = [value for name, value in sent if name.replace("_", "-") == "x-portal-organization"]
    assert organizations == ["acme"]
    headers = dict(sent)
    assert headers["x-portal-key"] == front.issued.key.public_id
    assert headers["x-portal-scopes"] == "orders:read"
    assert headers["x-portal-request"]
    assert "authorization" not in headers
    assert "x-api-key" not in headers
    assert "x-portal-rule" not in headers


def test_refusals_reach_the_client_as_what_they_are(front: Front) -> None:
    key = front.issued.key
    assert front.get().status == 401
    wrong = front.get(authorization="Bearer lk_live_nonsense")
    assert wrong.status == 401
    assert "invalid_token" in wrong.headers["www-authenticate"]
    bearer = {"authorization": f"Bearer {front.issued.plaintext}"}
    assert front.get("/orders/1?cost=0&deny=200&scope=", **bearer).status == 200

    preflight = {"x_original_method": "OPTIONS", "access_control_request_method": "GET"}
    assert front.get(**preflight).status == 401  # the method is the proxy's word, not the client's

    lifecycle.edit_key(lifecycle.command_actor(), key, scopes=[], now=timezone.now())
    assert _becomes(front, bearer, 403).status == 403
    lifecycle.edit_key(
        lifecycle.command_actor(), key, scopes=["orders:read"], rates=["1/hour"], now=timezone.now()
    )
    limited = _becomes(front, bearer, 429)
    assert int(limited.headers["retry-after"]) > 0
    both = front.get(x_api_key=front.issued.plaintext, authorization="Bearer lk_live_another")
    assert both.status == 400


def test_a_key_limited_to_a_network_is_checked_against_the_clients_address(front: Front) -> None:
    bearer = {"authorization": f"Bearer {front.issued.plaintext}", "x_forwarded_for": "203.0.113.9"}
    key = front.issued.key
    lifecycle.edit_key(lifecycle.command_actor(), key, networks=["203.0.113.0/24"], now=timezone.now())
    assert _becomes(front, bearer, 403).status == 403  # the forged address is not believed
    lifecycle.edit_key(lifecycle.command_actor(), key, networks=["127.0.0.1/32"], now=timezone.now())
    assert _becomes(front, bearer, 200).status == 200


def _becomes(front: Front, headers: dict[str, str], status: int) -> Answer:
    """Ask until the act has reached the gateway, a quarter of a second at most in health."""
    deadline = time.monotonic() + 5
    while (answer := front.get(**headers)).status != status and time.monotonic() < deadline:
        time.sleep(0.02)
    return answer
