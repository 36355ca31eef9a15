"""The page where anybody reports a key or ends one: what it does, what it never tells, how often."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from keys import lifecycle, tokens
from keys.models import Key, LeakReport, Organization
from portal.models import Mail
from tests import builders

pytestmark = pytest.mark.django_db

URL, TOLD = "/leak/", "/leak/thanks/"
UNKNOWN = tokens.mint("lk", "live").plaintext


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", builders.user("alice"))


@pytest.fixture
def issued(acme: Organization) -> lifecycle.Issued:
    return builders.key(acme)


def tell(key: str, **more: str) -> Any:
    """The page's answer to this form."""
    return Client().post(URL, {"key": key, **more})


def state_of(key: Key) -> str:
    return str(builders.reloaded(key).state_at(timezone.now()))


def test_a_reported_key_is_dealt_with_as_any_leak(issued: lifecycle.Issued, settings: Settings) -> None:
    settings.LEAK_RESPONSE_LIVE = "disable"
    response = tell(issued.plaintext, place="https://paste.example/1")
    assert (response.status_code, response["Location"]) == (302, TOLD)
    assert state_of(issued.key) == "disabled"
    report = LeakReport.objects.get()
    assert (report.door, report.place) == ("page", "https://paste.example/1")
    assert "https://paste.example/1" in Mail.objects.get().text


def test_whoever_has_a_key_can_revoke_it(issued: lifecycle.Issued, settings: Settings) -> None:
    settings.LEAK_RESPONSE_LIVE = "notify"
    tell(issued.plaintext)
    assert state_of(issued.key) == "active"
    tell(issued.plaintext, revoke="on")
    assert state_of(issued.key) == "revoked"
    assert Mail.objects.count() == 2  # each says what was done


def test_whoever_has_a_key_can_revoke_it_however_often_it_was_reported(
    issued: lifecycle.Issued, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.LEAK_RESPONSE_LIVE = "notify"
    monkeypatch.setattr("keys.lifecycle.leaks.MOST", 1)
    tell(issued.plaintext)
    tell(issued.plaintext, revoke="on")
    assert state_of(issued.key) == "revoked"


def test_the_key_is_found_in_the_lines_around_it(issued: lifecycle.Issued) -> None:
    tell(f"# prod\nexport API_KEY='{issued.plaintext}'  # {UNKNOWN}\n")
    assert state_of(issued.key) == "revoked"


def test_an_imported_key_is_the_whole_text(acme: Organization) -> None:
    key = lifecycle.import_key(
        lifecycle.command_actor(),
        acme,
        name="Old",
        sha256=tokens.digest("legacy-key-1").hex(),
        now=timezone.now(),
    )
    tell("  legacy-key-1\n")
    assert state_of(key) == "revoked"


@pytest.mark.parametrize(
    "text",
    [UNKNOWN, "what?", "x" * 9000, "\u0660", "key_4kDfZ0aQ9sLmX2cV"],
    ids=["unknown", "words", "long", "digit", "id"],
)
def test_the_answer_is_the_same_whatever_was_told(issued: lifecycle.Issued, text: str) -> None:
    ours, other = tell(issued.plaintext), tell(text)
    assert (ours.status_code, ours["Location"]) == (other.status_code, other["Location"])
    assert ours.content == other.content


def test_a_key_that_is_cut_short_is_said_to_be(issued: lifecycle.Issued) -> None:
    response = tell(issued.plaintext[:-1])
    assert response.status_code == 400
    assert "not a whole key" in response.text
    assert state_of(issued.key) == "active"


@pytest.mark.parametrize("text", ["", "   ", "\x00", "x" * 10_001, "x" * 2 * 1024**2])
def test_junk_is_refused_and_never_shown_again(db: None, text: str) -> None:
    response = tell(text)
    assert response.status_code == 400
    assert "xxxx" not in response.text


def test_a_key_stays_nowhere(issued: lifecycle.Issued, caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    response = client.post(
        URL, {"key": issued.plaintext + " ", "place": f"?{issued.plaintext}", "revoke": "on"}
    )
    cut = client.post(URL, {"key": issued.plaintext[:-1]})
    asked = client.get(URL, {"key": issued.plaintext}, follow=True)
    told = client.get(response["Location"])
    places = [
        *(response.content.decode(), str(response.headers), cut.text, asked.text, told.text, caplog.text),
        *(str(dict(client.session)), str(LeakReport.objects.values()), str(Mail.objects.values())),
        str(issued.key.events.values()),
        *(str(step) for step in asked.redirect_chain),
    ]
    assert not [place for place in places if issued.plaintext[8:-6] in place]
    assert "no-store" in cut["Cache-Control"]


def test_an_address_may_report_ten_times_a_minute(db: None) -> None:
    statuses = [tell("what?").status_code for _ in range(11)]
    assert statuses == [302] * 10 + [429]


def test_a_form_without_its_token_is_refused(issued: lifecycle.Issued) -> None:
    response = Client(enforce_csrf_checks=True).post(URL, {"key": issued.plaintext})
    assert response.status_code == 403
    assert state_of(issued.key) == "active"


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_key_is_found_in_any_text(before: str, after: str) -> None:
    assert UNKNOWN in list(tokens.find_any(before + UNKNOWN + after))


def test_the_docs_show_a_rule_for_each_scanner(client: Client, db: None) -> None:
    text = client.get(reverse("docs_leaks")).text
    assert "lk_(?:live|test)_[0-9A-Za-z]{38}" in text
    for name in ("gitleaks", "detect-secrets", "TruffleHog"):
        assert name in text
