"""Statements of closed months: the page, the file and its manifest are the export's, and nobody else's."""

import datetime as dt
import hashlib
import io
import json
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.models import Organization
from keys.permissions import Role
from portal import billing_pages
from portal.models import User
from tests import builders
from usage import meters
from usage.billing import Period, closing, money, months, statement
from usage.models import BillingAccount, ClosedPeriod, Credit, StatementLine

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


@pytest.fixture
def month(acme: Organization) -> Period:
    """Closed, with 12.34 of usage and a fee of 49.00; and others' lines beside it."""
    BillingAccount.objects.create(organization=acme, name="Acme Inc.", address="1 Road", tax_id="T-1")
    other = builders.organization("other")
    month = Period.of(timezone.now()).previous.previous
    builders.subscription(other, builders.version("basic", fee=9900), month.start, month.end)
    builders.used(builders.key(other, name="Not yours").key, 77, month.start)
    return builders.closed_month(acme, builders.key(acme, name="=Backend <b>").key)


def test_the_page_has_the_whole_statement(alice: Client, acme: Organization, month: Period) -> None:
    BillingAccount.objects.filter(organization=acme).update(name="Another", tax_id="T-2")
    response = alice.get(f"/o/acme/billing/{month}/")
    text = response.content.decode()
    for words in ("Acme Inc.", "1 Road", "T-1", "12.34", "49.00", "61.34", "=Backend &lt;b&gt;", "1,234"):
        assert words in text
    assert "Not yours" not in text
    assert ClosedPeriod.objects.get().sha256 in text
    file = alice.get(f"/o/acme/billing/{month}.csv").content
    assert hashlib.sha256(file).hexdigest() in text


def test_the_fee_of_a_part_of_a_month_tells_its_hours(alice: Client, acme: Organization) -> None:
    month = Period.of(timezone.now()).previous.previous
    begun = month.end - dt.timedelta(hours=1)
    builders.subscription(acme, builders.version("basic", fee=4900), begun, month.end)
    closing.close(month, lifecycle.command_actor(), now=timezone.now())
    assert "for 1 hour of the month" in alice.get(f"/o/acme/billing/{month}/").text


def test_the_list_has_each_month_with_its_total(alice: Client, month: Period) -> None:
    text = alice.get("/o/acme/billing/").content.decode()
    assert f"/o/acme/billing/{month}/" in text
    assert f"/o/acme/billing/{month}.csv" in text
    assert "61.34 USD" in text


def test_a_month_that_is_over_and_not_closed_is_listed_without_a_file(
    alice: Client, acme: Organization
) -> None:
    last = Period.of(timezone.now()).previous
    builders.subscription(acme, builders.version("basic", fee=700), last.start, last.end)
    text = alice.get("/o/acme/billing/").content.decode()
    assert "Still being counted" in text
    assert "7.00 USD" in text
    assert f"{last}.csv" not in text


def test_the_file_and_its_manifest_are_those_of_the_export(
    alice: Client, month: Period, tmp_path: Path
) -> None:
    path = tmp_path / "bill.csv"
    call_command(
        *("export_billing", "--period", str(month), "--organization", "acme", "--output", str(path)),
        stderr=io.StringIO(),
    )
    response = alice.get(f"/o/acme/billing/{month}.csv")
    assert response.content == path.read_bytes()
    assert f'filename="acme-{month}.csv"' in response.headers["Content-Disposition"]
    assert "no-store" in response.headers["Cache-Control"]
    facts = alice.get(f"/o/acme/billing/{month}.csv.manifest.json").json()
    assert facts == json.loads(Path(f"{path}.manifest.json").read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        *("1999-12", "2026-00", "2026-13", "9999-12", "0000-00"),
        *("2026-1", "x", "2026-01-01", "\uff12026-01", "2026-01\x00", "a" * 9999),
    ],
)
def test_what_is_no_closed_month_is_no_page(alice: Client, month: Period, name: str) -> None:
    for ending in ("/", ".csv", ".csv.manifest.json"):
        assert alice.get(f"/o/acme/billing/{name}{ending}").status_code == 404


def test_an_open_month_has_no_statement(alice: Client, acme: Organization, month: Period) -> None:
    now = Period.of(timezone.now())
    builders.subscription(acme, builders.version("later", fee=700), month.end)
    ClosedPeriod.objects.create(period=month.next.first_day, cut_at=timezone.now())  # cut, not yet written
    for period in (now, now.previous):
        for ending in ("/", ".csv", ".csv.manifest.json"):
            assert alice.get(f"/o/acme/billing/{period}{ending}").status_code == 404


def test_another_organizations_statement_is_not_found(client: Client, month: Period) -> None:
    bob = builders.user("bob")
    builders.organization("globex", bob)
    builders.signed_in(client, bob)
    for ending in ("/", ".csv", ".csv.manifest.json"):
        assert client.get(f"/o/acme/billing/{month}{ending}").status_code == 404
        assert client.get(f"/o/globex/billing/{month}{ending}").status_code == 404  # nothing was billed


def test_a_lost_host_is_named(alice: Client, month: Period) -> None:
    lost = [{"host": "web-<7>", "since": "2026-01-01T00:00:00+00:00", "reason": "burnt"}]
    ClosedPeriod.objects.update(retired_hosts=lost)
    assert "web-&lt;7&gt;" in alice.get(f"/o/acme/billing/{month}/").content.decode()


def test_more_keys_and_months_cost_no_more_queries(client: Client, acme: Organization) -> None:
    month = Period.of(timezone.now()).previous.previous.previous
    builders.subscription(acme, builders.version("basic", fee=700, requests={"unit_price": "1"}), month.start)
    counts = []
    for number in range(2):
        for _ in range(1 + 3 * number):
            builders.used(builders.key(acme).key, 5, month.start)
        closing.close(month, lifecycle.command_actor(), now=timezone.now())
        with CaptureQueriesContext(connection) as queries:
            assert billing_pages.statement_page(acme, month) is not None
        with CaptureQueriesContext(connection) as listing:
            months.of_organization(acme, 36)
        counts.append((len(queries), len(listing)))
        month = month.next
    assert counts[0] == counts[1]


@given(
    amounts=st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=8),
    currency=st.sampled_from(["USD", "JPY", "KWD", "CLF"]),
)
@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_database_adds_up_is_exact(acme: Organization, amounts: list[int], currency: str) -> None:
    StatementLine.objects.all().delete()
    ClosedPeriod.objects.all().delete()
    period = Period(2026, 1)
    closed = ClosedPeriod.objects.create(
        period=period.first_day, cut_at=timezone.now(), closed_at=timezone.now()
    )
    for position, amount in enumerate([*amounts, None], 1):
        StatementLine.objects.create(
            closed=closed,
            position=position,
            organization="acme",
            quantity=1,
            billable=1,
            kind="usage",
            amount="0" if amount is None else money.as_text(amount, currency),
            currency="" if amount is None else currency,
        )
    (found,) = months.of_organization(acme, 36)
    assert found.amounts == {currency: sum(amounts)}
    bill = billing_pages.add_up(statement.lines_of(period, acme), meters.read())
    assert bill.total == money.as_text(sum(amounts), currency)


def test_a_credit_stands_with_its_reason_and_in_its_own_currency(alice: Client, acme: Organization) -> None:
    month = Period.of(timezone.now())
    builders.subscription(acme, builders.version("basic", fee=700), month.start)
    for currency in ("USD", "JPY"):
        Credit.objects.create(
            organization=acme,
            original_period=month.previous.first_day,
            booked_period=month.first_day,
            amount=150,
            currency=currency,
            reason=f"Sorry <{currency}>",
            given_at=timezone.now(),
            given_by="sam",
        )
    bill = billing_pages.page(acme, timezone.now()).bill
    assert (bill.total, bill.others) == ("5.50", ["-150 JPY"])
    text = alice.get("/o/acme/billing/").content.decode()
    for words in ("5.50", "-1.50", "-150 JPY", "Sorry &lt;USD&gt;", "Sorry &lt;JPY&gt;"):
        assert words in text


def test_who_may_see_bills_may_see_statements(client: Client, acme: Organization, month: Period) -> None:
    for role, status in ((Role.BILLING, 200), (Role.VIEWER, 403), (Role.DEVELOPER, 403)):
        person = builders.user(role.value)
        builders.member(person, acme, role)
        builders.signed_in(client, person)
        for ending in ("/", ".csv", ".csv.manifest.json"):
            assert client.get(f"/o/acme/billing/{month}{ending}").status_code == status
