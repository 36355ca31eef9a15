"""The customers' billing page: the plan, the month so far as the export has it, and the estimate."""

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from keys.models import Key, Organization
from keys.permissions import Role
from portal import billing_pages, key_costs
from portal.models import User
from portal.pages import PAGE
from tests import builders
from usage import billing
from usage.billing import Period

pytestmark = pytest.mark.django_db


@pytest.fixture
def person(db: None) -> User:
    return builders.user("alice")


@pytest.fixture
def acme(person: User) -> Organization:
    return builders.organization("acme", person)


@pytest.fixture
def alice(client: Client, acme: Organization, person: User) -> Client:
    return builders.signed_in(client, person)


def used(key: Key, quantity: int, hour: dt.datetime) -> None:
    builders.rollup(
        organization_id=key.organization_id,
        hour=hour,
        key=key,
        meter="requests",
        outcome="VALID",
        booked_period=hour.date().replace(day=1),
        calls=1,
        quantity=quantity,
    )


def shown(client: Client) -> str:
    response = client.get("/o/acme/billing/")
    assert response.status_code == 200
    return response.content.decode()


def test_without_a_plan_the_page_says_so(alice: Client) -> None:
    assert "No plan yet" in shown(alice)


def test_without_a_plan_what_is_used_needs_no_currency(alice: Client, acme: Organization) -> None:
    used(builders.key(acme).key, 10, Period.of(timezone.now()).start)
    assert "No plan yet" in shown(alice)


def test_the_page_agrees_with_the_export(alice: Client, acme: Organization) -> None:
    period = Period.of(timezone.now())
    version = builders.version("basic", fee=4900, requests={"unit_price": "0.01", "included": 5})
    builders.subscription(acme, version, period.start)
    used(builders.key(acme, name="Backend <b>").key, 1234, period.start)

    bill = billing_pages.page(acme, timezone.now()).bill
    lines = list(billing.lines(period, acme))
    assert sorted(line.amount or "" for line in lines) == sorted([bill.used, bill.fee])
    assert (bill.used, bill.fee, bill.total) == ("12.29", "49.00", "61.29")
    text = shown(alice)
    assert "61.29" in text
    assert "Backend" not in text
    assert "Backend &lt;b&gt;" in alice.get("/o/acme/billing/?by=key").text


def test_test_keys_are_listed_apart_and_cost_nothing(acme: Organization) -> None:
    period = Period.of(timezone.now())
    version = builders.version("basic", requests={"unit_price": "0.01"})
    builders.subscription(acme, version, period.start)
    used(builders.key(acme, environment="test").key, 500, period.start)
    used(builders.key(acme).key, 100, period.start)

    bill = billing_pages.page(acme, timezone.now()).bill
    assert [(row.quantity, row.amount, row.free) for row in bill.rows] == [
        ("100", "1.00", False),
        ("500", "0.00", True),
    ]
    assert bill.rows[1].about == "by test keys, free"
    assert [row.used for row in key_costs.costs(acme, None, timezone.now()).rows] == [["Requests: 100"]]


def test_the_plan_and_its_prices_are_on_the_page_in_words(alice: Client, acme: Organization) -> None:
    tiers = [{"up_to": 1000, "unit_price": "0.02"}, {"up_to": None, "unit_price": "0.01"}]
    version = builders.version("basic", requests={"model": "graduated", "tiers": tiers, "included": 10_000})
    builders.subscription(acme, version, Period.of(timezone.now()).start)
    text = shown(alice)
    assert "10,000 a month included" in text
    assert "The first 1,000: 0.02 USD" in text
    assert "Beyond: 0.01 USD" in text


def test_a_plan_that_begins_later_is_announced(alice: Client, acme: Organization) -> None:
    later = Period.of(timezone.now()).end
    builders.subscription(acme, builders.version("grand"), later)
    assert "on the plan Grand" in shown(alice)


def test_more_keys_cost_no_more_queries(acme: Organization) -> None:
    period = Period.of(timezone.now())
    builders.subscription(acme, builders.version("basic", requests={"unit_price": "0.01"}), period.start)
    counts = []
    for _ in range(2):
        for _ in range(3):
            used(builders.key(acme).key, 10, period.start)
        with CaptureQueriesContext(connection) as queries:
            billing_pages.page(acme, timezone.now())
        with CaptureQueriesContext(connection) as by_key:
            key_costs.costs(acme, None, timezone.now())
        counts.append((len(queries), len(by_key)))
    assert counts[0] == counts[1]


def test_the_dearest_keys_come_first_and_the_others_on_further_pages(
    alice: Client, acme: Organization
) -> None:
    period = Period.of(timezone.now())
    builders.subscription(acme, builders.version("basic", requests={"unit_price": "0.01"}), period.start)
    for n in range(2):
        used(builders.key(acme, name=f"Key {n}").key, 100 * (n + 1), period.start)
    cheap = Key.objects.bulk_create(
        Key(organization=acme, name=f"Cheap {n}", created_at=period.start) for n in range(PAGE)
    )
    for key in cheap:
        used(key, 1, period.start)
    first, second = (alice.get("/o/acme/billing/", {"by": "key", "page": n}) for n in (1, 2))
    names = [row.name for row in first.context["costs"].rows]
    assert (len(names), names[:2]) == (PAGE, ["Key 1", "Key 0"])
    assert len(second.context["costs"].rows) == 2
    for page in (first, second):
        assert f"{3 + PAGE / 100:.2f}" in page.text  # of all keys
    junk = alice.get("/o/acme/billing/", {"by": "key", "page": "\x00"})
    assert junk.context["costs"].rows == first.context["costs"].rows


@pytest.mark.parametrize("others", [0, 100])
def test_each_key_is_named_however_many_there_are(acme: Organization, others: int) -> None:
    period = Period.of(timezone.now())
    builders.subscription(acme, builders.version("basic", requests={"unit_price": "0.01"}), period.start)
    named = builders.key(acme, name="Backend").key
    lost = Key(pk=999_999, organization=acme)  # that a restored database does not have
    cheap = Key.objects.bulk_create(
        Key(organization=acme, name=f"Cheap {n}", created_at=period.start) for n in range(others)
    )
    for key, quantity in ((named, 200), (lost, 100), *((key, 1) for key in cheap)):
        used(key, quantity, period.start)
    found = key_costs.costs(acme, None, timezone.now())
    assert [(row.public_id, row.name, row.amount) for row in found.rows[:2]] == [
        (named.public_id, "Backend", "2.00"),
        (f"unknown-{lost.pk}", "", "1.00"),
    ]
    assert {row.name.split()[0] for row in found.rows[2:]} == ({"Cheap"} if others else set())


def test_without_a_plan_no_key_costs_anything(alice: Client, acme: Organization) -> None:
    used(builders.key(acme).key, 10, Period.of(timezone.now()).start)
    assert "No plan yet" in alice.get("/o/acme/billing/?by=key").text


def test_a_developer_sees_no_bill(client: Client, acme: Organization) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.DEVELOPER)
    assert builders.signed_in(client, bob).get("/o/acme/billing/").status_code == 403
