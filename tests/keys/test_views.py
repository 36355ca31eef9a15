"""The pages that change keys: the secret once, nothing twice, nothing half, a clear word for each refusal."""

import datetime as dt
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle, tokens
from keys.models import AuditEvent, Key, KeyState, Organization, Secret
from keys.permissions import Role
from tests import builders

pytestmark = pytest.mark.django_db

SECRET = re.compile(r"lk_(?:live|test)_[0-9A-Za-z]{38}")
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def url(name: str, key: Key | None = None) -> str:
    return reverse(name, kwargs={"organization": "acme"} | ({"key_id": key.public_id} if key else {}))


def once(client: Client, path: str) -> str:
    found = re.search(r'name="once" value="([^"]+)"', client.get(path).content.decode())
    assert found is not None
    return found[1]


def hidden(page: Any) -> dict[str, str]:
    """The hidden fields of a page's form."""
    fields = re.findall(r'<input type="hidden" name="([a-z_]+)" value="([^"]*)"', page.text)
    return {name: value for name, value in fields if name != "csrfmiddlewaretoken"}


def new_key(client: Client, **fields: object) -> dict[str, object]:
    """The fields of a filled-in form for a new key, with a token from the page."""
    path = url("key_new")
    return {"name": "Backend", "environment": "live", "expiry": "90", "once": once(client, path)} | fields


def shown_secret(html: str) -> str:
    found: set[str] = set(SECRET.findall(html))
    assert len(found) == 1, "exactly one secret is shown"
    return found.pop()


# --- create ---------------------------------------------------------------------------------------


def test_the_answer_to_the_form_shows_the_secret(alice: Client, acme: Organization) -> None:
    builders.scope("orders:read")
    response = alice.post(url("key_new"), new_key(alice, scopes=["orders:read"]))
    assert response.status_code == 200
    secret = shown_secret(response.content.decode())
    key = acme.keys.get()
    assert bytes(key.secrets.get().digest) == tokens.digest(secret)
    assert "no-store" in response.headers["Cache-Control"]
    assert "/gateway/authorize?scope=orders:read" in response.content.decode()
    assert url("key", key) in response.content.decode()


def test_the_secret_is_nowhere_afterwards(
    alice: Client, acme: Organization, caplog: pytest.LogCaptureFixture
) -> None:
    secret = shown_secret(alice.post(url("key_new"), new_key(alice)).content.decode())
    for name, key in [
        ("key", acme.keys.get()),
        ("keys", None),
        ("overview", None),
        ("activity", None),
        ("key_edit", acme.keys.get()),
    ]:
        assert secret not in alice.get(url(name, key)).content.decode()
    assert secret not in caplog.text
    assert all(secret not in str(session.get_decoded()) for session in Session.objects.all())
    assert all(secret not in str(event.data) for event in AuditEvent.objects.all())


def test_sending_the_form_again_makes_no_second_key(alice: Client, acme: Organization) -> None:
    form = new_key(alice)
    alice.post(url("key_new"), form)
    again = alice.post(url("key_new"), form)
    assert again.status_code == 409
    assert acme.keys.count() == 1
    assert url("key", acme.keys.get()) in again.content.decode()
    assert not SECRET.search(again.content.decode())


def test_a_form_without_a_good_token_is_shown_again(alice: Client, acme: Organization) -> None:
    for token in ["", "made up", "\x00", "x" * 100_000]:
        response = alice.post(url("key_new"), new_key(alice, once=token))
        assert "open for too long" in response.content.decode()
    assert not acme.keys.exists()
    # What was typed is still there, with a token that works.
    fresh = re.search(r'name="once" value="([^"]+)"', response.content.decode())
    assert fresh is not None
    assert SECRET.search(alice.post(url("key_new"), new_key(alice, once=fresh[1])).content.decode())


def test_a_token_of_another_person_or_organization_is_not_good(alice: Client, acme: Organization) -> None:
    other = builders.organization("globex", owner=builders.user("bob"))
    bob = builders.signed_in(Client(), other.memberships.get().user)
    token = once(bob, reverse("key_new", kwargs={"organization": "globex"}))
    assert "open for too long" in alice.post(url("key_new"), new_key(alice, once=token)).content.decode()
    charlie = builders.user("charlie")
    builders.member(charlie, acme)
    token = once(builders.signed_in(Client(), charlie), url("key_new"))
    assert "open for too long" in alice.post(url("key_new"), new_key(alice, once=token)).content.decode()
    assert not acme.keys.exists()


def test_a_refused_form_can_be_mended_and_sent_again(alice: Client, acme: Organization) -> None:
    form = new_key(alice, networks="10.0.0.1/8")
    refused = alice.post(url("key_new"), form)
    assert "did you mean 10.0.0.0/8?" in refused.content.decode()
    assert not acme.keys.exists()
    mended = alice.post(url("key_new"), form | {"networks": "10.0.0.0/8"})
    assert SECRET.search(mended.content.decode())


def test_the_form_is_prefilled_from_the_address(alice: Client) -> None:
    builders.scope("orders:read")
    html = alice.get(
        url("key_new"), {"name": 'From docs "><script>', "scopes": "orders:read,portal:verify,\x00"}
    ).content.decode()
    assert 'value="From docs &quot;&gt;&lt;script&gt;"' in html
    assert 'value="orders:read" checked' in html
    assert "portal:verify" not in html


@pytest.mark.parametrize(
    "query",
    [
        "name=%00%ED%A0%80",
        "name=" + "x" * 2**20,
        "scopes=" + "a," * 2**19,
        "scopes=%00,%FF&name[]=1",
        "scopes=",
    ],
)
def test_junk_in_the_address_prefills_nothing(alice: Client, query: str) -> None:
    builders.scope("orders:read")
    response = alice.get(f"{url('key_new')}?{query}")
    assert response.status_code == 200
    assert " checked" not in response.text.partition("scope-groups")[2].partition("</fieldset>")[0]


def test_scopes_that_no_key_has_yet_say_so(alice: Client, acme: Organization) -> None:
    builders.scope("orders:write")
    assert "no key here has it" not in alice.get(url("key_new")).text  # nor has any key anything
    builders.key(acme, scopes=("orders:read",))
    shown = alice.get(url("key_new")).text
    assert shown.count("no key here has it") == shown.count('name="scopes"') - 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "a\x00b"),
        ("name", "x" * 101),
        ("name", "a\u2028b"),
        ("environment", "prod"),
        ("scopes", "no:such"),
        ("scopes", "portal:verify"),
        ("expiry", "36500"),
        ("expiry", "\x00"),
        ("networks", "everywhere"),
        ("networks", "\n".join(f"10.0.{n}.0/24" for n in range(60))),
        ("rates", "10/fortnight"),
        ("rates", "1/second\n2/second"),
        ("quotas", "10/fortnight"),
        ("quotas", "1/month\n2/month"),
        ("metadata", "no equals"),
        ("metadata", "\n".join(f"a{n}=b" for n in range(21))),
        ("metadata", "a" * 41 + "=b"),
    ],
)
def test_junk_gets_a_clear_word_and_leaves_nothing_behind(
    alice: Client, acme: Organization, field: str, value: str
) -> None:
    before = AuditEvent.objects.count()
    response = alice.post(url("key_new"), new_key(alice, **{field: value}))
    assert response.status_code == 200
    assert 'class="field-error"' in response.content.decode()
    assert (acme.keys.count(), Secret.objects.count(), AuditEvent.objects.count()) == (0, 0, before)


def test_a_body_over_the_limit_is_refused(alice: Client, acme: Organization) -> None:
    response = alice.post(url("key_new"), new_key(alice, name="x" * 2**20))
    assert response.status_code == 400
    assert not acme.keys.exists()


def test_broken_utf_8_is_no_error_of_ours(alice: Client, acme: Organization) -> None:
    response = alice.generic(
        "POST", url("key_new"), b"name=%ED%A0%80%FF", content_type="application/x-www-form-urlencoded"
    )
    assert response.status_code == 200
    assert not acme.keys.exists()


def test_what_the_policy_forbids_is_said(client: Client) -> None:
    policy = lifecycle.create_policy(
        lifecycle.command_actor(), slug="one", name="One", max_keys=1, now=timezone.now()
    )
    owner = builders.user("alice")
    acme = builders.organization("acme", owner=owner, policy=policy)
    builders.key(acme)
    builders.signed_in(client, owner)
    html = client.post(url("key_new"), new_key(client)).content.decode()
    assert "has its 1 keys; revoke one first" in html
    assert acme.keys.count() == 1


def test_a_suspended_organization_makes_no_keys_and_says_so(alice: Client, acme: Organization) -> None:
    lifecycle.suspend_organization(lifecycle.command_actor(), acme, reason="unpaid", now=timezone.now())
    html = alice.post(url("key_new"), new_key(alice)).content.decode()
    assert "This organization is suspended" in html
    assert not acme.keys.exists()


# --- a recent sign-in -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["key_new", "key_rotate"])
def test_making_a_secret_asks_again_who_it_is(client: Client, acme: Organization, name: str) -> None:
    client.force_login(acme.memberships.get().user)  # signed in, but not lately
    key = builders.key(acme).key if name == "key_rotate" else None
    for response in (client.get(url(name, key)), client.post(url(name, key), {"name": "A"})):
        assert response.status_code == 302
        assert response.headers["Location"].startswith(reverse("account_reauthenticate"))
    assert Secret.objects.count() == (1 if key else 0)


def test_a_form_sent_after_too_long_is_not_lost(alice: Client, acme: Organization) -> None:
    form = new_key(alice, name="Typed with care")
    session = alice.session
    session["account_authentication_methods"] = [
        each | {"at": each["at"] - settings.ACCOUNT_REAUTHENTICATION_TIMEOUT}
        for each in session["account_authentication_methods"]
    ]
    session.save()
    asked = alice.post(url("key_new"), form)
    assert asked.status_code == 302
    answer = alice.post(asked.headers["Location"], {"password": builders.PASSWORD})
    assert SECRET.search(answer.content.decode())
    assert "no-store" in answer.headers["Cache-Control"]
    assert acme.keys.get().name == "Typed with care"


def test_who_just_signed_in_is_not_asked_again(client: Client, acme: Organization) -> None:
    client.post(reverse("account_login"), {"login": "alice@example.com", "password": builders.PASSWORD})
    assert client.get(url("key_new")).status_code == 200


# --- rotate ---------------------------------------------------------------------------------------


def rotation(issued: lifecycle.Issued, **fields: str) -> dict[str, str]:
    return {"overlap": "86400", "expiry": "keep", "current": str(issued.secret.pk)} | fields


def test_a_rotation_shows_the_new_secret_and_keeps_the_old_for_a_while(
    alice: Client, acme: Organization
) -> None:
    issued = builders.key(acme)
    response = alice.post(url("key_rotate", issued.key), rotation(issued, overlap="3600"))
    secret = shown_secret(response.content.decode())
    assert secret != issued.plaintext
    assert "no-store" in response.headers["Cache-Control"]
    old = Secret.objects.get(pk=issued.secret.pk)
    assert old.stops_at is not None
    assert timezone.now() < old.stops_at <= timezone.now() + HOUR


def test_a_leaked_secret_stops_at_once(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued, overlap="0"))
    assert not Secret.objects.get(pk=issued.secret.pk).works_at(timezone.now())


def test_a_rotation_can_renew_the_expiry(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme, expires_at=timezone.now() + dt.timedelta(days=3))
    alice.post(url("key_rotate", issued.key), rotation(issued, expiry="renew"))
    expires_at = builders.reloaded(issued.key).expires_at
    assert expires_at is not None
    assert expires_at > timezone.now() + dt.timedelta(days=89)


def test_rotating_again_from_the_same_page_is_a_conflict(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued))
    again = alice.post(url("key_rotate", issued.key), rotation(issued))
    assert again.status_code == 409
    assert "already been replaced" in again.content.decode()
    assert issued.key.secrets.count() == 2


# --- edit, disable, enable, end overlap, revoke ---------------------------------------------------


def test_an_edit_changes_what_was_changed(alice: Client, acme: Organization) -> None:
    key = builders.key(acme, scopes=("orders:read",)).key
    response = alice.post(
        url("key_edit", key), {"name": "Renamed", "scopes": [], "expiry": "keep", "networks": "10.0.0.0/8"}
    )
    assert response.headers["Location"] == url("key", key)
    event = key.events.latest("number")
    assert event.act == "key.edited"
    assert set(event.data["changes"]) == {"name", "scopes", "networks"}


def test_an_edit_does_not_undo_anothers_unseen(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    seen = alice.get(url("key_edit", key)).context["seen"]
    lifecycle.edit_key(lifecycle.command_actor(), key, networks=["10.0.0.0/8"], now=timezone.now())
    mine = {"name": "Mine", "expiry": "keep", "networks": "", "seen": seen}
    refused = alice.post(url("key_edit", key), mine)
    assert "edited this key meanwhile" in refused.content.decode()
    assert builders.reloaded(key).networks == ["10.0.0.0/8"]
    # Having read so, one may save all the same.
    alice.post(url("key_edit", key), mine | {"seen": refused.context["seen"]})
    assert (builders.reloaded(key).name, builders.reloaded(key).networks) == ("Mine", [])


def test_an_error_of_the_form_does_not_hide_anothers_edit(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    mine = {"name": "Mine", "expiry": "keep", "seen": alice.get(url("key_edit", key)).context["seen"]}
    lifecycle.edit_key(lifecycle.command_actor(), key, networks=["10.0.0.0/8"], now=timezone.now())
    wrong = alice.post(url("key_edit", key), mine | {"name": ""})
    mended = alice.post(url("key_edit", key), mine | hidden(wrong))
    assert "edited this key meanwhile" in mended.content.decode()
    assert builders.reloaded(key).networks == ["10.0.0.0/8"]


def test_an_edit_does_not_take_back_what_staff_approved_unseen(alice: Client, acme: Organization) -> None:
    asked = builders.scope_request(acme)
    seen = alice.get(url("key_edit", asked.key)).context["seen"]
    lifecycle.approve_scope(lifecycle.command_actor(), asked, now=timezone.now())
    refused = alice.post(url("key_edit", asked.key), {"name": "Mine", "expiry": "keep", "seen": seen})
    assert "edited this key meanwhile" in refused.content.decode()
    assert list(builders.reloaded(asked.key).scopes.all()) == [asked.scope]


@pytest.mark.parametrize("seen", ["", "x", "-1", "\x00", "9" * 40])
def test_a_made_up_mark_of_what_was_seen_is_no_error(alice: Client, acme: Organization, seen: str) -> None:
    key = builders.key(acme).key
    response = alice.post(url("key_edit", key), {"name": "Mine", "expiry": "keep", "seen": seen})
    assert response.status_code == (302 if seen == "" else 200)


@pytest.mark.parametrize("current", ["", "x", "\x00", "9" * 40])
def test_a_rotation_of_a_damaged_page_says_so(alice: Client, acme: Organization, current: str) -> None:
    issued = builders.key(acme)
    html = alice.post(url("key_rotate", issued.key), rotation(issued, current=current)).content.decode()
    assert "This page is incomplete" in html


def test_an_edit_that_is_refused_changes_nothing(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    response = alice.post(url("key_edit", key), {"name": "Renamed", "expiry": "keep", "rates": "fast"})
    assert "is not a rate" in response.content.decode()
    assert builders.reloaded(key).name == "Backend"


def test_disable_asks_and_enable_takes_it_back(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    assert "Its calls will be refused" in alice.get(url("key_disable", key)).content.decode()
    alice.post(url("key_disable", key))
    assert builders.reloaded(key).state_at(timezone.now()) == KeyState.DISABLED
    page = alice.get(url("key", key)).content.decode()
    assert url("key_enable", key) in page
    alice.post(url("key_enable", key))
    assert builders.reloaded(key).state_at(timezone.now()) == KeyState.ACTIVE


def test_enabling_by_address_only_leads_to_the_page(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    alice.post(url("key_disable", key))
    assert alice.get(url("key_enable", key)).headers["Location"] == url("key", key)
    assert builders.reloaded(key).state_at(timezone.now()) == KeyState.DISABLED


def test_rotating_while_an_overlap_runs_says_what_to_do(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued))
    page = alice.get(url("key_rotate", issued.key))
    assert url("key_end_overlap", issued.key) in page.content.decode()
    current = {"current": str(page.context["form"]["current"].value())}
    refused = alice.post(url("key_rotate", issued.key), rotation(issued) | current)
    assert refused.status_code == 409
    assert url("key_end_overlap", issued.key) in refused.content.decode()
    assert (
        alice.post(url("key_rotate", issued.key), rotation(issued, overlap="0") | current).status_code == 200
    )


def test_an_old_secret_can_be_ended_early(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued))
    assert issued.secret.display in alice.get(url("key_end_overlap", issued.key)).content.decode()
    alice.post(url("key_end_overlap", issued.key))
    assert not Secret.objects.get(pk=issued.secret.pk).works_at(timezone.now())
    assert "No old secret is working" in alice.get(url("key_end_overlap", issued.key)).content.decode()


def test_an_overlap_can_be_extended(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued))
    form = alice.get(url("key_extend_overlap", issued.key)).context["form"]
    assert [text for _, text in form.fields["overlap"].choices] == ["24 hours", "7 days", "30 days"]
    response = alice.post(url("key_extend_overlap", issued.key), {"overlap": str(7 * 86_400)})
    assert response.headers["Location"] == url("key", issued.key)
    assert Secret.objects.get(pk=issued.secret.pk).works_at(timezone.now() + 100 * HOUR)


@pytest.mark.parametrize("overlap", ["", "1", "-1", "nan", "\0", "9" * 1_000, "86400"])
def test_an_overlap_is_extended_only_by_what_is_offered(
    alice: Client, acme: Organization, overlap: str
) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued))
    alice.post(url("key_extend_overlap", issued.key), {"overlap": str(30 * 86_400)})
    before = Secret.objects.get(pk=issued.secret.pk).stops_at
    assert alice.post(url("key_extend_overlap", issued.key), {"overlap": overlap}).status_code == 200
    assert Secret.objects.get(pk=issued.secret.pk).stops_at == before


def test_a_rotation_can_be_rolled_back_once(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued))
    new = issued.key.secrets.get(stops_at=None)
    page = alice.get(url("key_roll_back", issued.key)).text
    assert issued.secret.display in page
    assert new.display in page
    for _ in range(2):  # the second time there is nothing to roll back
        assert alice.post(url("key_roll_back", issued.key)).status_code == 302
    assert issued.key.secrets.get(stops_at=None) == issued.secret
    assert AuditEvent.objects.filter(act="key.rolled_back").count() == 1


@pytest.mark.parametrize("name", ["key_end_overlap", "key_extend_overlap", "key_roll_back"])
def test_a_page_about_an_overlap_does_nothing_to_the_next_one(
    alice: Client, acme: Organization, name: str
) -> None:
    issued = builders.key(acme)
    alice.post(url("key_rotate", issued.key), rotation(issued))
    shown = hidden(alice.get(url(name, issued.key)))
    command, now = lifecycle.command_actor(), timezone.now()
    lifecycle.end_overlap(command, issued.key, now=now)
    new = issued.key.secrets.get(stops_at=None)
    lifecycle.rotate_key(command, issued.key, overlap=HOUR, current=new, now=now)
    before = list(issued.key.secrets.order_by("pk").values_list("pk", "stops_at"))
    answer = alice.post(url(name, issued.key), shown | {"overlap": str(7 * 86_400)}, follow=True)
    assert "This key was rotated again meanwhile" in answer.text
    assert list(issued.key.secrets.order_by("pk").values_list("pk", "stops_at")) == before


@pytest.mark.parametrize("name", ["key_edit", "key_rotate"])
def test_a_revoked_key_is_not_changed_and_the_page_says_why(
    alice: Client, acme: Organization, name: str
) -> None:
    issued = builders.key(acme)
    lifecycle.revoke_key(lifecycle.command_actor(), issued.key, now=timezone.now())
    before = AuditEvent.objects.count()
    fields = {"name": "Risen"} | rotation(issued)
    for response in (
        alice.get(url(name, issued.key), follow=True),
        alice.post(url(name, issued.key), fields, follow=True),
    ):
        assert "A revoked key cannot be" in response.content.decode()
    assert AuditEvent.objects.count() == before


def test_disabling_a_revoked_key_is_refused_in_words(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    lifecycle.revoke_key(lifecycle.command_actor(), key, now=timezone.now())
    for name in ("key_disable", "key_enable"):
        assert "has been revoked" in alice.post(url(name, key), follow=True).content.decode()


def test_a_viewer_sees_no_buttons_that_would_be_refused(client: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    bob = builders.user("bob")
    builders.member(bob, acme, Role.VIEWER)
    builders.signed_in(client, bob)
    html = client.get(url("key", key)).content.decode() + client.get(url("keys")).content.decode()
    for name in ("key_edit", "key_rotate", "key_revoke", "key_disable"):
        assert url(name, key) not in html
    assert url("key_new") not in html
    assert url("activity") not in html


# --- at once --------------------------------------------------------------------------------------


def at_once(clients: list[Client], send: Callable[[Client], int]) -> list[int]:
    def work(client: Client) -> int:
        try:
            return send(client)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(clients)) as pool:
        return sorted(pool.map(work, clients))


def copies(client: Client, count: int) -> list[Client]:
    """Browsers' tabs: clients that share the session's cookie."""
    tabs = [Client() for _ in range(count)]
    for tab in tabs:
        tab.cookies[settings.SESSION_COOKIE_NAME] = client.cookies[settings.SESSION_COOKIE_NAME].value
    return tabs


@pytest.mark.django_db(transaction=True)
def test_a_form_sent_many_times_at_once_makes_one_key(alice: Client, acme: Organization) -> None:
    form = new_key(alice)
    statuses = at_once(copies(alice, 6), lambda tab: tab.post(url("key_new"), form).status_code)
    assert statuses == [200, 409, 409, 409, 409, 409]
    assert acme.keys.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_people_who_rotate_at_once_get_one_successor(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    bob = builders.user("bob")
    builders.member(bob, acme)
    people = [*copies(alice, 2), builders.signed_in(Client(), bob)]
    statuses = at_once(
        people, lambda tab: tab.post(url("key_rotate", issued.key), rotation(issued)).status_code
    )
    assert statuses == [200, 409, 409]
    assert issued.key.secrets.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_edits_at_once_that_saw_the_same_one_is_saved(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    names = iter("ABCDEF")

    def save(tab: Client) -> int:
        return tab.post(url("key_edit", key), {"name": next(names), "expiry": "keep", "seen": ""}).status_code

    assert at_once(copies(alice, 6), save) == [200, 200, 200, 200, 200, 302]
    assert key.events.filter(act="key.edited").count() == 1
