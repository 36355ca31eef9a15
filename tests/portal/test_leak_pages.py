"""What a leak may have done: reports, calls, resources and sources of a key since it was exposed."""

import datetime as dt

import pytest
from django.http import QueryDict
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from keys import lifecycle
from keys.models import LeakDoor, LeakResponse, Organization
from keys.verdicts import Code
from portal import leak_pages
from tests import builders
from tests.builders import NOW, queries
from tests.portal.test_pages import calls
from usage.models import Source

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
LONG_AGO = NOW - 90 * DAY


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme")


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    person = builders.user("alice")
    builders.member(person, acme)
    return builders.signed_in(client, person)


@pytest.fixture
def issued(acme: Organization) -> lifecycle.Issued:
    return builders.key(acme, now=LONG_AGO, expires_at=NOW + 90 * DAY)


def report(issued: lifecycle.Issued, place: str = "https://example.com/1", at: dt.datetime = NOW) -> None:
    lifecycle.report_leak(
        issued.secret, door=LeakDoor.GITHUB, place=place, response=LeakResponse.NOTIFY, now=at
    )


def seen(issued: lifecycle.Issued, address: str, first: dt.datetime, last: dt.datetime) -> None:
    Source.objects.create(
        secret=issued.secret, address=address, user_agent="", calls=3, first_seen=first, last_seen=last
    )


def page_of(issued: lifecycle.Issued, query: str = "") -> leak_pages.KeyLeaks:
    return leak_pages.key_leaks(issued.key, QueryDict(query), NOW)


def test_a_week_before_the_first_report_is_looked_at(issued: lifecycle.Issued) -> None:
    report(issued, at=NOW - 2 * DAY)
    report(issued, "https://example.com/2")
    assert page_of(issued).since == NOW - 9 * DAY


def test_the_reader_says_since_when_it_was_exposed(issued: lifecycle.Issued) -> None:
    report(issued)
    assert page_of(issued, "since=2026-06-01").since == dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


@pytest.mark.parametrize("since", ["2020-01-01", "1971-01-01"])
def test_nothing_is_looked_at_before_the_key_was_made(issued: lifecycle.Issued, since: str) -> None:
    assert page_of(issued, f"since={since}").since == LONG_AGO


@pytest.mark.parametrize("since", ["", "x", "2026-02-30", "9999-12-31", "0001-01-01", "%00", "%ED%A0%80"])
def test_a_day_that_makes_no_sense_is_as_none(issued: lifecycle.Issued, since: str) -> None:
    report(issued)
    assert page_of(issued, f"since={since}").since == NOW - 7 * DAY


def test_a_day_to_come_looks_at_this_hour(issued: lifecycle.Issued) -> None:
    assert page_of(issued, "since=2027-01-01").since == NOW


def test_calls_are_those_since_the_exposure_by_resource(issued: lifecycle.Issued) -> None:
    now = timezone.now()
    report(issued, at=now)
    calls(issued.key, 5, ago=8 * DAY, resource="orders")
    calls(issued.key, 7, ago=6 * DAY, resource="orders")
    calls(issued.key, 9, resource="refunds")
    calls(issued.key, 2, Code.REVOKED)
    page = leak_pages.key_leaks(issued.key, QueryDict(), now)
    assert (page.totals.accepted, page.totals.refused) == (16, 2)
    assert [(name, found.accepted) for name, found in page.resources] == [
        ("refunds", 9),
        ("orders", 7),
        ("", 0),
    ]


def test_sources_that_were_never_seen_before_are_marked(issued: lifecycle.Issued) -> None:
    report(issued)
    seen(issued, "192.0.2.1", LONG_AGO, NOW)
    seen(issued, "198.51.100.7", NOW - DAY, NOW - DAY)
    seen(issued, "203.0.113.9", LONG_AGO, NOW - 30 * DAY)
    page = page_of(issued)
    assert [(each.source.address, each.is_new) for each in page.sources] == [
        ("192.0.2.1", False),
        ("198.51.100.7", True),
    ]
    assert page.new == 1


def test_the_key_page_leads_to_the_leak_and_the_leak_to_its_mends(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    kwargs = {"organization": "acme", "key_id": issued.key.public_id}
    here = reverse("key_leaks", kwargs=kwargs)
    assert here not in alice.get(reverse("key", kwargs=kwargs)).text
    unreported = alice.get(here).text
    assert "This key still works" not in unreported  # no alarm: nobody has reported it
    assert "Since it was exposed" not in unreported
    report(issued, "javascript:alert(1)//<b>" + "z" * 100, at=timezone.now())
    assert here in alice.get(reverse("key", kwargs=kwargs)).text
    html = alice.get(here).text
    assert "This key still works" in html
    assert "Since it was exposed" in html
    assert reverse("key_revoke", kwargs=kwargs) in html
    assert "&lt;b&gt;" + "z" * 100 in html
    assert 'href="javascript' not in html


def test_staff_see_everybodys_reports_and_each_keys(client: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    report(issued, at=timezone.now())
    sam = builders.signed_in(client, builders.staff())
    there = reverse("staff_key_leaks", kwargs={"key_id": issued.key.public_id})
    assert there in sam.get(reverse("staff_leaks"), {"page": "x"}).text
    assert "https://example.com/1" in sam.get(there).text
    nowhere = reverse("staff_key_leaks", kwargs={"key_id": "key_0000000000000000"})
    assert sam.get(nowhere).status_code == 404


def test_the_page_takes_as_many_queries_however_much_there_is(alice: Client, acme: Organization) -> None:
    issued = builders.key(acme)
    here = reverse("key_leaks", kwargs={"organization": "acme", "key_id": issued.key.public_id})
    counts = []
    for number in range(3):
        for each in range(number * 5):
            report(issued, f"https://example.com/{number}/{each}", at=timezone.now())
            seen(issued, f"192.0.2.{number * 20 + each}", timezone.now(), timezone.now())
            calls(issued.key, 1, resource=f"r{number}-{each}")
        counts.append(queries(alice, here))
    assert counts[1] == counts[2]
