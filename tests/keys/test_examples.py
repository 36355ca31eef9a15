"""Examples of a first call: what they call, and that no key is in them but the one that was meant."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pytest_django import Settings

from keys import examples

LANGUAGES = ["curl", "python", "javascript", "go"]


def texts(credential: str = "", scopes: tuple[str, ...] = ()) -> dict[str, str]:
    return {each.language: each.text for each in examples.first_call(credential, scopes).snippets}


def test_each_language_has_the_key_once() -> None:
    found = texts("lk_live_secret")
    assert list(found) == LANGUAGES
    assert {language: text.count("lk_live_secret") for language, text in found.items()} == dict.fromkeys(
        LANGUAGES, 1
    )


def test_without_a_key_each_reads_it_from_the_environment() -> None:
    for text in texts().values():
        assert "API_KEY" in text


def test_here_the_gateway_is_asked_with_the_first_scope() -> None:
    assert texts()["curl"].endswith('/gateway/authorize"')
    for text in texts("KEY", ("a:b", "c:d")).values():
        assert '/gateway/authorize?scope=a:b"' in text


def test_elsewhere_the_gateway_answers_nobody_so_the_key_asks_about_itself(settings: Settings) -> None:
    settings.PORTAL_IS_HTTPS = True
    for text in texts("KEY", ("a:b",)).values():
        assert '/v1/me"' in text


def test_the_providers_own_address_goes_before_both(settings: Settings) -> None:
    settings.API_URL = "https://api.example.com/v1/tiles"
    settings.PORTAL_IS_HTTPS = True
    for text in texts("KEY", ("a:b",)).values():
        assert '"https://api.example.com/v1/tiles"' in text


@pytest.mark.parametrize("credential", ["", "lk_live_secret"])
def test_the_python_runs_as_it_stands(settings: Settings, credential: str) -> None:
    seen = []

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.handle_request).start()
        settings.API_URL = f"http://127.0.0.1:{server.server_port}/v1/tiles"
        done = subprocess.run(
            [sys.executable, "-c", texts(credential)["python"]],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
            env={"API_KEY": "lk_live_secret"},
        )
    assert done.stdout == "200 hello\n"
    assert seen == ["Bearer lk_live_secret"]
