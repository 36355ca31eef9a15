"""The attention pages: what they list, what their buttons do, and for whom."""

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import AuditEvent, Key, Organization
from keys.permissions import Role
from tests import builders
from usage import watch
from usage.models import Signal, Source

pytestmark = pytest.mark.django_db

COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def url(name: str, key: Key | None = None, kind: str = "") -> str:
    kwargs = {"organization": "acme"}
    if key is not None:
        kwargs |= {"key_id": key.public_id}
    return reverse(name, kwargs=kwargs | ({"kind": kind} if kind else {}))


def everlasting(acme: Organization, name: str = "Backend") -> Key:
    """A key without an expiry, and looked at."""
    key = builders.key(acme, name=name, expires_at=None).key
    watch.refresh([key], timezone.now())
    return key


def used_from(key: Key, *addresses: str) -> None:
    now = timezone.now()
    for address in addresses:
        Source.objects.create(
            secret=key.secrets.get(), address=address, calls=7, first_seen=now - 20 * DAY, last_seen=now
        )
    watch.refresh([key], now)


def proposal(alice: Client, key: Key, kind: str) -> str:
    """What the page's button is to do."""
    rows = alice.get(url("attention")).context["attention"].rows
    return str(next(row.mend.proposal for row in rows if (row.key, row.signal.kind) == (key, kind)))


def mended(alice: Client, key: Key, kind: str, text: str) -> Key:
    assert alice.post(url("signal_mend", key, kind), {"proposal": text}).status_code == 302
    return builders.reloaded(key)


def test_the_page_lists_warnings_by_weight_with_reason_evidence_and_score(
    alice: Client, acme: Organization
) -> None:
    key = everlasting(acme)
    used_from(key, "203.0.113.9")
    response = alice.get(url("attention"))
    found = response.context["attention"]
    assert [row.title for row in found.rows] == ["Never expires", "Could be limited to its networks"]
    assert (found.warnings, found.keys, found.score) == (2, 1, 15)
    assert "All of its 7 accepted calls came from 203.0.113.9." in response.text
    assert "A key that is forgotten works for ever." in response.text


def test_without_warnings_the_page_says_so(alice: Client, acme: Organization) -> None:
    builders.key(acme)
    assert "Nothing needs you" in alice.get(url("attention")).text
    assert "Nothing is dismissed" in alice.get(url("attention") + "?show=dismissed").text


def test_what_was_mended_elsewhere_is_gone_at_once(alice: Client, acme: Organization) -> None:
    key = everlasting(acme)
    assert "Never expires" in alice.get(url("key", key)).text
    lifecycle.edit_key(COMMAND, key, expires_at=timezone.now() + 30 * DAY, now=timezone.now())
    assert alice.get(url("attention")).context["attention"].rows == []
    assert "What may be amiss with this key" not in alice.get(url("key", key)).text


def test_one_click_sets_an_expiry(alice: Client, acme: Organization) -> None:
    key = everlasting(acme)
    changed = mended(alice, key, "no_expiry", proposal(alice, key, "no_expiry"))
    assert changed.expires_at is not None
    assert AuditEvent.objects.latest("number").act == "key.edited"
    assert not Signal.objects.raised().exists()


def test_one_click_limits_a_key_to_the_networks_that_were_shown(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    used_from(key, "203.0.113.9", "2001:db8::1")
    seen = proposal(alice, key, "networks")
    used_from(key, "198.51.100.1")  # meanwhile
    assert mended(alice, key, "networks", seen).networks == []
    assert mended(alice, key, "networks", proposal(alice, key, "networks")).networks == [
        "198.51.100.1/32",
        "2001:db8::1/128",
        "203.0.113.9/32",
    ]


def test_one_click_disables_a_key_that_nobody_uses(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    key = builders.key(acme, now=now - 100 * DAY, expires_at=now + 9 * DAY).key
    watch.refresh([key], now)
    assert mended(alice, key, "idle", proposal(alice, key, "idle")).disabled_at is not None
    assert not Signal.objects.raised().exists()


@pytest.mark.parametrize("kind", ["no_expiry", "old_secret", "idle", "networks", "late"])
@pytest.mark.parametrize("text", ["", "0.0.0.0/0", "disable", "2999-01-01", "\0", "x" * 1_000_000])
def test_a_proposal_that_was_not_made_changes_nothing(
    alice: Client, acme: Organization, kind: str, text: str
) -> None:
    key = everlasting(acme)
    before = AuditEvent.objects.count()
    mended(alice, key, kind, text)
    assert AuditEvent.objects.count() == before


def test_mending_twice_mends_once(alice: Client, acme: Organization) -> None:
    key = everlasting(acme)
    text = proposal(alice, key, "no_expiry")
    for _ in range(2):
        mended(alice, key, "no_expiry", text)
    assert AuditEvent.objects.filter(act="key.edited").count() == 1


def test_a_warning_is_dismissed_or_put_off_and_listed_as_that(alice: Client, acme: Organization) -> None:
    first, second = everlasting(acme, "First"), everlasting(acme, "Second")
    alice.post(url("signal_dismiss", first, "no_expiry"), {"next": url("key", first)})
    alice.post(url("signal_dismiss", second, "no_expiry"), {"snooze": "1"})
    alice.post(url("signal_dismiss", second, "no_expiry"))  # once more is nothing
    assert alice.get(url("attention")).context["attention"].rows == []
    hidden = alice.get(url("attention") + "?show=dismissed")
    assert "when it is raised anew" in hidden.text
    assert "by alice@example.com" in hidden.text
    assert AuditEvent.objects.filter(act="key.signal_dismissed").count() == 2
    assert "Warning dismissed" in alice.get(url("activity")).text


@pytest.mark.parametrize(
    "back", ["https://evil.example/", "//evil.example", "/o/other/", "/o/acme/\r\nX: y", ""]
)
def test_a_button_leads_back_to_a_page_of_this_organization(
    alice: Client, acme: Organization, back: str
) -> None:
    key = everlasting(acme)
    response = alice.post(url("signal_dismiss", key, "no_expiry"), {"next": back})
    assert response.headers["Location"] in (url("attention"), "/o/acme/%0D%0AX:%20y")


def test_a_kind_that_does_not_exist_is_no_page(alice: Client, acme: Organization) -> None:
    key = everlasting(acme)
    for name in ("signal_mend", "signal_dismiss"):
        assert alice.post(url(name, key, "junk")).status_code == 404


@pytest.mark.parametrize("name", ["signal_mend", "signal_dismiss"])
def test_anothers_key_is_not_found_and_a_viewer_may_not(
    client: Client, acme: Organization, name: str
) -> None:
    theirs = everlasting(builders.organization("bobs", owner=builders.user("bob")))
    builders.signed_in(client, acme.memberships.get().user)
    assert client.post(url(name, theirs, "no_expiry")).status_code == 404
    vera = builders.user("vera")
    builders.member(vera, acme, Role.VIEWER)
    builders.signed_in(client, vera)
    mine = everlasting(acme)
    assert client.post(url(name, mine, "no_expiry")).status_code == 403
    page = client.get(url("attention")).text
    assert "Never expires" in page
    assert url(name, mine, "no_expiry") not in page
    assert Signal.objects.shown(timezone.now()).count() == 2


def test_the_page_costs_the_same_for_one_warning_and_for_many(alice: Client, acme: Organization) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            alice.get(url("attention"))
        return len(queries)

    everlasting(acme)
    one = cost()
    for n in range(5):
        used_from(everlasting(acme, f"Key {n}"), "203.0.113.9")
    assert cost() == one


def test_staff_see_the_weightiest_keys_of_everybody_first(client: Client, acme: Organization) -> None:
    now = timezone.now()
    light = everlasting(acme, "Light")
    bobs = builders.organization("bobs")
    heavy = builders.key(bobs, name="Heavy", expires_at=None, now=now - 100 * DAY).key
    watch.refresh([heavy], now)
    builders.signed_in(client, builders.staff())
    response = client.get(reverse("staff_attention"))
    assert [(row.key, row.score) for row in response.context["rows"]] == [(heavy, 35), (light, 10)]
    assert [(row.organization, row.score) for row in response.context["ranked"]] == [
        (bobs, 35),
        (acme, 10),
    ]
    with CaptureQueriesContext(connection) as few:
        client.get(reverse("staff_attention"))
    for n in range(5):
        everlasting(acme, f"Key {n}")
    with CaptureQueriesContext(connection) as many:
        client.get(reverse("staff_attention"))
    assert len(few) == len(many)
