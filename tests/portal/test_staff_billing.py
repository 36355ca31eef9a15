"""The staff's billing page: revenue by plan that adds up to the statements, and how each month stands."""

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from keys import lifecycle
from keys.models import Organization
from portal import staff_billing
from tests import builders
from usage.billing import Period, closing, revenue, statement, verifying
from usage.billing.statement import Totals
from usage.models import ClosedPeriod, Credit, Verification

pytestmark = pytest.mark.django_db
STAFF = lifecycle.command_actor()
MAY = Period(2026, 5)
NOW = builders.NOW  # in June
CENT = {"unit_price": "0.01", "included": 10}


@pytest.fixture
def sam(client: Client) -> Client:
    return builders.signed_in(client, builders.staff())


def customer(slug: str, plan: str, *used: int, currency: str = "USD", month: Period = MAY) -> Organization:
    """On a plan from the month on, with a key for each quantity used in it, and a test key."""
    organization = builders.organization(slug)
    version = builders.version(plan, currency=currency, fee=700, requests=CENT)
    builders.subscription(organization, version, month.start)
    for quantity in used:
        builders.used(builders.key(organization).key, quantity, month.start)
    builders.used(builders.key(organization, environment="test").key, 10**6, month.start)
    return organization


def credit(of: Organization, amount: int, booked: Period = MAY) -> Credit:
    return Credit.objects.create(
        organization=of,
        original_period=booked.previous.first_day,
        booked_period=booked.first_day,
        amount=amount,
        currency="USD",
        reason="Sorry <b>",
        given_at=NOW,
        given_by="sam",
    )


def test_revenue_is_by_plan_and_currency_and_the_same_when_closed() -> None:
    acme = customer("acme", "basic", 110, 200)
    customer("globex", "basic", 15)
    customer("initech", "grand", 1000, currency="JPY")
    credit(acme, 50)
    expected = [
        # 10 requests of each organization are included.
        ("Grand", "JPY", 1, 700, 10, 0),
        ("Basic", "USD", 2, 1400, 300 + 5, -50),
    ]
    assert [tuple(row) for row in revenue.by_plan(MAY)] == expected
    closing.close(MAY, STAFF, now=NOW)
    assert [tuple(row) for row in revenue.by_plan(MAY)] == expected


def test_revenue_adds_up_to_the_statement() -> None:
    for slug, plan in (("acme", "basic"), ("globex", "grand"), ("initech", "basic")):
        credit(customer(slug, plan, 123, 4567), 99)
    before = revenue.by_plan(MAY)
    totals = Totals()
    list(totals.of(statement.lines_of(MAY)))
    assert totals.amount_by_currency == {"USD": f"{sum(row.total for row in before) / 100:.2f}"}


def test_who_changed_plans_counts_under_the_last() -> None:
    acme = builders.organization("acme")
    middle = MAY.start + dt.timedelta(days=15)
    builders.subscription(acme, builders.version("basic", fee=3100), MAY.start, middle)
    builders.subscription(acme, builders.version("grand", fee=6200), middle)
    assert [(row.plan, row.fees) for row in revenue.by_plan(MAY)] == [("Grand", 1500 + 3200)]


def test_each_month_says_how_it_stands() -> None:
    customer("acme", "basic", 10, month=MAY.previous)
    closing.close(MAY.previous, STAFF, now=NOW)
    states = [(str(row.period), row.state) for row in staff_billing.page(MAY, NOW).months]
    assert states == [("2026-06", "open"), ("2026-05", "ready"), ("2026-04", "closed")]
    soon = MAY.end + dt.timedelta(hours=1)
    (_, may, _) = staff_billing.page(MAY, soon).months
    assert may.state == "waits"
    assert "2026-06-02" in may.text
    ClosedPeriod.objects.create(period=MAY.first_day, cut_at=NOW)
    assert staff_billing.page(MAY, NOW).months[1].state == "waits"


def test_the_page_shows_it_to_staff(sam: Client) -> None:
    month = Period.of(timezone.now())
    credit(customer("acme", "basic", 110, month=month), 50, month)
    text = sam.get("/staff/billing/").content.decode()
    for words in (
        "Basic",
        "7.00",
        "1.00",
        "-0.50",
        "7.50 USD",
        "Sorry &lt;b&gt;",
        "/admin/usage/credit/add/",
    ):
        assert words in text
    assert sam.get(f"/staff/billing/?period={month.previous}").status_code == 200


def test_without_anything_the_page_says_so(sam: Client) -> None:
    assert "Nobody is on a plan" in sam.get("/staff/billing/").content.decode()


@pytest.mark.parametrize("period", ["x", "2026-13", "9000-01", "9999-99", "", "a" * 5000, "\x00", "\udcff"])
def test_what_is_no_month_is_said_and_no_error(sam: Client, period: str) -> None:
    text = period.encode("utf-8", "surrogatepass")
    assert sam.get("/staff/billing/", {"period": text}).status_code == 400


def test_more_customers_and_months_cost_no_more_queries() -> None:
    counts = []
    for slugs in (["acme"], ["globex", "initech", "umbrella"]):
        for slug in slugs:
            credit(customer(slug, f"plan-{slug}", 10, 20), 5)
        with CaptureQueriesContext(connection) as queries:
            staff_billing.page(MAY, NOW)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_what_verify_billing_found_last_is_shown(sam: Client) -> None:
    customer("acme", "basic", 110)
    closing.close(MAY, STAFF, now=NOW)
    verifying.keep(str(MAY), "", now=NOW)
    assert "As closed, verified" in sam.get("/staff/billing/").text
    verifying.keep(str(MAY), "its lines have <b>another</b> SHA-256.", now=NOW)
    verifying.keep(Verification.JOURNALS, "they have 2 calls of requests, the roll-ups 3.", now=NOW)
    text = sam.get("/staff/billing/").text
    assert "Differs: its lines have &lt;b&gt;another&lt;/b&gt; SHA-256." in text
    assert "Differs: they have 2 calls of requests, the roll-ups 3." in text
    assert "As closed, verified" not in text
