"""What comes late for a closed month, and credits: lines of the month that is open, which add up to it."""

import datetime as dt
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from keys import lifecycle
from keys.lifecycle import Forbidden, Invalid
from keys.models import AuditEvent, Key
from tests import builders
from usage.billing import Line, Period, closing, credits, statement
from usage.models import (
    ClosedPeriod,
    Credit,
    OrganizationRollup,
    PlanVersion,
    Price,
    Rollup,
    StatementAccount,
    StatementLine,
    Subscription,
)

APRIL, MAY, JUNE, JULY = (Period(2026, month) for month in (4, 5, 6, 7))
CENT = {"unit_price": "0.01"}
MIDDLE = dt.datetime(2026, 5, 15, 10, tzinfo=dt.UTC)
VOLUME = {
    "model": "volume",
    "tiers": [{"up_to": 10, "unit_price": "0.02"}, {"up_to": None, "unit_price": "0.01"}],
}
GRADUATED = {
    "model": "graduated",
    "included": 7,
    "tiers": [{"up_to": 10, "unit_price": "0.025"}, {"up_to": None, "unit_price": "0.007"}],
}
PACKAGE = {"model": "package", "package": 8, "unit_price": "0.50", "included": 3}


@pytest.fixture(autouse=True)
def _at_once(settings: Settings) -> None:
    settings.BILLING_GRACE_HOURS = 0


@pytest.fixture
def key(db: None) -> Key:
    return builders.key(builders.organization("acme")).key


def subscribed(key: Key, price: dict[str, Any], start: dt.datetime = MAY.start) -> Subscription:
    return builders.subscription(key.organization, builders.version("basic", requests=price), start)


def close(*periods: Period) -> None:
    for period in periods:
        closing.close(period, lifecycle.command_actor(), now=period.end)


def late(
    key: Key, quantity: int, *, booked: Period = JUNE, hour: dt.datetime = MAY.start, **fields: Any
) -> None:
    builders.used(key, quantity, hour, booked=booked.first_day, **fields)


def corrections(period: Period = JUNE) -> list[Line]:
    return [line for line in statement.lines_of(period) if line.kind == "correction"]


def facts(lines: list[Line]) -> list[tuple[object, ...]]:
    return [(line.quantity, line.included, line.billable, line.amount) for line in lines]


# --- late usage -----------------------------------------------------------------------------------


def test_late_usage_is_the_month_rated_again_less_what_was_billed(key: Key) -> None:
    subscribed(key, CENT | {"included": 10})
    builders.used(key, 15, MAY.start)
    close(MAY)
    late(key, 30)

    [line] = corrections()

    assert line == Line(
        "2026-06", "acme", "Acme", None, key.public_id, "Backend", "live", "requests", None, "request", None,
        30, 0, 30, None, "0.30", "USD", "correction", "2026-05",
    )  # fmt: skip


def test_what_was_included_and_not_used_in_time_is_included_late(key: Key) -> None:
    subscribed(key, CENT | {"included": 10})
    builders.used(key, 4, MAY.start)
    close(MAY)
    late(key, 10)

    assert facts(corrections()) == [(10, 6, 4, "0.04")]


def test_late_usage_is_billed_though_its_sums_without_keys_are_missing(key: Key) -> None:
    """As a worker of a version that knew nothing of those counts it."""
    subscribed(key, CENT)
    builders.used(key, 15, MAY.start)
    close(MAY)
    late(key, 30)
    OrganizationRollup.objects.filter(booked_period=JUNE.first_day).delete()

    assert facts(corrections()) == [(30, 0, 30, "0.30")]


def test_a_correction_may_be_less_than_nothing(key: Key) -> None:
    subscribed(key, VOLUME)
    builders.used(key, 10, MAY.start)
    close(MAY)
    late(key, 1)

    assert facts(corrections()) == [(1, 0, 1, "-0.09")]


def test_what_was_held_for_too_much_comes_off(key: Key) -> None:
    subscribed(key, CENT)
    builders.used(key, 10, MAY.start)
    close(MAY)
    late(key, -4)

    assert facts(corrections()) == [(-4, 0, -4, "-0.04")]


def test_the_difference_is_shared_over_the_late_quantities(key: Key) -> None:
    subscribed(key, CENT)
    others = [builders.key(key.organization).key for _ in range(2)]
    builders.used(key, 100, MAY.start)
    close(MAY)
    late(others[0], 20)
    late(others[1], 10)

    assert {line.key: line.amount for line in corrections()} == {
        others[0].public_id: "0.20",
        others[1].public_id: "0.10",
    }


def test_a_second_correction_counts_the_first(key: Key) -> None:
    subscribed(key, VOLUME)
    builders.used(key, 10, MAY.start)
    close(MAY)
    late(key, 1)
    close(JUNE)
    late(key, 9, booked=JULY)

    assert facts(corrections(JUNE)) == [(1, 0, 1, "-0.09")]
    assert facts(corrections(JULY)) == [(9, 0, 9, "0.09")]


def test_what_was_billed_is_read_from_the_statement(key: Key) -> None:
    subscribed(key, CENT)
    builders.used(key, 10, MAY.start)
    close(MAY)
    StatementLine.objects.update(amount="0.04")
    late(key, 1)

    assert facts(corrections()) == [(1, 0, 1, "0.07")]


def test_late_usage_is_priced_by_the_subscription_of_its_own_hour(key: Key) -> None:
    cheap, dear = (
        builders.version("basic", requests=CENT),
        builders.version("pro", requests={"unit_price": "1"}),
    )
    builders.subscription(key.organization, cheap, MAY.start, MIDDLE)
    builders.subscription(key.organization, dear, MIDDLE)
    close(MAY)
    late(key, 1)
    late(key, 1, hour=MIDDLE)

    assert facts(corrections()) == [(2, 0, 2, "1.01")]


def test_a_late_resource_with_a_price_of_its_own_has_a_line_of_its_own(key: Key) -> None:
    version = subscribed(key, CENT).version
    Price.objects.create(version=version, meter="requests", resource="large", unit_price="1")
    close(MAY)
    late(key, 1, resource="large")
    late(key, 1, resource="small")

    assert [(line.resource, line.amount) for line in corrections()] == [(None, "0.01"), ("large", "1.00")]


def test_late_test_usage_is_listed_at_0(key: Key) -> None:
    subscribed(key, CENT)
    close(MAY)
    late(builders.key(key.organization, environment="test").key, 5)

    assert facts(corrections()) == [(5, 0, 0, "0.00")]


def test_late_usage_of_a_month_without_prices_has_none(key: Key) -> None:
    subscribed(key, CENT)
    builders.used(key, 1, APRIL.start)
    close(APRIL, MAY)
    late(key, 5, hour=APRIL.start)

    [line] = corrections()
    assert (line.original_period, line.quantity, line.billable) == ("2026-04", 5, 5)
    assert (line.included, line.amount, line.currency) == (None, None, None)


def test_late_usage_of_a_month_before_the_subscription_costs_nothing(key: Key) -> None:
    subscribed(key, CENT)
    other = builders.organization("globex")
    builders.subscription(other, builders.version("basic", requests=CENT), APRIL.start)
    close(APRIL, MAY)
    late(key, 5, hour=APRIL.start)

    assert facts(corrections()) == [(5, 0, 5, "0")]


def test_refused_calls_that_come_late_are_not_billed(key: Key) -> None:
    subscribed(key, CENT)
    close(MAY)
    late(key, 5, outcome="EXPIRED")

    assert corrections() == []


def test_an_organization_has_its_own_corrections_in_their_place(key: Key) -> None:
    subscribed(key, CENT)
    other = builders.key(builders.organization("globex")).key
    close(MAY)
    builders.used(key, 1, JUNE.start)
    late(key, 2)
    late(other, 3)

    mine = list(statement.lines_of(JUNE, key.organization))
    assert {(line.kind, line.quantity) for line in mine} == {("correction", 2), ("usage", 1)}
    assert [line for line in statement.lines_of(JUNE) if line.organization == "acme"] == mine
    assert [line.organization for line in statement.lines_of(JUNE)] == ["acme", "acme", "globex"]


def test_usage_that_cancels_out_over_two_subscriptions_is_still_corrected(key: Key) -> None:
    cheap, dear = (
        builders.version("basic", requests=CENT),
        builders.version("pro", requests={"unit_price": "1"}),
    )
    builders.subscription(key.organization, cheap, MAY.start, MIDDLE)
    builders.subscription(key.organization, dear, MIDDLE)
    builders.used(key, 10, MAY.start)
    close(MAY)
    late(key, -5)
    late(key, 5, hour=MIDDLE)

    assert facts(corrections()) == [(0, 0, 0, "4.95")]


USES = st.lists(
    st.tuples(
        st.sampled_from([MAY, JUNE, JULY]),  # booked to
        st.integers(min_value=0, max_value=1),  # key
        st.sampled_from([MAY.start, MIDDLE, MAY.end - dt.timedelta(hours=1)]),
        st.integers(min_value=1, max_value=40),
    ),
    max_size=12,
)


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(uses=USES, price=st.sampled_from([CENT, CENT | {"included": 30}, VOLUME, GRADUATED, PACKAGE]))
def test_a_month_and_its_corrections_add_up_to_what_it_costs_in_time(
    key: Key, uses: list[tuple[Period, int, dt.datetime, int]], price: dict[str, Any]
) -> None:
    for model in (StatementLine, StatementAccount, ClosedPeriod, Rollup, Subscription, Price, PlanVersion):
        model._default_manager.all().delete()
    keys = [key, Key.objects.exclude(pk=key.pk).first() or builders.key(key.organization).key]
    subscribed(key, price)
    totals: Counter[tuple[Period, int, dt.datetime]] = Counter()
    for booked, which, hour, quantity in uses:
        totals[booked, which, hour] += quantity
    for (booked, which, hour), quantity in totals.items():
        builders.used(keys[which], quantity, hour, booked=booked.first_day)
    close(MAY, JUNE, JULY)
    split = [line for period in (MAY, JUNE, JULY) for line in statement.lines_of(period)]

    StatementLine.objects.all().delete()
    StatementAccount.objects.all().delete()
    ClosedPeriod.objects.all().delete()
    Rollup.objects.all().delete()
    for hour in {hour for _, _, hour in totals}:
        for which in (0, 1):
            if whole := sum(totals[each] for each in totals if each[1:] == (which, hour)):
                builders.used(keys[which], whole, hour)
    in_time = list(statement.lines_of(MAY))

    def sums(lines: list[Line]) -> tuple[int, int, int, Decimal]:
        amount = sum((Decimal(line.amount or 0) for line in lines), Decimal(0))
        return (
            sum(line.quantity for line in lines),
            sum(line.included or 0 for line in lines),
            sum(line.billable for line in lines),
            amount,
        )

    assert sums(split) == sums(in_time)
    assert all(line.quantity == (line.included or 0) + line.billable for line in split)


# --- credits --------------------------------------------------------------------------------------


def give(key: Key, **fields: Any) -> Credit:
    asked: dict[str, Any] = {
        "original": MAY,
        "amount": 250,
        "currency": "USD",
        "reason": "An outage",
    } | fields
    return credits.give(lifecycle.command_actor(), key.organization, now=builders.NOW, **asked)


def test_a_credit_is_a_correction_without_a_key_in_the_month_that_is_open(key: Key) -> None:
    subscribed(key, CENT)
    close(MAY)

    give(key)

    assert corrections() == [
        Line(
            "2026-06", "acme", "Acme", None, "", "", "", "", None, None, None,
            0, None, 0, None, "-2.50", "USD", "correction", "2026-05",
        )
    ]  # fmt: skip
    assert closing.preview(JUNE).amount_by_currency == {"USD": "-2.50"}
    assert AuditEvent.objects.get(act="organization.credited").data == {
        "amount": "2.50 USD",
        "period": "2026-05",
        "booked": "2026-06",
        "reason": "An outage",
    }


def test_a_credit_for_a_month_that_is_open_is_on_its_own_statement(key: Key) -> None:
    give(key)
    assert [line.amount for line in corrections(MAY)] == ["-2.50"]


def test_a_credit_changes_no_later_correction(key: Key) -> None:
    subscribed(key, CENT)
    builders.used(key, 10, MAY.start)
    close(MAY)
    give(key)
    close(JUNE)
    late(key, 1, booked=JULY)

    assert facts(corrections(JULY)) == [(1, 0, 1, "0.01")]


def test_a_month_with_only_a_credit_is_the_first_to_be_closed(key: Key) -> None:
    give(key)
    with pytest.raises(lifecycle.Conflict, match="2026-05 is open"):
        close(JUNE)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": 10**15 + 1}, "amount"),
        ({"currency": "XXX"}, "currency"),
        ({"currency": ""}, "currency"),
        ({"currency": "EUR"}, "currency"),  # billed in another
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 201}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"original": Period(2026, 7)}, "original_period"),
    ],
)
def test_what_is_no_credit_is_refused(key: Key, fields: dict[str, Any], field: str) -> None:
    subscribed(key, CENT)
    with pytest.raises(Invalid) as caught:
        give(key, **fields)
    assert caught.value.field == field
    assert not Credit.objects.exists()


def test_only_staff_give_credit(key: Key) -> None:
    alice = builders.user("alice")
    actor = lifecycle.member_actor(alice, builders.member(alice, key.organization))
    with pytest.raises(Forbidden):
        credits.give(
            actor, key.organization, original=MAY, amount=1, currency="USD", reason="x", now=builders.NOW
        )


@pytest.mark.parametrize(
    ("text", "currency"), [("1.005", "USD"), ("1.5", "JPY"), ("1e-9", "KWD"), ("1", "xx")]
)
def test_an_amount_that_the_currency_has_not_is_refused(text: str, currency: str) -> None:
    with pytest.raises(Invalid):
        credits.in_minor(Decimal(text), currency)


def test_an_amount_is_read_in_the_currencys_minor_units() -> None:
    assert credits.in_minor(Decimal("12.5"), "USD") == 1250
    assert credits.in_minor(Decimal(-3), "JPY") == -3
