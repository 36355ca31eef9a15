"""Leaks that GitHub reports: signatures by a real key, every forged variant, and what is done about a key."""

import datetime as dt
import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from keys import audit, lifecycle, tokens
from keys.models import Key, LeakReport, Organization
from keys.permissions import Role
from portal import github
from portal.models import Mail
from tests import builders
from tests.portal.api import problem
from tests.threads import at_once

pytestmark = pytest.mark.django_db

URL = "/v1/leaks/github"
PLACE = "https://github.com/acme/code/blob/1a2b/settings.py"
SIGNER = ec.generate_private_key(ec.SECP256R1())
OLDER = ec.generate_private_key(ec.SECP256R1())


def listed(name: str, key: Any) -> dict[str, object]:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return {"key_identifier": name, "key": pem, "is_current": name == "now"}


class GitHub:
    """An HTTP server with GitHub's public keys; `content` is what it answers, None: an error."""

    def __init__(self) -> None:
        self.asked = 0
        self.content: bytes | None = json.dumps(
            {"public_keys": [listed("now", SIGNER), listed("older", OLDER)]}
        ).encode()


@pytest.fixture
def keys_of_github(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    state = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked += 1
            if self.path == "/redirect":
                self.send_response(302)
                self.send_header("Location", "/keys")
                self.end_headers()
                return
            self.send_response(200 if state.content is not None else 500)
            self.end_headers()
            self.wfile.write(state.content or b"")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    settings.GITHUB_KEYS_URL = f"http://127.0.0.1:{server.server_port}/keys"
    monkeypatch.setattr(github, "public_keys", github.PublicKeys())
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def acme(keys_of_github: GitHub) -> Organization:
    return builders.organization("acme", builders.user("alice"))


def signed(body: bytes, key: Any = SIGNER) -> str:
    return b64encode(key.sign(body, ec.ECDSA(SHA256()))).decode()


def send(body: object, *, name: str = "now", signature: str | None = None, **more: Any) -> Any:
    """GitHub's POST of this list (bytes as they are); `signature` instead of the true one."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {
        "Github-Public-Key-Identifier": name,
        "Github-Public-Key-Signature": signed(content) if signature is None else signature,
    }
    return Client(enforce_csrf_checks=True).post(
        URL, content, content_type=more.get("kind", "application/json"), headers=headers
    )


def entry(issued: lifecycle.Issued, place: str = PLACE) -> dict[str, str]:
    return {"token": issued.plaintext, "type": "latchkey", "url": place, "source": "content"}


def state_of(key: Key) -> str:
    return str(builders.reloaded(key).state_at(builders.NOW))


# --- what is done ----------------------------------------------------------------------------------


def test_a_live_key_is_revoked_and_a_test_key_is_disabled(acme: Organization) -> None:
    live, test = builders.key(acme), builders.key(acme, environment="test")
    response = send([entry(live), entry(test)])
    assert (response.status_code, response.content) == (204, b"")
    assert (state_of(live.key), state_of(test.key)) == ("revoked", "disabled")
    acts = [event.act for event in live.key.events.order_by("number")]
    assert acts == ["key.created", "key.leaked", "key.revoked"]
    assert builders.reloaded(live.key).revoked_reason == "Leaked; reported by GitHub secret scanning"
    report = LeakReport.objects.get(key=live.key)
    assert (report.place, report.source, report.response) == (PLACE, "content", "revoke")
    assert not list(audit.broken_links())


@pytest.mark.parametrize(
    ("response", "state"), [("revoke", "revoked"), ("disable", "disabled"), ("notify", "active")]
)
def test_the_settings_say_what_is_done(
    acme: Organization, settings: Settings, response: str, state: str
) -> None:
    settings.LEAK_RESPONSE_LIVE = response
    issued = builders.key(acme)
    send([entry(issued)])
    assert state_of(issued.key) == state


def test_the_owners_and_the_keys_maker_are_told_where_without_the_key(acme: Organization) -> None:
    builders.member(builders.user("bob"), acme, Role.DEVELOPER)
    issued = builders.key(acme)
    send([entry(issued), entry(issued, "https://elsewhere.example")])
    (mail,) = Mail.objects.all()
    assert (mail.to, mail.organization) == ("alice@example.com", acme)
    assert PLACE in mail.text
    assert issued.secret.display in mail.text
    assert "revoked at once" in mail.text
    assert tokens.redact(mail.text) == mail.text


@pytest.mark.parametrize("response", ["revoke", "disable", "notify"])
def test_every_response_has_its_words(acme: Organization, settings: Settings, response: str) -> None:
    settings.LEAK_RESPONSE_LIVE = response
    send([entry(builders.key(acme))])
    assert "had stopped working" not in Mail.objects.get().text


def test_a_report_counts_once_however_often_it_is_sent(acme: Organization) -> None:
    issued = builders.key(acme)
    for _ in range(3):
        assert send([entry(issued), entry(issued)]).status_code == 204
    assert LeakReport.objects.count() == 1
    assert Mail.objects.count() == 1
    assert issued.key.events.filter(act="key.leaked").count() == 1


def test_a_key_that_no_longer_worked_is_noted_and_left_as_it_is(acme: Organization) -> None:
    issued = builders.key(acme)
    lifecycle.revoke_key(lifecycle.command_actor(), issued.key, reason="Old", now=builders.NOW)
    send([entry(issued)])
    assert LeakReport.objects.get().response == ""
    assert builders.reloaded(issued.key).revoked_reason == "Old"
    assert "had stopped working" in Mail.objects.get().text


def test_a_replaced_secret_does_not_end_its_key(acme: Organization) -> None:
    issued = builders.key(acme)
    now = timezone.now()
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=dt.timedelta(0), now=now)
    send([entry(issued)])
    assert state_of(issued.key) == "active"
    assert LeakReport.objects.get().response == ""


def test_reports_of_one_key_have_a_bound(acme: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keys.lifecycle.leaks.MOST", 3)
    issued = builders.key(acme)
    send([entry(issued, f"https://example.com/{number}") for number in range(9)])
    assert LeakReport.objects.count() == 3


@pytest.mark.parametrize("response", ["revoke", "notify"])
def test_reports_of_an_old_secret_do_not_use_up_those_of_the_next(
    acme: Organization, settings: Settings, monkeypatch: pytest.MonkeyPatch, response: str
) -> None:
    monkeypatch.setattr("keys.lifecycle.leaks.MOST", 3)
    settings.LEAK_RESPONSE_LIVE = response
    old, command = builders.key(acme), lifecycle.command_actor()
    new = lifecycle.rotate_key(command, old.key, overlap=dt.timedelta(0), now=timezone.now())
    send([entry(old, f"https://example.com/{number}") for number in range(9)])
    send([entry(new)])
    assert LeakReport.objects.get(secret=new.secret).response == response


def test_a_key_that_works_again_is_ended_however_often_it_was_reported(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keys.lifecycle.leaks.MOST", 3)
    issued = builders.key(acme, environment="test")
    send([entry(issued, f"https://example.com/{number}") for number in range(9)])
    lifecycle.enable_key(lifecycle.command_actor(), issued.key, now=timezone.now())
    send([entry(issued)])
    assert state_of(issued.key) == "disabled"


def test_what_is_told_of_a_place_can_be_shown(acme: Organization) -> None:
    issued = builders.key(acme)
    place = f"https://example.com/\x00\n\ud800?key={issued.plaintext}&" + "é" * 9000
    send([entry(issued, place)])
    stored = LeakReport.objects.get().place
    assert stored.startswith("https://example.com/?key=lk_live_[redacted]&éé")
    assert len(stored) == 500


@pytest.mark.parametrize(
    "strange",
    [None, 1, "x", [], {}, {"token": None}, {"token": 5}, {"token": "x" * 10_000}, {"token": "\x00\ud800"}],
)
def test_what_is_no_entry_does_not_keep_others_from_counting(acme: Organization, strange: object) -> None:
    issued = builders.key(acme)
    assert send([strange, {"token": issued.plaintext, "url": 7, "source": {}}]).status_code == 204
    assert state_of(issued.key) == "revoked"


# --- who may tell ----------------------------------------------------------------------------------


def test_the_answer_never_tells_what_was_found(acme: Organization) -> None:
    ours = send([entry(builders.key(acme))])
    unknown = send([{"token": tokens.mint("lk", "live").plaintext, "type": "x", "url": "", "source": ""}])
    nothing = send([])
    answers = {(each.status_code, each.content, *each.headers.items()) for each in (ours, unknown, nothing)}
    assert len(answers) == 1


def test_an_older_key_that_github_still_lists_is_good(acme: Organization) -> None:
    body = b"[]"
    assert send(body, name="older", signature=signed(body, OLDER)).status_code == 204


FORGED: dict[str, Callable[[bytes], str]] = {
    "no signature": lambda body: "",
    "another key of GitHub's": lambda body: signed(body, OLDER),
    "a stranger's key": lambda body: signed(body, ec.generate_private_key(ec.SECP256R1())),
    "another curve": lambda body: signed(body, ec.generate_private_key(ec.SECP384R1())),
    "another body": lambda body: signed(body + b" "),
    "truncated": lambda body: b64encode(SIGNER.sign(body, ec.ECDSA(SHA256()))[:-1]).decode(),
    "longer": lambda body: b64encode(SIGNER.sign(body, ec.ECDSA(SHA256())) + b"\0").decode(),
    "no base64": lambda body: "=" + signed(body)[1:],
    "not ASCII": lambda body: "é" + signed(body)[1:],
    "huge": lambda body: signed(body) * 1000,
    "zeros": lambda body: b64encode(bytes.fromhex("3006020100020100")).decode(),
}


@pytest.mark.parametrize("how", FORGED)
def test_what_github_has_not_signed_is_refused_and_nothing_is_done(acme: Organization, how: str) -> None:
    issued = builders.key(acme)
    body = json.dumps([entry(issued)]).encode()
    problem(send(body, signature=FORGED[how](body)), 400, "BAD_REQUEST")
    assert state_of(issued.key) == "active"
    assert not LeakReport.objects.exists()


@pytest.mark.parametrize("name", ["", "unknown", "NOW", "now ", "é", "x" * 5000])
def test_a_signature_under_another_name_is_refused(acme: Organization, name: str) -> None:
    problem(send([], name=name), 400, "BAD_REQUEST")


def test_a_request_without_headers_is_refused_and_fetches_nothing(keys_of_github: GitHub) -> None:
    problem(Client().post(URL, b"[]", content_type="application/json"), 400, "BAD_REQUEST")
    assert keys_of_github.asked == 0


@pytest.mark.parametrize(
    "body", [b" ", b"{}", b"null", b"[", b"\x00", b'"\xff"', b"[" * 100_000, b'{"a":1,"a":2}']
)
def test_a_body_that_is_no_list_is_refused(acme: Organization, body: bytes) -> None:
    problem(send(body), 400, "BAD_REQUEST")


def test_a_body_of_more_than_a_mebibyte_is_refused(acme: Organization) -> None:
    problem(send(b"[" + b" " * 1024**2 + b"]"), 413, "TOO_LARGE")


def test_a_list_that_is_too_long_is_refused(acme: Organization) -> None:
    problem(send([0] * 5001), 400, "BAD_REQUEST")


def test_other_methods_and_types_are_refused(acme: Organization) -> None:
    problem(Client().get(URL), 405, "METHOD_NOT_ALLOWED")
    problem(send([], kind="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE")


# --- GitHub's public keys --------------------------------------------------------------------------


def test_the_keys_are_fetched_once(acme: Organization, keys_of_github: GitHub) -> None:
    assert [send([]).status_code for _ in range(3)] == [204] * 3
    assert keys_of_github.asked == 1


def test_unknown_names_fetch_once_a_minute_at_most(keys_of_github: GitHub) -> None:
    known = github.PublicKeys()
    for second in range(180):
        known.get(f"made-up-{second}", 5000.0 + second)
    assert keys_of_github.asked == 3


def test_a_new_key_of_githubs_is_known_within_a_minute(keys_of_github: GitHub) -> None:
    known = github.PublicKeys()
    assert known.get("new", 5000.0) is None
    new = ec.generate_private_key(ec.SECP256R1())
    keys_of_github.content = json.dumps({"public_keys": [listed("new", new)]}).encode()
    assert known.get("new", 5030.0) is None
    assert known.get("new", 5060.0) is not None
    assert known.get("now", 5061.0) is None  # GitHub lists it no longer


def test_known_keys_outlive_github_for_a_day(keys_of_github: GitHub) -> None:
    known = github.PublicKeys()
    assert known.get("now", 5000.0) is not None
    keys_of_github.content = None
    assert known.get("now", 5000.0 + 86_000) is not None
    with pytest.raises(github.Unavailable):
        known.get("now", 5000.0 + 86_500)


@pytest.mark.parametrize(
    "content", [None, b"", b"[]", b"{}", b'{"public_keys": 5}', b"\xff", b"[" * 100_000, b" " * 300_000]
)
def test_without_githubs_keys_it_is_asked_to_come_again(
    acme: Organization, keys_of_github: GitHub, content: bytes | None
) -> None:
    keys_of_github.content = content
    problem(send([]), 503, "UNAVAILABLE")


def test_a_redirect_is_not_followed(acme: Organization, settings: Settings) -> None:
    settings.GITHUB_KEYS_URL = settings.GITHUB_KEYS_URL.replace("/keys", "/redirect")
    problem(send([]), 503, "UNAVAILABLE")


def test_of_the_list_only_p256_keys_count(acme: Organization, keys_of_github: GitHub) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    strange = [1, {}, {"key_identifier": "a", "key": "b"}, {"key_identifier": 1, "key": None}]
    entries = [*strange, listed("other", other), listed("edwards", ed25519.Ed25519PrivateKey.generate())]
    keys_of_github.content = json.dumps({"public_keys": [*entries, listed("now", SIGNER)]}).encode()
    body = b"[]"
    problem(send(body, name="other", signature=signed(body, other)), 400, "BAD_REQUEST")
    assert send(body).status_code == 204


# --- at once ---------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_the_same_report_at_once_is_one(acme: Organization) -> None:
    issued = builders.key(acme)
    answers = at_once([lambda: send([entry(issued)]).status_code] * 4)
    assert answers == [204] * 4
    assert LeakReport.objects.count() == 1
    assert issued.key.events.filter(act="key.revoked").count() == 1
