"""The lines of a month: usage priced by the subscription in force in its hour, fees, what has no price."""

import datetime as dt
import sys

import pytest

from keys.models import Key
from tests import builders
from usage import billing, retention
from usage.billing import Line, Period
from usage.models import Rollup

MAY = Period(2026, 5)
HOUR = dt.timedelta(hours=1)
MIDDLE = dt.datetime(2026, 5, 15, 10, tzinfo=dt.UTC)
CENT = {"unit_price": "0.01"}


@pytest.fixture
def key(db: None) -> Key:
    return builders.key(builders.organization("acme")).key


def used(
    key: Key, quantity: int, hour: dt.datetime = MAY.start, *, resource: str = "", meter: str = "requests"
) -> None:
    builders.rollup(
        organization_id=key.organization_id,
        hour=hour,
        key=key,
        meter=meter,
        resource=resource,
        outcome="VALID",
        booked_period=hour.date().replace(day=1),
        calls=1,
        quantity=quantity,
    )


def lines(period: Period = MAY) -> list[Line]:
    return list(billing.lines(period))


def test_usage_is_priced_by_the_subscription_in_force_in_its_hour(key: Key) -> None:
    first = builders.version("basic", fee=3100, requests=CENT)
    second = builders.version("pro", fee=6200, requests={"unit_price": "0.02"})
    builders.subscription(key.organization, first, MAY.start, MIDDLE)
    builders.subscription(key.organization, second, MIDDLE)
    used(key, 100, MIDDLE - HOUR)
    used(key, 10, MIDDLE)

    facts = [(line.kind, line.quantity, line.unit_price, line.amount) for line in lines()]
    assert facts == [
        ("fee", 1245600, "31.00", "14.42"),
        ("fee", 1432800, "62.00", "33.17"),
        ("usage", 10, "0.02", "0.20"),
        ("usage", 100, "0.01", "1.00"),
    ]


def test_each_subscription_starts_with_its_whole_included_quantity(key: Key) -> None:
    version = builders.version("basic", requests=CENT | {"included": 50})
    builders.subscription(key.organization, version, MAY.start, MIDDLE)
    builders.subscription(key.organization, version, MIDDLE)
    used(key, 60, MIDDLE - HOUR)
    used(key, 70, MIDDLE)

    assert [(line.quantity, line.included, line.billable, line.amount) for line in lines()] == [
        (60, 50, 10, "0.10"),
        (70, 50, 20, "0.20"),
    ]


def test_usage_before_a_subscription_is_listed_at_0(key: Key) -> None:
    builders.subscription(key.organization, builders.version("basic", requests=CENT), MIDDLE)
    used(key, 5, MIDDLE - HOUR)

    [line] = lines()
    assert (line.quantity, line.included, line.billable) == (5, 0, 5)
    assert (line.unit_price, line.amount, line.currency) == ("0", "0.00", "USD")


def test_in_a_month_in_which_nobody_subscribes_there_are_no_prices(key: Key) -> None:
    builders.subscription(key.organization, builders.version("basic", requests=CENT), MAY.end)
    used(key, 5)

    [line] = lines()
    assert (line.included, line.unit_price, line.amount, line.currency) == (None, None, None, None)
    assert line.billable == 5


def test_an_organization_that_only_pays_its_fee_has_that_line_in_its_place(key: Key) -> None:
    used(key, 1)
    version = builders.version("basic", fee=100)
    for slug in ("aaa", "zzz"):
        builders.subscription(builders.organization(slug), version, MAY.start)

    facts = [(line.organization, line.kind, line.key, line.amount, line.unit) for line in lines()]
    assert facts == [
        ("aaa", "fee", "", "1.00", "s"),
        ("acme", "usage", key.public_id, "0", "request"),
        ("zzz", "fee", "", "1.00", "s"),
    ]


def test_test_usage_is_listed_at_0_under_its_price(key: Key) -> None:
    builders.subscription(
        key.organization, builders.version("basic", requests=CENT | {"included": 3}), MAY.start
    )
    used(builders.key(key.organization, environment="test").key, 9)
    used(key, 4)

    facts = {(line.environment, line.quantity, line.included, line.billable, line.amount) for line in lines()}
    assert facts == {("test", 9, 0, 0, "0.00"), ("live", 4, 3, 1, "0.01")}


def test_a_subscription_that_ended_as_it_began_never_was(key: Key) -> None:
    version = builders.version("basic", fee=100, requests=CENT)
    builders.subscription(key.organization, version, MAY.start, MAY.start)
    used(key, 5)

    assert [line.amount for line in lines()] == [None]


def test_what_an_organization_used_that_this_database_lost_is_still_listed(key: Key) -> None:
    used(key, 5)
    Rollup.objects.update(organization_id=key.organization_id + 1000)

    [line] = lines()
    assert (line.organization, line.organization_name, line.quantity) == (
        f"unknown-{key.organization_id + 1000}",
        "",
        5,
    )


def test_organizations_are_summed_a_few_at_once_and_come_in_their_order(
    key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["usage.billing.lines"], "ROWS", 2)
    for slug in ("zzz", "aaa", "mmm"):
        other = builders.key(builders.organization(slug)).key
        for hours in range(3):
            used(other, 1, MAY.start + hours * HOUR)
    used(key, 1)

    assert [(line.organization, line.quantity) for line in lines()] == [
        ("aaa", 3),
        ("acme", 1),
        ("mmm", 3),
        ("zzz", 3),
    ]


def test_quantities_of_a_meter_with_decimals_are_priced_by_the_unit(key: Key) -> None:
    builders.meter("gigabytes", decimals=3)
    version = builders.version("basic", currency="KWD", gigabytes={"unit_price": "0.1"})
    builders.subscription(key.organization, version, MAY.start)
    used(key, 1_500, meter="gigabytes")

    assert [(line.quantity, line.amount, line.currency) for line in lines()] == [(1_500, "0.150", "KWD")]


def test_lines_are_sorted_by_their_columns_as_text(key: Key) -> None:
    version = builders.version(
        "basic",
        fee=100,
        requests={
            "model": "graduated",
            "tiers": [
                {"up_to": 5, "unit_price": "0.02"},
                {"up_to": 20, "unit_price": "0.01"},
                {"up_to": None, "unit_price": "0"},
            ],
        },
    )
    builders.subscription(key.organization, version, MAY.start, MIDDLE)
    builders.subscription(key.organization, version, MIDDLE)
    for quantity in (7, 30):
        used(key, quantity, MAY.start + quantity * HOUR)
        used(key, quantity, MIDDLE + quantity * HOUR)
        used(builders.key(key.organization).key, quantity)

    texts = [tuple("" if cell is None else str(cell) for cell in line) for line in lines()]
    assert len(texts) > 10
    assert texts == sorted(texts)


def test_merging_old_hours_never_moves_usage_over_the_edge_of_a_subscription(key: Key) -> None:
    first = builders.version("basic", requests=CENT)
    second = builders.version("pro", requests={"unit_price": "0.02"})
    builders.subscription(key.organization, first, MAY.start, MIDDLE)
    builders.subscription(key.organization, second, MIDDLE)
    for hours in range(24):
        used(key, 10 + hours, MIDDLE.replace(hour=hours))
    before = lines()

    list(retention.fold(MAY.end))

    assert lines() == before
    assert Rollup.objects.count() == 2
    assert list(retention.fold(MAY.end)) == []
