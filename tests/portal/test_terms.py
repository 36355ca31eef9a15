"""Terms to accept: on the form of sign-up and again with each version, and never in the way of keys."""

import datetime as dt
from pathlib import Path

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from keys.models import AuditEvent
from portal import terms
from portal.models import Acceptance, User
from tests import builders
from tests.threads import at_once

pytestmark = pytest.mark.django_db

NEW = {"email": "alice@example.com", "password1": builders.PASSWORD}
ASK = "/terms/accept/"


@pytest.fixture(autouse=True)
def _terms(settings: Settings) -> None:
    cache.clear()
    settings.TERMS, settings.TERMS_VERSION = "https://example.com/terms", "2026-06"


@pytest.fixture
def alice(client: Client) -> Client:
    person = builders.user("alice")
    builders.organization("acme", person)
    return builders.signed_in(client, person)


def confirm(client: Client) -> int:
    code = str(mail.outbox[-1].subject).split()[0]
    return client.post("/accounts/confirm-email/", {"code": code}).status_code


def test_signing_up_takes_the_terms(client: Client) -> None:
    assert "Accept the terms to go on." in client.post("/accounts/signup/", NEW).text
    assert not User.objects.exists()
    client.post("/accounts/signup/", NEW | {"terms": "on"})
    assert not Acceptance.objects.exists()  # anybody can type an address
    assert confirm(client) == 302
    found = Acceptance.objects.get()
    assert (found.user.email, found.version) == ("alice@example.com", "2026-06")
    event = AuditEvent.objects.get(act="terms.accepted")
    assert (event.actor_label, event.data) == ("alice@example.com", {"version": "2026-06"})
    assert client.get("/welcome/").status_code == 200


def test_what_one_person_accepted_while_signing_up_is_not_anothers(rf: RequestFactory) -> None:
    request = rf.post("/accounts/signup/")
    request.session = SessionStore()
    terms.promise(request, "alice@example.com")
    terms.keep_promise(request, builders.user("bob"), timezone.now())
    terms.keep_promise(request, builders.user("alice"), timezone.now())
    assert not Acceptance.objects.exists()


def test_without_terms_nothing_is_asked(alice: Client, settings: Settings) -> None:
    settings.TERMS = ""
    assert alice.get("/o/acme/").status_code == 200
    assert "terms" not in Client().get("/accounts/signup/").text
    assert alice.get("/terms/").status_code == alice.get(ASK).status_code == 404


def test_who_has_not_accepted_is_asked_and_then_goes_on(alice: Client) -> None:
    asked = alice.get("/o/acme/keys/?q=a")
    assert asked.headers["Location"] == f"{ASK}?next=%2Fo%2Facme%2Fkeys%2F%3Fq%3Da"
    page = alice.get(asked.headers["Location"])
    assert 'href="https://example.com/terms"' in page.text
    assert "no-store" in page.headers["Cache-Control"]
    done = alice.post(ASK, {"version": "2026-06", "next": "/o/acme/keys/?q=a"})
    assert done.headers["Location"] == "/o/acme/keys/?q=a"
    assert alice.get("/o/acme/keys/?q=a").status_code == 200
    assert "which you accepted on" in alice.get("/terms/").text


def test_a_new_version_is_asked_again_and_an_old_page_accepts_nothing(
    alice: Client, settings: Settings
) -> None:
    alice.post(ASK, {"version": "2026-06"})
    settings.TERMS_VERSION = "2027-01"
    assert alice.get("/o/acme/").status_code == 302
    assert alice.post(ASK, {"version": "2026-06"}).status_code == 200
    assert alice.get("/o/acme/").status_code == 302
    alice.post(ASK, {"version": "2027-01"})
    assert alice.get("/o/acme/").status_code == 200
    assert Acceptance.objects.count() == 2


def test_a_form_is_not_acted_on_before_the_answer(alice: Client) -> None:
    key = builders.key(User.objects.get().memberships.get().organization).key
    refused = alice.post(f"/o/acme/keys/{key.public_id}/disable/")
    assert refused.headers["Location"] == f"{ASK}?next=%2Fhome%2F"
    assert builders.reloaded(key).disabled_at is None
    swapped = alice.get("/o/acme/keys/", headers={"HX-Request": "true"})
    assert swapped.headers["HX-Redirect"].startswith(ASK)


@pytest.mark.parametrize("path", ["/", "/docs/", "/terms/", "/accounts/email/", "/accounts/logout/"])
def test_these_pages_wait_for_nothing(alice: Client, path: str) -> None:
    assert alice.get(path).status_code == 200


def test_keys_and_staff_are_never_held_up(client: Client) -> None:
    assert client.get("/v1/openapi.json").status_code == 200
    staff = builders.signed_in(client, builders.staff())
    assert staff.get("/staff/").status_code == staff.get("/admin/").status_code == 200


@pytest.mark.parametrize(
    "there", ["//evil.test", "https://evil.test/", "javascript:alert(1)", "\x00", "a" * 9000]
)
def test_a_strange_next_leads_home(alice: Client, there: str) -> None:
    assert alice.get(ASK, {"next": there}).status_code == 200
    assert alice.post(ASK, {"version": "2026-06", "next": there}).headers["Location"] == "/home/"


@pytest.mark.parametrize("junk", ["", "\x00", "2026-07", "a" * 1_000])
def test_junk_accepts_nothing(alice: Client, junk: str) -> None:
    assert alice.post(ASK, {"version": junk}).status_code == 200
    assert not Acceptance.objects.exists()


def test_a_session_asks_the_database_once(alice: Client) -> None:
    alice.post(ASK, {"version": "2026-06"})
    alice.get("/o/acme/team/")
    with CaptureQueriesContext(connection) as queries:
        alice.get("/o/acme/team/")
    assert not [query for query in queries.captured_queries if "portal_acceptance" in query["sql"]]


@pytest.mark.django_db(transaction=True)
def test_accepted_twice_at_once_it_is_one_acceptance_and_one_event() -> None:
    alice = builders.user("alice")
    outcomes = at_once([lambda: terms.accept(alice, "2026-06", timezone.now())] * 4)
    assert outcomes == [None] * 4
    assert Acceptance.objects.count() == AuditEvent.objects.filter(act="terms.accepted").count() == 1


def test_a_text_is_shown_as_text(alice: Client, settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "terms.txt"
    file.write_text("First.\n\n<script>alert(1)</script>")
    settings.TERMS = str(file)
    page = alice.get("/terms/").text
    assert "<p>First.</p>" in page
    assert "&lt;script&gt;" in page
    settings.TERMS = str(tmp_path / "gone.txt")
    assert "The text is missing" in alice.get("/terms/").text


def test_staff_see_who_accepted_what(client: Client) -> None:
    alice = builders.user("alice")
    terms.accept(alice, "2025-01", timezone.now() - dt.timedelta(days=400))
    terms.accept(alice, "2026-06", timezone.now())
    builders.user("bob")
    staff = builders.signed_in(client, builders.staff())
    listed = staff.get("/admin/portal/user/")
    assert "2026-06" in listed.text
    shown = [each.email for each in staff.get("/admin/portal/user/?terms=open").context["cl"].result_list]
    assert shown == ["bob@example.com", "sam@example.com"]
    accepted = staff.get("/admin/portal/user/?terms=accepted").context["cl"].result_list
    assert [each.email for each in accepted] == ["alice@example.com"]
    assert "2025-01" in staff.get(f"/admin/portal/user/{alice.pk}/change/").text


def test_of_those_who_accepted_only_members_are_counted() -> None:
    alice, bob = builders.user("alice"), builders.user("bob")
    builders.organization("acme", owner=alice)
    for person in (alice, bob):
        terms.accept(person, terms.version(), timezone.now())
    assert terms.accepted_and_members() == (1, 1)
