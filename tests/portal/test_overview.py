"""The overview: calls against the time before, the cost to the cent, what needs attention first."""

import datetime as dt

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.models import Key, Organization
from keys.permissions import Role
from portal import billing_pages, key_costs
from portal.overview import Figure, at_a_glance
from tests import builders
from tests.builders import NOW
from usage import meters, watch
from usage.billing import Period, closing, credits, so_far, statement
from usage.models import QuotaUse, Spool

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
PAGE = "/o/acme/"
JUNE = Period.of(NOW)
GRADUATED = {
    "model": "graduated",
    "included": 50,
    "tiers": [{"up_to": 700, "unit_price": "0.01"}, {"up_to": None, "unit_price": "0.003"}],
}


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"))


@pytest.fixture
def alice(client: Client, acme: Organization) -> Client:
    return builders.signed_in(client, acme.memberships.get().user)


def test_an_empty_overview_leads_to_the_first_key(alice: Client) -> None:
    html = alice.get(PAGE).text
    assert "No keys yet" in html
    assert f"{PAGE}keys/new/" in html


def test_a_key_without_calls_is_met_with_a_line_to_try(alice: Client, acme: Organization) -> None:
    builders.key(acme)
    assert "curl -i" in alice.get(PAGE).text


def test_calls_are_compared_with_as_much_of_the_time_before(acme: Organization) -> None:
    """Noon of 15 June: until one o'clock yesterday, and on 15 May, is as much of it."""
    key = builders.key(acme, now=NOW - 90 * DAY).key
    for hour in (NOW, NOW - DAY, NOW - DAY + HOUR, NOW.replace(month=5), NOW.replace(month=5) + HOUR):
        builders.used(key, 1, hour)
    builders.used(key, 1, NOW.replace(day=1, hour=0))
    builders.used(key, 1, NOW.replace(month=5, day=1, hour=0))
    builders.used(key, 1, NOW.replace(month=5, day=31))
    page = at_a_glance(acme, NOW, with_cost=False)
    assert page.today == Figure(1, "0%")
    assert page.month == Figure(4, "+100%")


@pytest.mark.parametrize(
    "moments",
    [
        # The 31st has no such day in February: all of it is before.
        ((3, 31, 12), (2, 28, 23), (1, 31, 12)),
        ((6, 1, 0), (5, 1, 0), (5, 1, 1)),
        ((6, 2, 23), (5, 2, 23), (5, 3, 0)),
    ],
)
def test_a_month_is_compared_with_no_more_than_the_one_before(
    acme: Organization, moments: tuple[tuple[int, int, int], ...]
) -> None:
    """Given as month, day and hour: usage counts until the same hour, and not after it."""
    now, before, after = (dt.datetime(2026, month, day, hour, tzinfo=dt.UTC) for month, day, hour in moments)
    key = builders.key(acme, now=now - 100 * DAY).key
    builders.used(key, 1, now)
    builders.used(key, 1, after)
    assert at_a_glance(acme, now, with_cost=False).month == Figure(1, "")
    builders.used(key, 1, before)
    assert at_a_glance(acme, now, with_cost=False).month == Figure(1, "0%")


def test_the_refusal_rate_links_to_the_calls_of_its_top_reason(alice: Client, acme: Organization) -> None:
    key, hour = builders.key(acme).key, timezone.now().replace(minute=0, second=0, microsecond=0)
    for n in range(6):
        builders.used(key, 1, hour, resource=str(n))
    for code, number in (("RATE_LIMITED", 2), ("EXPIRED", 1)):
        for n in range(number):
            builders.used(key, 0, hour, resource=str(n), outcome=code)
    builders.used(key, 0, hour - 7 * DAY, outcome="DISABLED")
    html = alice.get(PAGE).text
    assert '<a href="/o/acme/refusals/?code=RATE_LIMITED">33%</a>' in html
    assert "Mostly: rate limited" in html


# --- cost -----------------------------------------------------------------------------------------


def test_only_who_may_see_the_bill_sees_what_the_month_costs(client: Client, acme: Organization) -> None:
    builders.key(acme)
    month = Period.of(timezone.now())
    builders.subscription(acme, builders.version("basic", fee=4900), month.start)
    seen = {}
    for role in Role:
        if role is not Role.OWNER:
            builders.member(builders.user(role.value), acme, role)
        person = acme.memberships.get(role=role).user
        seen[role] = "49.00 USD" in builders.signed_in(client, person).get(PAGE).text
    assert [role for role in Role if seen[role]] == [Role.OWNER, Role.ADMIN, Role.BILLING]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    uses=st.lists(
        st.tuples(
            st.integers(0, 2),  # key
            st.integers(0, 60),  # days ago: of May too, which is closed
            st.sampled_from(["requests", "tokens"]),
            st.integers(1, 10_000),
        ),
        unique_by=lambda each: each[:3],
        max_size=8,
    ),
    credit=st.integers(0, 3),
    change=st.booleans(),
)
def test_what_a_month_costs_is_to_the_cent_what_its_lines_add_up_to(
    db: None, uses: list[tuple[int, int, str, int]], credit: int, change: bool
) -> None:
    """Late usage, credits, test keys and a change of plan included."""
    slug = f"acme-{Key.objects.count()}"
    acme, start = builders.organization(slug), JUNE.previous.previous.start
    keys = [builders.key(acme, environment="test" if n == 2 else "live", now=start).key for n in range(3)]
    first = builders.version(slug, fee=4900, requests=GRADUATED, tokens={"unit_price": "0.0007"})
    half = JUNE.start + 9 * DAY
    builders.subscription(acme, first, start, half if change else None)
    if change:
        builders.subscription(acme, builders.version(slug, fee=1000, requests={"unit_price": "0.02"}), half)
    if not statement.closed(JUNE.previous):
        closing.close(JUNE.previous.previous, lifecycle.command_actor(), now=NOW)
        closing.close(JUNE.previous, lifecycle.command_actor(), now=NOW)
    for n, ago, meter, quantity in uses:
        builders.used(keys[n], quantity, NOW - ago * DAY, meter=meter, booked=JUNE.first_day)
    for n in range(credit):
        credits.give(
            lifecycle.command_actor(),
            acme,
            amount=123,
            currency="USD",
            original=JUNE.previous,
            reason=str(n + 1),
            now=NOW,
        )
    found = so_far.of_organization(acme, NOW, NOW)
    bill = billing_pages.add_up(statement.lines_of(JUNE, acme), meters.read(), "USD")
    page = billing_pages.page(acme, NOW)
    assert (page.bill.rows, page.bill.total, page.estimate) == (
        bill.rows,
        bill.total,
        found and found.estimate_text,
    )
    assert found is not None
    assert (found.text, found.currency) == (bill.total, "USD")
    assert key_costs.costs(acme, None, NOW).rows == bill.by_key


# --- attention ------------------------------------------------------------------------------------


def test_what_has_ended_comes_before_what_will_and_what_may_be_amiss(
    alice: Client, acme: Organization
) -> None:
    now, actor = timezone.now(), lifecycle.command_actor()
    builders.key(acme, name="Fine")
    forever = builders.key(acme, name="Forever", expires_at=None).key
    builders.key(acme, name="Soon", expires_at=now + 6 * DAY + HOUR)
    gone = builders.key(acme, name="Gone", expires_at=now + DAY).key
    Key.objects.filter(pk=gone.pk).update(expires_at=now - DAY)
    lifecycle.disable_key(actor, builders.key(acme, name="Off").key, now=now)
    watch.refresh([forever], now)
    page = alice.get(PAGE).context["page"]
    assert [(todo.key.name, todo.badge.text) for todo in page.attention] == [
        ("Gone", "Expired"),
        ("Soon", "Expires in 6 days"),
        ("Forever", "Never expires"),
        ("Off", "Disabled"),
    ]
    assert (page.keys, page.active, page.expiring) == (5, 3, 1)
    lifecycle.revoke_key(actor, forever, reason="", now=now)
    assert "Forever" not in alice.get(PAGE).text


def test_the_overview_costs_twelve_queries_however_much_there_is(alice: Client, acme: Organization) -> None:
    now = timezone.now()
    month = Period.of(now).start
    lifecycle.edit_policy(lifecycle.command_actor(), acme.policy, quotas=["900/month"], now=now)
    QuotaUse.objects.create(organization=acme, key_id=0, meter="requests", unit="month", start=month)
    Spool.objects.create(id="aaaaaaaaaaa", host="east", pid=7, started_at=now, watermark=now)
    builders.subscription(acme, builders.version("basic", fee=4900, requests={"unit_price": "0.01"}), month)
    hour = now.replace(minute=0, second=0, microsecond=0)

    def grow(number: int) -> int:
        for _ in range(number):
            key = builders.key(acme, expires_at=now + 6 * DAY).key
            for n in range(number):
                builders.used(key, n, hour - n * DAY)
            watch.refresh([key], now)
        alice.get(PAGE)  # the session is warm
        with CaptureQueriesContext(connection) as captured:
            assert alice.get(PAGE).status_code == 200
        return len(captured)

    assert grow(1) == grow(5) <= 12
