"""An organization's audit trail: narrowed by what, who, which key and when; paged; the same as a file."""

import csv
import datetime as dt
import io
from typing import Any, cast

import pytest
from django.db import connection
from django.http import StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.audit import Actor
from keys.models import AuditEvent, Organization
from keys.permissions import Role
from portal import activity
from tests import builders

pytestmark = pytest.mark.django_db

HERE = "/o/acme/activity/"
JUNK = ["\x00", "x" * 5000, "no.such", "' OR 1=1", "99999999999999999999", "-1", "%", "../../etc/passwd"]


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def titles(client: Client, **query: str) -> list[str]:
    response = client.get(HERE, query)
    assert response.status_code == 200
    return [entry.title for entry in response.context["page"].entries]


def file(client: Client, **query: str) -> list[dict[str, str]]:
    response = cast("StreamingHttpResponse", client.get("/o/acme/activity.csv", query))
    assert response.streaming
    text = b"".join(cast("Any", response.streaming_content)).decode()
    return list(csv.DictReader(io.StringIO(text)))


def test_it_says_what_was_done_in_plain_words(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme, name="Old name")
    path = reverse("key_edit", args=["acme", issued.key.public_id])
    alice.post(path, {"name": "New name", "expiry": "keep"})
    html = alice.get(HERE).text
    assert "Key edited" in html
    assert "Old name → New name" in html
    assert "The provider, by command" in html
    assert "key.edited</" not in html


def test_it_is_narrowed_by_act_actor_and_key(alice: Client, acme: Organization) -> None:
    issued, other = builders.key(acme, name="Map tiles"), builders.key(acme, name="Routes")
    alice.post(reverse("key_disable", args=["acme", issued.key.public_id]))
    assert titles(alice, act="key.created") == ["Key created", "Key created"]
    assert titles(alice, actor="ALICE") == ["Key disabled"]
    assert titles(alice, key="tiles") == ["Key disabled", "Key created"]
    assert titles(alice, key=other.key.public_id) == ["Key created"]
    assert titles(alice, key="tiles", act="key.disabled", actor="alice") == ["Key disabled"]
    assert "Nothing matches" in alice.get(HERE, {"actor": "nobody"}).text


def test_a_day_is_one_of_the_viewers_zone(alice: Client, acme: Organization) -> None:
    # 23:30 UTC on the 14th is the 15th in Berlin.
    builders.key(acme, now=dt.datetime(2026, 6, 14, 23, 30, tzinfo=dt.UTC))
    fifteenth = {"act": "key.created", "start": "2026-06-15", "end": "2026-06-15"}
    assert titles(alice, **fifteenth) == []
    assert titles(alice, **fifteenth, zone="Europe/Berlin") == ["Key created"]
    assert titles(alice, **fifteenth, zone="America/New_York") == []
    assert "Days are those of Europe/Berlin" in alice.get(HERE, fifteenth | {"zone": "Europe/Berlin"}).text


@pytest.mark.parametrize("zone", ["Europe", "/etc/passwd", "../UTC", "Mars/Phobos", "a" * 65, "\x00", "."])
def test_a_zone_that_is_none_is_utc(acme: Organization, zone: str) -> None:
    assert activity.FilterForm({"zone": zone}).zone_info is dt.UTC


@pytest.mark.parametrize("junk", JUNK)
def test_junk_narrows_nothing_or_finds_nothing(alice: Client, acme: Organization, junk: str) -> None:
    builders.key(acme)
    for name in ("act", "start", "end", "zone", "after", "before"):
        assert alice.get(HERE, {name: junk}).status_code == 200
    assert len(titles(alice, act=junk, start=junk, end=junk, zone=junk)) == 2
    assert alice.get(HERE, dict.fromkeys(("act", "actor", "key", "start", "end"), junk)).status_code == 200
    assert alice.get("/o/acme/activity.csv", dict.fromkeys(("actor", "key"), junk)).status_code == 200


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31", "1969-12-31"])
def test_a_day_at_the_end_of_time_narrows_nothing(alice: Client, acme: Organization, day: str) -> None:
    for zone in ("", "Pacific/Kiritimati", "Pacific/Pago_Pago"):
        assert titles(alice, start=day, end=day, zone=zone) == ["Organization created"]


def test_pages_follow_one_another_and_lose_nothing(alice: Client, acme: Organization) -> None:
    for number in range(110):
        name = f"Name {number}"
        lifecycle.edit_organization(lifecycle.command_actor(), acme, name=name, now=timezone.now())
    seen: list[int] = []
    address = HERE + "?act=organization.edited"
    while address:
        page = alice.get(address).context["page"]
        seen += [entry.number for entry in page.entries]
        address = page.older and f"{HERE}?{page.older}"
    assert len(seen) == len(set(seen)) == 110
    assert seen == sorted(seen, reverse=True)
    last = alice.get(f"{HERE}?act=organization.edited&before={seen[99]}").context["page"]
    back = alice.get(f"{HERE}?{last.newer}").context["page"]
    assert [entry.number for entry in back.entries] == seen[50:100]
    assert "act=organization.edited" in back.newer
    assert alice.get(f"{HERE}?{back.newer}").context["page"].newer == ""
    assert [int(row["number"]) for row in file(alice, act="organization.edited")] == seen


def test_a_page_asks_as_often_for_many_events_as_for_few(alice: Client, acme: Organization) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            alice.get(HERE)
        return len(found)

    few = queries()
    for number in range(6):
        builders.key(acme, name=f"Key {number}")
    assert queries() == few <= 8


def test_the_file_is_what_the_page_shows_and_runs_no_formula(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme, name="=cmd|' /C calc'!A0")
    mallory = Actor("staff", "+mallory@example.com")
    lifecycle.disable_key(mallory, issued.key, now=timezone.now())
    rows = file(alice, key=issued.key.public_id)
    assert [each["what"] for each in rows] == ["Key disabled", "Key created"]
    assert rows[0]["key_name"] == "'=cmd|' /C calc'!A0"
    assert rows[0]["actor"] == "'+mallory@example.com (staff)"
    assert rows[0]["hash"] == AuditEvent.objects.get(number=rows[0]["number"]).hash
    assert dt.datetime.fromisoformat(rows[0]["at"]).tzinfo is not None
    assert [each["number"] for each in file(alice, act="key.disabled")] == [rows[0]["number"]]


def test_the_file_is_not_kept_by_anybody_on_its_way(alice: Client) -> None:
    response = alice.get("/o/acme/activity.csv")
    assert "no-store" in response.headers["Cache-Control"]
    assert response.headers["Content-Disposition"] == 'attachment; filename="activity-acme.csv"'


def test_the_file_is_read_in_parts(
    alice: Client, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activity, "CHUNK", 2)
    for number in range(5):
        builders.key(acme, name=f"Key {number}")
    assert len(file(alice)) == 6


def test_another_organizations_events_are_in_neither(alice: Client) -> None:
    builders.key(builders.organization("other"), name="Theirs")
    assert titles(alice) == ["Organization created"]
    assert len(file(alice)) == 1


def test_an_event_leads_to_where_it_shows_if_the_reader_may_go_there(
    alice: Client, acme: Organization
) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.DEVELOPER)
    builders.alert(acme)
    assert 'href="/o/acme/billing/"' in alice.get(HERE).text
    theirs = builders.signed_in(Client(), bob).get(HERE).text
    assert '<a href="/o/acme/team/">Member added</a>' in theirs
    assert "/o/acme/billing/" not in theirs
