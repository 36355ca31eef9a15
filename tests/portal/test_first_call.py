"""The panel that waits for a first call: what it shows, when it stops, and whose calls it never shows."""

import datetime as dt

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import Organization
from keys.permissions import Role
from keys.verdicts import Code
from portal import first_call
from tests import builders
from tests.portal.test_pages import refused, used

pytestmark = pytest.mark.django_db

POLL = {"HX-Request": "true"}


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def issued(acme: Organization) -> lifecycle.Issued:
    return builders.key(acme, scopes=("orders:read",))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def url(issued: lifecycle.Issued, page: str = "key_first_call") -> str:
    return reverse(page, args=[issued.key.organization.slug, issued.key.public_id])


def test_while_nothing_has_come_a_poll_changes_nothing(alice: Client, issued: lifecycle.Issued) -> None:
    page = alice.get(url(issued))
    assert "Waiting for the first call" in page.content.decode()
    poll = alice.get(url(issued), headers=POLL)
    assert (poll.status_code, poll.content) == (204, b"")


def test_an_accepted_call_is_shown_and_ends_the_wait(alice: Client, issued: lifecycle.Issued) -> None:
    used(issued.secret, timezone.now() - dt.timedelta(seconds=3))
    html = alice.get(url(issued), headers=POLL).content.decode()
    assert "Received" in html
    assert "VALID" in html
    assert 'data-ago="3"' in html
    assert "203.0.113.9" in html
    assert "hx-trigger" not in html


def test_a_refused_call_is_told_with_its_mend_and_the_wait_goes_on(
    alice: Client, issued: lifecycle.Issued
) -> None:
    refused(issued, timezone.now(), Code.INSUFFICIENT_SCOPE)
    html = alice.get(url(issued), headers=POLL).content.decode()
    assert "403" in html
    assert Code.INSUFFICIENT_SCOPE.advice in html
    assert reverse("key_edit", args=["acme", issued.key.public_id]) in html
    assert f"{reverse('docs_errors')}#INSUFFICIENT_SCOPE" in html
    assert "hx-trigger" in html
    call = first_call.look(issued.key, timezone.now())
    assert alice.get(url(issued), {"seen": call.request}, headers=POLL).status_code == 204
    used(issued.secret, timezone.now())
    assert "hx-trigger" not in alice.get(url(issued), {"seen": call.request}, headers=POLL).content.decode()


def test_who_may_not_mend_it_is_offered_no_mend(client: Client, issued: lifecycle.Issued) -> None:
    bob = builders.user("bob")
    builders.member(bob, issued.key.organization, Role.VIEWER)
    refused(issued, timezone.now(), Code.INSUFFICIENT_SCOPE)
    html = builders.signed_in(client, bob).get(url(issued), headers=POLL).content.decode()
    assert "INSUFFICIENT_SCOPE" in html
    assert reverse("key_edit", args=["acme", issued.key.public_id]) not in html


def test_after_three_minutes_it_stops_by_itself(alice: Client, issued: lifecycle.Issued) -> None:
    began = int(timezone.now().timestamp())
    assert alice.get(url(issued), {"since": began - 170}, headers=POLL).status_code == 204
    html = alice.get(url(issued), {"since": began - 180}, headers=POLL).content.decode()
    assert "Check again" in html
    assert "hx-trigger" not in html


@pytest.mark.parametrize("junk", ["", "-1", "1e9", "٣", "9" * 5000, "\x00", "%ff"])
def test_junk_in_the_address_is_waited_with(alice: Client, issued: lifecycle.Issued, junk: str) -> None:
    assert alice.get(url(issued), {"since": junk}, headers=POLL).status_code == 204
    assert alice.get(url(issued), {"seen": junk}, headers=POLL).status_code in (200, 204)


def test_after_a_rotation_it_waits_for_the_new_secret(alice: Client, issued: lifecycle.Issued) -> None:
    now = timezone.now()
    used(issued.secret, now)
    new = lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=dt.timedelta(days=1), now=now)
    assert first_call.look(issued.key, now).code is None
    used(new.secret, now)
    assert first_call.look(issued.key, now).code is Code.VALID


def test_another_organizations_calls_are_nobodys_business(client: Client, issued: lifecycle.Issued) -> None:
    bob = builders.user("bob")
    builders.organization("globex", owner=bob)
    used(issued.secret, timezone.now())
    assert builders.signed_in(client, bob).get(url(issued), headers=POLL).status_code == 404
    theirs = reverse("key_first_call", args=["globex", issued.key.public_id])
    assert client.get(theirs, headers=POLL).status_code == 404


def test_a_poll_of_who_is_signed_out_is_told_so_in_the_panel(
    client: Client, issued: lifecycle.Issued
) -> None:
    used(issued.secret, timezone.now())
    html = client.get(url(issued), headers=POLL).content.decode()
    assert "You are signed out" in html
    assert not any(each in html for each in ("hx-trigger", "VALID", issued.key.name, "<html"))
    assert client.get(url(issued)).status_code == 302


def test_a_keys_page_waits_only_while_there_is_something_to_wait_for(
    alice: Client, issued: lifecycle.Issued
) -> None:
    assert 'id="first-call"' in alice.get(url(issued, "key")).content.decode()
    refused(issued, timezone.now(), Code.IP_NOT_ALLOWED)
    assert "IP_NOT_ALLOWED" in alice.get(url(issued, "key")).content.decode()
    used(issued.secret, timezone.now())
    assert 'id="first-call"' not in alice.get(url(issued, "key")).content.decode()
    revoked = builders.key(issued.key.organization)
    lifecycle.revoke_key(lifecycle.command_actor(), revoked.key, now=timezone.now())
    assert 'id="first-call"' not in alice.get(url(revoked, "key")).content.decode()


def test_an_overview_without_calls_waits_for_the_newest_secret_that_was_never_used(
    alice: Client, issued: lifecycle.Issued
) -> None:
    overview = reverse("overview", args=["acme"])
    newest = builders.key(issued.key.organization, name="Newest")
    html = alice.get(overview).content.decode()
    assert f"{url(newest)}?since=" in html
    assert "Newest" in html
    refused(newest, timezone.now(), Code.IP_NOT_ALLOWED)
    assert "Received, and refused" in alice.get(overview).content.decode()
    lifecycle.revoke_key(lifecycle.command_actor(), newest.key, now=timezone.now())
    assert f"{url(issued)}?since=" in alice.get(overview).content.decode()


def test_an_overview_waits_for_no_first_call_where_every_secret_had_one_or_is_refused(
    alice: Client, issued: lifecycle.Issued
) -> None:
    used(issued.secret, timezone.now() - dt.timedelta(days=60))
    builders.key(builders.organization("globex"), name="Theirs")
    html = alice.get(reverse("overview", args=["acme"])).content.decode()
    assert 'id="first-call"' not in html
    assert "No call in the last 30 days" in html
