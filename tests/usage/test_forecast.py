"""The estimate of a month: usage goes on at its pace and is rated as any other; fees are whole."""

import datetime as dt
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from usage.billing import Period, rating
from usage.billing.forecast import whole_month
from usage.billing.rating import Rate, Terms, Tier, Used

JUNE = Period(2026, 6)
DAY = dt.timedelta(days=1)
CENT = Rate("per_unit", (Tier(None, Decimal("0.01")),))


def terms(start: int = 0, end: int | None = None, *, fee: int = 0, rate: Rate = CENT, id: int = 1) -> Terms:
    """A subscription from a day of June (0: the first) to another."""
    until = None if end is None else JUNE.start + end * DAY
    return Terms(id, JUNE.start + start * DAY, until, "USD", fee, {("requests", ""): rate})


def requests(quantity: int, subscription: int | None = 1, *, live: bool = True) -> Used:
    return Used(subscription, "key", live, "requests", "", quantity)


def test_usage_grows_evenly_to_the_months_end() -> None:
    assert whole_month([requests(1000)], {1: terms()}, JUNE, JUNE.start + 10 * DAY) == 3000


def test_included_quantities_and_tiers_count() -> None:
    half = JUNE.start + 15 * DAY
    generous = CENT._replace(included=1500)
    assert whole_month([requests(1000)], {1: terms(rate=generous)}, JUNE, half) == 500
    tiers = Tier(1000, Decimal("0.01")), Tier(None, Decimal("0.10"))
    graduated = Rate("graduated", tiers)
    assert whole_month([requests(1000)], {1: terms(rate=graduated)}, JUNE, half) == 1000 + 10_000


def test_fees_are_the_whole_months() -> None:
    assert whole_month([], {1: terms(fee=3000)}, JUNE, JUNE.start + DAY) == 3000


def test_the_pace_is_counted_from_the_first_subscription() -> None:
    agreed = {1: terms(start=20)}
    assert whole_month([requests(100)], agreed, JUNE, JUNE.start + 25 * DAY) == 200
    assert whole_month([requests(9000, None), requests(100)], agreed, JUNE, JUNE.start + 25 * DAY) == 200


def test_after_a_change_of_plan_the_same_pace_has_the_new_price() -> None:
    dear = CENT._replace(tiers=(Tier(None, Decimal("0.02")),))
    agreed = {1: terms(end=20), 2: terms(start=20, rate=dear, id=2)}
    assert whole_month([requests(1000)], agreed, JUNE, JUNE.start + 10 * DAY) == 2000 + 2000


def test_a_plan_that_ends_costs_nothing_afterwards() -> None:
    assert whole_month([requests(1000)], {1: terms(end=20)}, JUNE, JUNE.start + 10 * DAY) == 2000


def test_test_keys_and_the_first_hour_tell_nothing() -> None:
    assert whole_month([requests(1000, live=False)], {1: terms()}, JUNE, JUNE.start + 10 * DAY) == 0
    soon = JUNE.start + dt.timedelta(minutes=59)
    assert whole_month([requests(1000)], {1: terms()}, JUNE, soon) == 1000
    assert whole_month([requests(1000)], {}, JUNE, soon) == 0


@given(
    quantities=st.lists(st.integers(0, 10**12), max_size=5),
    hours=st.integers(-5, 800),
    start=st.integers(0, 29),
    included=st.integers(0, 10**9),
)
def test_an_estimate_is_never_below_what_is_billed_already(
    quantities: list[int], hours: int, start: int, included: int
) -> None:
    used = [requests(quantity) for quantity in quantities]
    agreed = {1: terms(start, fee=4900, rate=CENT._replace(included=included))}
    fee = rating.fee(agreed[1], JUNE)
    assert fee is not None
    billed = fee.amount + sum(each.amount for each in rating.rate(used, agreed))
    estimate = whole_month(used, agreed, JUNE, JUNE.start + hours * dt.timedelta(hours=1))
    assert estimate >= billed
    assert whole_month(used, agreed, JUNE, JUNE.end) == billed
