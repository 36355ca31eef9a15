"""Plans are published once, and subscriptions never overlap: each act, what it refuses, and the audit."""

import datetime as dt
import io
from itertools import pairwise
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.audit import SYSTEM
from keys.lifecycle import Conflict, Forbidden, Invalid, Refused
from keys.models import AuditEvent, Organization
from keys.permissions import Role
from tests import builders
from usage.billing import plans, subscriptions
from usage.billing.plans import PriceSpec
from usage.models import Plan, PlanVersion, Price, Subscription

NOW = builders.NOW + dt.timedelta(minutes=20)  # 12:20
NEXT = builders.NOW.replace(hour=13)
DAY = dt.timedelta(days=1)
STAFF = lifecycle.command_actor()


@pytest.fixture
def acme(db: None) -> Organization:
    return builders.organization("acme")


def plan(slug: str = "basic") -> Plan:
    policy = lifecycle.create_policy(STAFF, slug=slug, name=slug, now=NOW)
    return plans.create_plan(STAFF, slug=slug, name=slug.title(), policy=policy, now=NOW)


def published(slug: str = "basic", currency: str = "USD") -> PlanVersion:
    version = plans.draft_version(STAFF, plan(slug), currency=currency, fee=100, now=NOW)
    return plans.publish(STAFF, version, now=NOW)


def held(organization: Organization) -> list[tuple[str, dt.datetime, dt.datetime | None]]:
    rows = Subscription.objects.filter(organization=organization).order_by("start", "pk")
    return [(row.version.plan.slug, row.start, row.end) for row in rows]


# --- plans ----------------------------------------------------------------------------------------


def test_a_version_is_edited_until_it_is_published_and_never_after(db: None) -> None:
    draft = plans.draft_version(STAFF, plan(), currency="USD", fee=100, now=NOW)
    price = PriceSpec("requests", unit_price="0.0100")
    plans.edit_draft(STAFF, draft, currency="JPY", fee=5, prices=[price], now=NOW)
    plans.publish(STAFF, draft, now=NOW)

    with pytest.raises(Conflict, match="never changes"):
        plans.edit_draft(STAFF, draft, currency="USD", fee=0, prices=[], now=NOW)
    with pytest.raises(Conflict):
        plans.publish(STAFF, draft, now=NOW)
    assert Price.objects.get().unit_price == "0.01"
    copy = plans.copy_version(STAFF, draft, now=NOW)
    copy.refresh_from_db()
    assert (copy.number, copy.currency, copy.fee, copy.published_at) == (2, "JPY", 5, None)
    assert [plans.spec_of(each) for each in copy.prices.all()] == [
        PriceSpec("requests", unit_price="0.01", tiers=[])
    ]


@pytest.mark.parametrize(
    ("field", "prices"),
    [
        ("meter", [PriceSpec("nothing", unit_price="1")]),
        ("model", [PriceSpec("requests", model="free", unit_price="1")]),
        ("unit_price", [PriceSpec("requests", unit_price="-1")]),
        ("unit_price", [PriceSpec("requests", unit_price="1" * 31)]),
        ("unit_price", [PriceSpec("requests", unit_price="NaN")]),
        ("unit_price", [PriceSpec("requests", unit_price="0.0000000000001")]),
        ("package", [PriceSpec("requests", model="package", unit_price="1", package=0)]),
        ("included", [PriceSpec("requests", unit_price="1", included=2**63)]),
        ("tiers", [PriceSpec("requests", model="volume")]),
        ("tiers", [PriceSpec("requests", model="volume", tiers=[(5, "1")])]),
        ("tiers", [PriceSpec("requests", model="graduated", tiers=[(5, "1"), (5, "1"), (None, "1")])]),
        ("resource", [PriceSpec("requests", resource="a\0b", unit_price="1")]),
        ("resource", [PriceSpec("requests", resource="\ud800", unit_price="1")]),
        ("prices", [PriceSpec("requests", unit_price="1"), PriceSpec("requests", unit_price="2")]),
    ],
)
def test_a_price_that_is_none_is_refused_at_its_field_and_writes_nothing(
    db: None, field: str, prices: list[PriceSpec]
) -> None:
    of = plan()
    with pytest.raises(Invalid) as caught:
        plans.draft_version(STAFF, of, currency="USD", fee=0, prices=prices, now=NOW)
    assert caught.value.field == field
    assert not PlanVersion.objects.exists()


@pytest.mark.parametrize(("currency", "fee"), [("XYZ", 0), ("usd", 0), ("USD", -1), ("USD", 10**16)])
def test_a_currency_or_fee_that_is_none_is_refused(db: None, currency: str, fee: int) -> None:
    with pytest.raises(Invalid):
        plans.draft_version(STAFF, plan(), currency=currency, fee=fee, now=NOW)


# --- subscriptions --------------------------------------------------------------------------------


def test_a_subscription_begins_with_the_next_hour_and_applies_the_plans_policy(acme: Organization) -> None:
    subscriptions.subscribe(STAFF, acme, published(), now=NOW)

    acme.refresh_from_db()
    assert held(acme) == [("basic", NEXT, None)]
    assert acme.policy.slug == "basic"
    assert AuditEvent.objects.order_by("-number")[0].act == "subscription.started"


def test_a_change_of_plan_ends_the_one_before_at_the_same_hour(acme: Organization) -> None:
    subscriptions.subscribe(STAFF, acme, published(), now=NOW)
    subscriptions.subscribe(STAFF, acme, published("pro"), at=NEXT + DAY, now=NOW)

    assert held(acme) == [("basic", NEXT, NEXT + DAY), ("pro", NEXT + DAY, None)]


def test_a_later_plans_policy_is_applied_in_its_hour_and_once(acme: Organization) -> None:
    subscriptions.subscribe(STAFF, acme, published(), now=NOW)
    subscriptions.subscribe(STAFF, acme, published("pro"), at=NEXT + DAY, now=NOW)

    assert subscriptions.apply_due(NEXT) == 0
    assert subscriptions.apply_due(NEXT + DAY) == 1
    assert subscriptions.apply_due(NEXT + DAY) == 0
    acme.refresh_from_db()
    assert acme.policy.slug == "pro"
    assert AuditEvent.objects.order_by("-number")[0].actor_kind == SYSTEM.kind


def test_a_cancelled_subscription_ends_and_one_to_come_never_was(acme: Organization) -> None:
    first = subscriptions.subscribe(STAFF, acme, published(), now=NOW)
    second = subscriptions.subscribe(STAFF, acme, published("pro"), at=NEXT + DAY, now=NOW)
    subscriptions.cancel(STAFF, second, now=NOW)
    assert subscriptions.in_force(acme, NEXT + 2 * DAY) is None
    with pytest.raises(Conflict):
        subscriptions.cancel(STAFF, first, at=NEXT + 2 * DAY, now=NOW)
    subscriptions.cancel(STAFF, first, now=NOW + DAY / 2)
    assert held(acme)[0][2] == NEXT + DAY / 2


def test_another_currency_begins_with_another_month_only(acme: Organization) -> None:
    subscriptions.subscribe(STAFF, acme, published(), now=NOW)
    yen = published("yen", "JPY")
    with pytest.raises(Conflict, match="billed in USD"):
        subscriptions.subscribe(STAFF, acme, yen, at=NEXT + DAY, now=NOW)
    assert held(acme) == [("basic", NEXT, None)]
    july = dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
    subscriptions.subscribe(STAFF, acme, yen, at=july, now=NOW)
    assert held(acme) == [("basic", NEXT, july), ("yen", july, None)]


def test_drafts_and_archived_plans_cannot_be_subscribed_to(acme: Organization) -> None:
    draft = plans.draft_version(STAFF, plan(), currency="USD", fee=0, now=NOW)
    with pytest.raises(Conflict, match="draft"):
        subscriptions.subscribe(STAFF, acme, draft, now=NOW)
    plans.publish(STAFF, draft, now=NOW)
    plans.archive_plan(STAFF, draft.plan, now=NOW)
    with pytest.raises(Conflict, match="archived"):
        subscriptions.subscribe(STAFF, acme, draft, now=NOW)


@pytest.mark.parametrize(
    "at",
    [
        NEXT + dt.timedelta(minutes=1),
        NEXT.replace(tzinfo=None),
        dt.datetime(1999, 12, 1, tzinfo=dt.UTC),
        NEXT + 4000 * DAY,
        NEXT - 401 * DAY,
    ],
)
@override_settings(USAGE_DETAIL_DAYS=400)
def test_a_moment_that_cannot_be_is_refused(acme: Organization, at: dt.datetime) -> None:
    version = published()
    with pytest.raises(Refused):
        subscriptions.subscribe(STAFF, acme, version, at=at, now=NOW)
    assert held(acme) == []


def test_members_of_the_organization_change_no_plan(acme: Organization) -> None:
    alice = builders.user("alice")
    actor = lifecycle.member_actor(alice, builders.member(alice, acme, Role.OWNER))
    version = published()
    with pytest.raises(Forbidden):
        subscriptions.subscribe(actor, acme, version, now=NOW)
    subscription = subscriptions.subscribe(STAFF, acme, version, now=NOW)
    with pytest.raises(Forbidden):
        subscriptions.cancel(actor, subscription, now=NOW)


STEPS = st.lists(st.tuples(st.sampled_from(["subscribe", "cancel"]), st.integers(-200, 200)), max_size=8)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_whatever_is_done_subscriptions_never_overlap(
    acme: Organization, steps: list[tuple[str, int]]
) -> None:
    Subscription.objects.all().delete()
    version = PlanVersion.objects.first() or published()
    for act, hours in steps:
        at = NEXT + dt.timedelta(hours=hours)
        newest = Subscription.objects.order_by("-pk").first()
        try:
            if act == "subscribe":
                subscriptions.subscribe(STAFF, acme, version, at=at, now=NOW)
            elif newest is not None:
                subscriptions.cancel(STAFF, newest, at=at, now=NOW)
        except Conflict:
            pass
    rows: list[Any] = [row for row in held(acme) if row[1] != row[2]]
    for before, after in pairwise(rows):
        assert before[2] is not None
        assert before[2] <= after[1]


# --- the command ----------------------------------------------------------------------------------


def test_the_command_subscribes_once_and_refuses_a_plan_that_is_none(db: None) -> None:
    published()
    for _ in range(2):
        call_command("create_organization", "acme", "--name", "Acme", "--plan", "basic", stderr=io.StringIO())
    found = Subscription.objects.get()
    assert found.start == subscriptions.next_hour(timezone.now())
    with pytest.raises(CommandError, match="no published plan"):
        call_command("create_organization", "new", "--name", "New", "--plan", "x", stderr=io.StringIO())
    assert not Organization.objects.filter(slug="new").exists()


def test_the_command_makes_nothing_for_a_plan_that_is_archived(db: None) -> None:
    argv = ("create_organization", "acme", "--name", "Acme", "--plan", "basic")
    of = published()
    call_command(*argv, stderr=io.StringIO())
    plans.archive_plan(STAFF, of.plan, now=NOW)

    call_command(*argv, stderr=io.StringIO())  # whoever is on it stays
    for more in ([], ["--dry-run"]):
        with pytest.raises(CommandError, match="archived"):
            call_command("create_organization", "new", *argv[2:], *more, stderr=io.StringIO())
    assert not Organization.objects.filter(slug="new").exists()
