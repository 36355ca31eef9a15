"""Billing alerts: who sets them, when one is reached, and that it is mailed once a month."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.lifecycle import Conflict, Forbidden, Invalid
from keys.models import AuditEvent, Key, Organization, Policy
from keys.permissions import Role
from portal import alerts as told
from portal import billing_pages
from portal.models import Mail, User
from tests import builders
from tests.threads import at_once
from usage.billing import Period, alerts
from usage.models import BillingAlert

pytestmark = pytest.mark.django_db
STAFF = lifecycle.command_actor()
NOW = builders.NOW
JUNE = Period.of(NOW)
NEW = "/o/acme/billing/alerts/new/"


@pytest.fixture
def person(db: None) -> User:
    return builders.user("alice")


@pytest.fixture
def acme(person: User) -> Organization:
    """On a plan of a dollar a request since June, and of this month."""
    acme = builders.organization("acme", person, now=NOW)
    builders.subscription(acme, builders.version("basic", requests={"unit_price": "1"}), JUNE.start)
    return acme


@pytest.fixture
def key(acme: Organization) -> Key:
    return builders.key(acme, now=NOW).key


@pytest.fixture
def alice(client: Client, acme: Organization, person: User) -> Client:
    return builders.signed_in(client, person)


def set_alert(of: Organization, kind: str = "amount", now: dt.datetime = NOW, **fields: Any) -> BillingAlert:
    return builders.alert(of, kind=kind, now=now, **fields)


def dollars(of: Organization, amount: str, **fields: Any) -> BillingAlert:
    return set_alert(of, amount=Decimal(amount), currency="USD", **fields)


# --- when one is reached --------------------------------------------------------------------------


def test_an_amount_is_told_once_a_month_to_owners_and_billing(acme: Organization, key: Key) -> None:
    builders.member(builders.user("bob"), acme, Role.BILLING)
    builders.member(builders.user("charlie"), acme, Role.DEVELOPER)
    dollars(acme, "100")
    builders.used(key, 99, JUNE.start)
    assert told.tell(NOW) == 0
    builders.used(key, 1, NOW)
    assert told.tell(NOW) == 1
    assert told.tell(NOW + dt.timedelta(hours=1)) == 0
    mails = Mail.objects.order_by("to")
    assert [mail.to for mail in mails] == ["alice@example.com", "bob@example.com"]
    assert mails[0].subject == "Acme: June 2026 has reached 100.00 USD"
    assert "/o/acme/billing/" in mails[0].text

    july = JUNE.next
    builders.used(key, 100, july.start)
    assert told.tell(july.start + dt.timedelta(days=5)) == 1
    assert Mail.objects.count() == 4


def test_what_is_reached_in_a_months_last_minutes_is_told_in_the_next(acme: Organization, key: Key) -> None:
    dollars(acme, "5")
    builders.used(key, 5, JUNE.end - dt.timedelta(hours=1))
    assert told.tell(JUNE.end + dt.timedelta(hours=1)) == 1
    assert "June" in Mail.objects.get().subject
    assert told.tell(JUNE.end + dt.timedelta(hours=2)) == 0


def test_a_share_of_a_budget(acme: Organization, key: Key) -> None:
    set_alert(acme, "budget", amount=Decimal(200), currency="USD", percent=80)
    builders.used(key, 159, JUNE.start)
    assert told.tell(NOW) == 0
    builders.used(key, 1, NOW)
    assert told.tell(NOW) == 1
    assert "80% of a budget of 200.00 USD" in Mail.objects.get().subject


def test_a_share_of_the_fullest_monthly_quota(acme: Organization, key: Key) -> None:
    Policy.objects.filter(pk=acme.policy_id).update(quotas=["1000/month", "1/day"])
    set_alert(acme, "quota", percent=50)
    builders.used(key, 499, JUNE.start)
    assert told.tell(NOW) == 0
    builders.used(key, 1, JUNE.start + dt.timedelta(hours=1))
    assert told.tell(NOW) == 1
    assert "500 of 1,000 requests" in Mail.objects.get().text


def test_without_plan_or_quota_nothing_is_reached(acme: Organization, key: Key) -> None:
    set_alert(acme, "quota", percent=1)
    yen = set_alert(acme, amount=Decimal(1), currency="JPY")
    builders.used(key, 100, NOW)
    assert told.tell(NOW) == 0
    page = billing_pages.page(acme, NOW)
    states = told.states(acme, page.bill, page.quotas, page.period)
    assert [(each.now, each.reached) for each in states] == [("", False), ("", False)]
    assert yen.currency == "JPY"


def test_a_suspended_organization_is_told_nothing(acme: Organization, key: Key) -> None:
    dollars(acme, "1")
    builders.used(key, 1, NOW)
    lifecycle.suspend_organization(STAFF, acme, reason="unpaid", now=NOW)
    assert told.tell(NOW) == 0


@given(amount=st.integers(1, 300), used=st.integers(0, 300), percent=st.integers(1, 200))
@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_alert_is_told_exactly_where_its_threshold_is_reached(
    acme: Organization, key: Key, amount: int, used: int, percent: int
) -> None:
    builders.nothing_used()
    BillingAlert.objects.all().delete()
    Mail.objects.all().delete()
    set_alert(acme, "budget", amount=Decimal(amount), currency="USD", percent=percent)
    if used:
        builders.used(key, used, JUNE.start)
    assert told.tell(NOW) == (used * 100 >= amount * percent)


@pytest.mark.django_db(transaction=True)
def test_of_two_workers_one_tells() -> None:
    acme = builders.organization("acme", builders.user("alice"), now=NOW)
    builders.subscription(acme, builders.version("basic", fee=500), JUNE.start)
    for amount in ("1", "2", "3"):
        dollars(acme, amount)
    outcomes = at_once([lambda: told.tell(NOW), lambda: told.tell(NOW)])
    assert sorted(str(each) for each in outcomes if isinstance(each, Exception)) == []
    assert sum(each for each in outcomes if isinstance(each, int)) == 3
    assert Mail.objects.count() == 3


# --- who sets them --------------------------------------------------------------------------------


def test_setting_and_removing_is_audited_and_for_some_roles(acme: Organization) -> None:
    before = AuditEvent.objects.count()
    alert = dollars(acme, "10")
    alerts.remove(STAFF, alert, now=NOW)
    alerts.remove(STAFF, alert, now=NOW)  # gone already
    events = AuditEvent.objects.order_by("number")[before:]
    assert [(event.act, event.data) for event in events] == [
        ("billing_alert.added", {"alert": "10.00 USD"}),
        ("billing_alert.removed", {"alert": "10.00 USD"}),
    ]
    bob = builders.user("bob")
    membership = builders.member(bob, acme, Role.DEVELOPER)
    with pytest.raises(Forbidden):
        alerts.add(lifecycle.member_actor(bob, membership), acme, kind="quota", percent=5, now=NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "x"},
        {"kind": "amount", "amount": None, "currency": "USD"},
        {"kind": "amount", "amount": Decimal(0), "currency": "USD"},
        {"kind": "amount", "amount": Decimal(-1), "currency": "USD"},
        {"kind": "amount", "amount": Decimal("0.001"), "currency": "USD"},
        {"kind": "amount", "amount": Decimal("NaN"), "currency": "USD"},
        {"kind": "amount", "amount": Decimal(10**15), "currency": "USD"},
        {"kind": "amount", "amount": Decimal(1), "currency": ""},
        {"kind": "budget", "amount": Decimal(1), "currency": "USD", "percent": None},
        {"kind": "budget", "amount": Decimal(1), "currency": "USD", "percent": 1001},
        {"kind": "quota", "percent": 101},
        {"kind": "quota", "percent": 0},
    ],
)
def test_what_is_no_alert_is_refused(acme: Organization, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        alerts.add(STAFF, acme, now=NOW, **fields)
    assert not BillingAlert.objects.exists()


def test_an_alert_is_there_once_and_there_are_at_most_twenty(acme: Organization) -> None:
    dollars(acme, "10")
    with pytest.raises(Conflict, match="already"):
        dollars(acme, "10.00")
    for amount in range(11, 30):
        dollars(acme, str(amount))
    with pytest.raises(Conflict, match="at most 20"):
        dollars(acme, "50")


def test_alerts_are_set_and_removed_on_pages(alice: Client, acme: Organization) -> None:
    assert "No alert yet" in alice.get("/o/acme/billing/").content.decode()
    response = alice.post(NEW, {"kind": "budget", "amount": "500", "percent": "80"}, follow=True)
    assert "80% of a budget of 500.00 USD" in response.content.decode()
    alert = BillingAlert.objects.get()
    assert alert.created_by is not None
    remove = f"/o/acme/billing/alerts/{alert.pk}/remove/"
    assert "Nobody is mailed about it any more" in alice.get(remove).content.decode()
    alice.post(remove)
    assert not BillingAlert.objects.exists()
    assert alice.post(remove).status_code == 404


@pytest.mark.parametrize("field", ["kind", "amount", "percent"])
@pytest.mark.parametrize(
    "value", ["", "x", "-1", "NaN", "Infinity", "1e400", "9" * 50, "\x00", "\ufffd", "1\x002", "a" * 2**20]
)
def test_junk_is_an_error_of_the_form(alice: Client, field: str, value: str) -> None:
    data = {"kind": "budget", "amount": "5", "percent": "5"} | {field: value}
    assert alice.post(NEW, data).status_code in (200, 400)
    assert not BillingAlert.objects.exists()


def test_another_organizations_alert_is_not_found(client: Client, acme: Organization) -> None:
    alert = dollars(acme, "10")
    bob = builders.user("bob")
    builders.organization("globex", bob)
    builders.signed_in(client, bob)
    for slug in ("acme", "globex"):
        for method in (client.get, client.post):
            assert method(f"/o/{slug}/billing/alerts/{alert.pk}/remove/").status_code == 404
    assert client.get(f"/o/globex/billing/alerts/{'9' * 19}/remove/").status_code == 404
    assert BillingAlert.objects.count() == 1


def test_the_page_shows_how_far_each_is(alice: Client, acme: Organization, key: Key) -> None:
    now = timezone.now()
    builders.used(key, 80, Period.of(now).start)
    dollars(acme, "100", now=now)
    dollars(acme, "50", now=now)
    text = alice.get("/o/acme/billing/").content.decode()
    assert "80%, 80.00 USD" in text
    assert "Reached" in text
    assert told.tell(now) == 1
    assert "Mailed" in alice.get("/o/acme/billing/").content.decode()


def test_more_alerts_cost_the_page_no_more_queries(alice: Client, acme: Organization) -> None:
    counts = []
    for amounts in (["1"], ["2", "3", "4"]):
        for amount in amounts:
            dollars(acme, amount)
        with CaptureQueriesContext(connection) as queries:
            alice.get("/o/acme/billing/")
        counts.append(len(queries))
    assert counts[0] == counts[1]
