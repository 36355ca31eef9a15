"""The customers' billing page: the plan, the month so far as the export has it, and the estimate."""

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from keys.models import Key, Organization
from keys.permissions import Role
from portal import billing_pages
from portal.models import User
from tests import builders
from usage import billing
from usage.billing import Period
from usage.models import Rollup

pytestmark = pytest.mark.django_db
HOUR = dt.timedelta(hours=1)


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
    Rollup.objects.create(
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


def test_the_page_agrees_with_the_export(alice: Client, acme: Organization) -> None:
    period = Period.of(timezone.now())
    version = builders.version("basic", fee=4900, requests={"unit_price": "0.01", "included": 5})
    builders.subscription(acme, version, period.start)
    used(builders.key(acme, name="Backend <b>").key, 1234, period.start)

    page = billing_pages.page(acme, timezone.now())
    lines = list(billing.lines(period, acme))
    assert sorted(line.amount or "" for line in lines) == sorted([page.used, page.fee])
    assert (page.used, page.fee, page.total) == ("12.29", "49.00", "61.29")
    text = shown(alice)
    assert "61.29" in text
    assert "Backend &lt;b&gt;" in text


def test_what_an_estimate_says_is_linear_from_the_elapsed_part() -> None:
    start = builders.NOW.replace(day=1, hour=0)
    assert billing_pages.estimate(1000, start, start + 10 * HOUR, start + 720 * HOUR) == 72_000
    assert billing_pages.estimate(1000, start, start, start + 720 * HOUR) == 1000


def test_more_keys_cost_no_more_queries(acme: Organization) -> None:
    period = Period.of(timezone.now())
    builders.subscription(acme, builders.version("basic", requests={"unit_price": "0.01"}), period.start)
    counts = []
    for _ in range(2):
        for _ in range(3):
            used(builders.key(acme).key, 10, period.start)
        with CaptureQueriesContext(connection) as queries:
            billing_pages.page(acme, timezone.now())
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_developer_sees_no_bill(client: Client, acme: Organization) -> None:
    bob = builders.user("bob")
    builders.member(bob, acme, Role.DEVELOPER)
    assert builders.signed_in(client, bob).get("/o/acme/billing/").status_code == 403
