"""The key list: what each filter and order finds, several keys changed at once, what junk does to both."""

import datetime as dt

import pytest
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from keys import lifecycle
from keys.models import AuditEvent, Key, Organization
from keys.permissions import Role
from keys.verdicts import Code
from portal import key_list
from portal.pages import PAGE
from tests import builders
from tests.builders import queries
from tests.portal.test_pages import calls, url, used

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def names(client: Client, **query: str) -> list[str]:
    return [row.key.name for row in client.get(url("keys"), query).context["rows"]]


def revoke(client: Client, *keys: Key, **fields: str) -> str:
    """The page that answers a confirmed revocation of these keys."""
    return send(client, "keys_revoke", *keys, confirmed="yes", **fields)


def send(client: Client, route: str, *keys: Key, **fields: str) -> str:
    data = {"key": [key.public_id for key in keys], **fields}
    return client.post(url(route), data, follow=True).text


# --- pages ----------------------------------------------------------------------------------------


def test_any_page_is_one_step_away_and_a_large_one_has_many(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    Key.objects.bulk_create(Key(organization=acme, name=f"Key {n}", created_at=now) for n in range(450))
    first = alice.get(url("keys"), {"sort": "name"})
    assert f"1–{PAGE} of 450 keys" in first.text
    assert 'href="?sort=name&amp;page=18"' in first.text
    assert 'href="?sort=name&amp;per=200"' in first.text
    large = alice.get(url("keys"), {"per": "200", "page": "3"})
    assert len(large.context["rows"]) == 50
    assert "401–450 of 450 keys" in large.text
    assert f"{PAGE} a page" in large.text
    for junk in ("201", "1e9", "-1", "\x00", "٢٠٠"):
        assert len(alice.get(url("keys"), {"per": junk}).context["rows"]) == PAGE
    assert len(alice.get(url("keys"), {"page": "9999"}).context["rows"]) == PAGE


# --- found ----------------------------------------------------------------------------------------


def test_keys_are_found_by_scope_and_by_label(alice: Client, acme: Organization) -> None:
    builders.key(acme, name="Reader", scopes=("orders:read",), metadata={"team": "payments"})
    builders.key(acme, name="Writer", scopes=("orders:read", "orders:write"), metadata={"team": "maps"})
    builders.key(acme, name="Plain")
    assert names(alice, scope="orders:write") == ["Writer"]
    assert names(alice, scope="orders:read") == ["Writer", "Reader"]
    assert names(alice, label="team") == ["Writer", "Reader"]
    assert names(alice, label="team=payments") == ["Reader"]
    assert names(alice, label="team = maps", scope="orders:read", state="active") == ["Writer"]
    assert names(alice, label="payments") == []
    assert "No key matches" in alice.get(url("keys"), {"label": "team=none"}).text


@pytest.mark.parametrize(
    ("name", "value"), [("team", "Zürich"), ("a__b", "x"), ("q q", "1 = 2"), ("%s", "100%"), ("é.$[0]", "🔑")]
)
def test_labels_of_any_text_are_found_whole_and_in_part(
    alice: Client, acme: Organization, name: str, value: str
) -> None:
    builders.key(acme, name="Other", metadata={"b": "c"})
    builders.key(acme, name="This", metadata={name: value})
    assert names(alice, label=f"{name}={value}") == ["This"]
    assert names(alice, label=name) == ["This"]
    assert names(alice, q=value) == ["This"]


def test_only_scopes_that_keys_hold_are_offered(alice: Client, acme: Organization) -> None:
    builders.scope("unused:read")
    assert 'aria-label="Scope"' not in alice.get(url("keys")).text
    builders.key(acme, scopes=("orders:read",))
    builders.key(builders.organization("globex"), scopes=("secret:read",))
    page = alice.get(url("keys")).text
    assert "orders:read</option>" in page
    assert "unused:read" not in page
    assert "secret:read" not in page


def test_each_order(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    old = builders.key(acme, name="beta", expires_at=now + 9 * DAY, now=now - 3 * DAY)
    middle = builders.key(acme, name="Alpha", expires_at=now + 5 * DAY, now=now - 2 * DAY)
    builders.key(acme, name="gamma", expires_at=now + 7 * DAY, now=now - 1 * DAY)
    calls(old.key, 10)
    calls(middle.key, 20)
    calls(middle.key, 21, ago=20 * DAY)
    calls(middle.key, 99, ago=40 * DAY)
    calls(old.key, 99, Code.RATE_LIMITED)  # as on the key's page, only what was accepted counts
    used(old.secret, now)
    used(middle.secret, now - DAY)
    assert names(alice) == ["gamma", "Alpha", "beta"]
    assert names(alice, sort="created") == ["beta", "Alpha", "gamma"]
    assert names(alice, sort="name") == ["Alpha", "beta", "gamma"]
    assert names(alice, sort="-used") == ["beta", "Alpha", "gamma"]
    assert names(alice, sort="used") == ["gamma", "Alpha", "beta"]
    assert names(alice, sort="-calls") == ["Alpha", "beta", "gamma"]
    assert names(alice, sort="calls") == ["gamma", "beta", "Alpha"]
    for order in ("", "-calls"):
        rows = alice.get(url("keys"), {"sort": order}).context["rows"]
        assert {row.key.name: row.requests for row in rows} == {"Alpha": 41, "beta": 10, "gamma": 0}
    assert names(alice, sort="expires") == ["Alpha", "gamma", "beta"]
    assert names(alice, sort="-calls", q="a", label="") == ["Alpha", "beta", "gamma"]


def test_another_organizations_keys_are_in_no_list(alice: Client, acme: Organization) -> None:
    other = builders.key(builders.organization("globex"), name="Theirs", metadata={"team": "x"}).key
    calls(other, 5)
    for query in ({"q": "Theirs"}, {"q": "x"}, {"label": "team"}, {"sort": "-calls"}, {"sort": "used"}):
        assert names(alice, **query) == []


@pytest.mark.parametrize(
    "junk", ["\x00", "\ufffd", "%", "_", "=", "x" * 5000, "$[", '"', "\\", "' OR 1=1", "🔑"]
)
def test_junk_in_the_address_is_no_error(alice: Client, acme: Organization, junk: str) -> None:
    builders.key(acme, metadata={"a": "b"}, scopes=("a:b",))
    for name in ("q", "state", "environment", "scope", "sort", "label", "page"):
        assert alice.get(url("keys"), {name: junk}).status_code == 200


def many(organization: Organization, scope: str) -> None:
    keys = Key.objects.bulk_create(
        Key(organization=organization, name=f"Key a{n}", created_at=timezone.now(), metadata={"team": "a"})
        for n in range(3000)
    )
    held, through = builders.scope(scope), Key.scopes.through
    through.objects.bulk_create(through(key=key, scope=held) for key in keys)


def test_the_list_takes_the_same_few_queries_however_many_keys(alice: Client, acme: Organization) -> None:
    if connection.vendor == "postgresql":  # which may plan for tables that it knew empty
        with transaction.atomic():
            many(acme, "a:b")
            transaction.set_rollback(True)
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
            cursor.execute("SET LOCAL statement_timeout = '20s'")
    builders.key(acme, scopes=("a:b",), metadata={"team": "a"})
    paths = [
        f"{url('keys')}?{query}"
        for query in ("", "sort=-calls", "sort=used", "q=a&label=team&scope=a:b&state=active&sort=name")
    ]
    before = [queries(alice, path) for path in paths]
    many(acme, "a:b")
    assert [queries(alice, path) for path in paths] == before
    assert len(names(alice, q="a", label="team", scope="a:b", state="active", sort="name", page="60")) == PAGE


# --- several at once ------------------------------------------------------------------------------


def test_revoking_several_asks_first_and_writes_one_event_each(alice: Client, acme: Organization) -> None:
    first, second, third = (builders.key(acme, name=name) for name in ("First", "Second", "Third"))
    used(first.secret, timezone.now())
    asked = send(alice, "keys_revoke", first.key, second.key)
    assert "Revoke 2 keys?" in asked
    assert "Some of these keys have been used" in asked
    assert not Key.objects.exclude(revoked_at=None).exists()
    assert "Revoked 2 keys." in revoke(alice, first.key, second.key, reason="Left the company")
    assert [builders.reloaded(each.key).revoked_reason for each in (first, second, third)] == [
        "Left the company",
        "Left the company",
        "",
    ]
    assert builders.reloaded(third.key).revoked_at is None
    assert AuditEvent.objects.filter(act="key.revoked").count() == 2


def test_a_label_is_set_beside_the_others_and_removed(alice: Client, acme: Organization) -> None:
    first = builders.key(acme, name="First", metadata={"platform": "iOS", "team": "maps"}).key
    second = builders.key(acme, name="Second").key
    page = send(alice, "keys_label", first, second, confirmed="yes", name="team", value="payments")
    assert "Labelled 2 keys." in page
    assert builders.reloaded(first).metadata == {"platform": "iOS", "team": "payments"}
    assert builders.reloaded(second).metadata == {"team": "payments"}
    assert AuditEvent.objects.filter(act="key.edited").count() == 2
    send(alice, "keys_label", first, second, confirmed="yes", name="team", remove="on")
    assert builders.reloaded(first).metadata == {"platform": "iOS"}
    assert builders.reloaded(second).metadata == {}
    # What is there already is no act.
    send(alice, "keys_label", first, confirmed="yes", name="platform", value="iOS")
    assert AuditEvent.objects.filter(act="key.edited").count() == 4


def test_what_stays_as_it_was_is_named_and_stops_no_other(alice: Client, acme: Organization) -> None:
    good = builders.key(acme, name="Good").key
    full = builders.key(acme, name="Full", metadata={str(n): "x" for n in range(20)}).key
    gone = builders.key(acme, name="Gone").key
    lifecycle.revoke_key(lifecycle.command_actor(), gone, now=timezone.now())
    page = send(alice, "keys_label", full, gone, good, confirmed="yes", name="team", value="maps")
    assert "Labelled 1 key." in page
    assert "“Full” stays as it was: Metadata can have at most 20 entries." in page
    assert "“Gone” stays as it was: It is revoked already." in page
    assert builders.reloaded(good).metadata == {"team": "maps"}


def test_a_form_with_an_error_changes_nothing_and_keeps_what_was_chosen(
    alice: Client, acme: Organization
) -> None:
    key = builders.key(acme).key
    for reason in ("x" * 201, "a\x00b"):
        page = revoke(alice, key, reason=reason)
        assert "field-error" in page
        assert f'value="{key.public_id}"' in page
    assert "Give the label a name." in send(alice, "keys_label", key, confirmed="yes", name=" ")
    assert "stays as it was" in revoke(alice, key, reason="a\u2028b")
    assert builders.reloaded(key).revoked_at is None
    assert builders.reloaded(key).metadata == {}


def test_another_organizations_key_is_not_changed_nor_named(alice: Client, acme: Organization) -> None:
    mine = builders.key(acme).key
    other = builders.key(builders.organization("globex"), name="Theirs").key
    page = revoke(alice, mine, other)
    assert "Revoked 1 key." in page
    assert "1 more of what was chosen could not be changed." in page
    assert "Theirs" not in page
    assert builders.reloaded(other).revoked_at is None


@pytest.mark.parametrize("role", [Role.VIEWER, Role.BILLING])
def test_who_may_not_change_keys_sees_no_boxes(client: Client, acme: Organization, role: Role) -> None:
    key = builders.key(acme).key
    bob = builders.user("bob")
    builders.member(bob, acme, role)
    builders.signed_in(client, bob)
    page = client.get(url("keys")).text
    assert 'name="key"' not in page
    assert "Revoke…" not in page
    for name in ("keys_revoke", "keys_label"):
        data = {"key": key.public_id, "confirmed": "yes", "name": "a"}
        assert client.post(url(name), data).status_code == 403


def test_revoking_the_same_keys_twice_is_said_and_written_once(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    revoke(alice, key, reason="first")
    assert "It is revoked already." in revoke(alice, key, reason="second")
    assert builders.reloaded(key).revoked_reason == "first"
    assert key.events.filter(act="key.revoked").count() == 1


@pytest.mark.parametrize("junk", ["\x00", "x" * 5000, "key_", "🔑", ""])
def test_junk_is_not_chosen(alice: Client, acme: Organization, junk: str) -> None:
    for name in ("keys_revoke", "keys_label"):
        response = alice.post(
            url(name), {"key": [junk, junk], "confirmed": "yes", "back": junk, "name": junk}
        )
        assert response.status_code == 302
        assert response.headers["Location"].startswith(url("keys"))


def test_too_many_at_once_is_refused_before_any_is_changed(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    ids = [key.public_id, *(f"key_{n:016}" for n in range(key_list.MOST))]
    page = alice.post(url("keys_revoke"), {"key": ids, "confirmed": "yes"}, follow=True).text
    assert "At most 1,000 keys" in page
    assert builders.reloaded(key).revoked_at is None


def test_all_that_match_are_chosen_on_whatever_page(alice: Client, acme: Organization) -> None:
    for number in range(PAGE + 3):
        builders.key(acme, name=f"job {number}")
    builders.key(acme, name="billing")
    revoked = builders.key(acme, name="job of old").key
    revoke(alice, revoked)
    builders.key(builders.organization("globex"), name="job of theirs")
    assert f"All {PAGE + 4} on all pages" in alice.get(url("keys"), {"q": "job"}).text
    asked = alice.post(url("keys_revoke"), {"all": "yes", "back": "q=job&sort=-calls&page=2"})
    chosen = [key for key, _ in asked.context["chosen"]]
    assert {key.name for key in chosen} == {f"job {number}" for number in range(PAGE + 3)}
    assert f"Revoke {PAGE + 3} keys?" in asked.text
    page = revoke(alice, *chosen, back="q=job")
    assert f"Revoked {PAGE + 3} keys." in page
    assert [key.name for key in acme.keys.filter(revoked_at=None)] == ["billing"]


@pytest.mark.parametrize("back", ["", "q=", "q=none", "q=%00", "state=none&scope=%F0%9F%94%91&sort=-calls"])
def test_all_of_any_list_asks_or_says_that_there_is_none(
    alice: Client, acme: Organization, back: str
) -> None:
    builders.key(acme)
    assert alice.post(url("keys_label"), {"all": "yes", "back": back}).status_code in (200, 302)


def test_more_than_can_be_changed_at_once_is_not_chosen(
    alice: Client, acme: Organization, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert key_list.MOST < settings.DATA_UPLOAD_MAX_NUMBER_FIELDS - 10  # the form's other fields
    monkeypatch.setattr(key_list, "MOST", 30)
    keys = [builders.key(acme).key for _ in range(31)]
    asked = {"all": "yes", "back": ""}
    assert "At most 30 keys" in alice.post(url("keys_revoke"), asked, follow=True).text
    revoke(alice, keys.pop())
    asked_again = alice.post(url("keys_revoke"), asked)
    assert len(asked_again.context["chosen"]) == 30
    assert "Revoked 30 keys." in revoke(alice, *keys)


def test_one_comes_back_to_the_list_as_it_was_and_nowhere_else(alice: Client, acme: Organization) -> None:
    key = builders.key(acme).key
    data = {"key": key.public_id, "confirmed": "yes", "name": "a", "back": "q=Back&sort=name"}
    assert alice.post(url("keys_label"), data).headers["Location"] == f"{url('keys')}?q=Back&sort=name"
    data["back"] = "//evil.example/\r\nSet-Cookie: a=b"
    assert alice.post(url("keys_label"), data).headers["Location"].startswith(f"{url('keys')}?%2F%2Fevil")


LABELS = st.dictionaries(st.sampled_from("abcd"), st.one_of(st.none(), st.sampled_from("xyz")), max_size=4)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=st.lists(LABELS, max_size=6))
def test_labels_after_any_edits_are_what_was_said_last_of_each(
    acme: Organization, edits: list[dict[str, str | None]]
) -> None:
    stale = builders.key(acme).key
    expected: dict[str, str] = {}
    for labels in edits:
        # The same stale row each time: the act merges into what the database has.
        lifecycle.edit_key(lifecycle.command_actor(), stale, labels=labels, now=timezone.now())
        expected = {n: v for n, v in (expected | labels).items() if v is not None}
    assert builders.reloaded(stale).metadata == expected
