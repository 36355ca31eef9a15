"""Rating: exact to the minor unit, compared with a slow rater that is written in another way."""

import datetime as dt
import math
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from usage.billing import money, rating
from usage.billing.periods import Period
from usage.billing.rating import Rate, Terms, Tier, Used

MAY = Period(2026, 5)


def per_unit(price: str, *, included: int = 0, decimals: int = 0) -> Rate:
    return Rate("per_unit", (Tier(None, Decimal(price)),), decimals, included)


def tiered(model: str, *tiers: tuple[int | None, str], included: int = 0) -> Rate:
    return Rate(model, tuple(Tier(up_to, Decimal(price)) for up_to, price in tiers), 0, included)


def package(price: str, size: int, *, included: int = 0) -> Rate:
    return Rate("package", (Tier(None, Decimal(price)),), 0, included, size)


def terms(
    rate: Rate | None = None,
    *,
    start: dt.datetime = MAY.start,
    end: dt.datetime | None = None,
    currency: str = "USD",
    fee: int = 0,
) -> Terms:
    return Terms(1, start, end, currency, fee, {("tokens", ""): rate} if rate else {})


def used(quantity: int, key: str = "key_a", *, live: bool = True, resource: str = "") -> Used:
    return Used(1, key, live, "tokens", resource, quantity)


def total(rate: Rate, quantity: int, currency: str = "USD") -> int:
    return sum(part.amount for part in rating.parts(rate, quantity, currency))


# --- each model -----------------------------------------------------------------------------------

GRADUATED = tiered("graduated", (1000, "0.02"), (5000, "0.01"), (None, "0.005"))
VOLUME = tiered("volume", (1000, "0.02"), (5000, "0.01"), (None, "0.005"))


@pytest.mark.parametrize(
    ("rate", "quantity", "cents"),
    [
        (per_unit("0.002"), 12_345, 2469),
        (per_unit("0.005"), 1, 0),  # half a cent, to the even one
        (per_unit("0.005"), 3, 2),
        (per_unit("0.000000000001", decimals=6), 10**21, 100_000),
        (per_unit("0.000000000001"), 10**15, 100_000),
        (per_unit("0.10", included=100), 100, 0),
        (per_unit("0.10", included=100), 101, 10),
        (package("5.00", 1000), 1, 500),
        (package("5.00", 1000), 1000, 500),
        (package("5.00", 1000), 1001, 1000),
        (package("5.00", 1000, included=500), 1500, 500),
        (GRADUATED, 1000, 2000),
        (GRADUATED, 1001, 2001),
        (GRADUATED, 6000, 2000 + 4000 + 500),
        (VOLUME, 1000, 2000),
        (VOLUME, 1001, 1001),
        (VOLUME, 6000, 3000),
    ],
)
def test_a_price_is_applied_as_its_model_says(rate: Rate, quantity: int, cents: int) -> None:
    assert total(rate, quantity) == cents


def test_a_fraction_beyond_a_tier_is_in_the_next() -> None:
    rate = Rate("volume", (Tier(1000, Decimal(1)), Tier(None, Decimal(2))), decimals=3)
    assert total(rate, 1000) == 100
    assert rating.parts(rate, 1001, "USD")[0].tier == "2"


def test_tiers_are_lines_of_their_own_and_what_is_included_stands_in_the_first() -> None:
    rate = tiered("graduated", (100, "1"), (None, "0.5"), included=50)
    assert [part[:3] for part in rating.parts(rate, 200, "USD")] == [("1", 50, 100), ("2", 0, 50)]


@pytest.mark.parametrize(("currency", "amount"), [("JPY", 2), ("KWD", 2468), ("USD", 247)])
def test_rounding_is_to_the_currencys_own_minor_unit(currency: str, amount: int) -> None:
    assert total(per_unit("2.4685"), 1, currency) == amount


# --- fees -----------------------------------------------------------------------------------------


def moment(year: int, month: int, day: int, hour: int = 0) -> dt.datetime:
    return dt.datetime(year, month, day, hour, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("period", "start", "end", "seconds", "amount"),
    [
        (Period(2026, 5), moment(2020, 1, 1), None, 31 * 86400, 3100),
        (Period(2026, 5), moment(2026, 5, 15), None, 17 * 86400, 1700),
        (Period(2026, 5), moment(2020, 1, 1), moment(2026, 5, 15), 14 * 86400, 1400),
        (Period(2028, 2), moment(2028, 2, 29), None, 86400, 107),  # 31.00 / 29 = 1.0690
        (Period(2026, 12), moment(2026, 12, 31, 12), moment(2027, 1, 2), 43200, 50),
    ],
)
def test_the_fee_is_for_the_seconds_that_a_subscription_ran(
    period: Period, start: dt.datetime, end: dt.datetime | None, seconds: int, amount: int
) -> None:
    fee = rating.fee(terms(start=start, end=end, fee=3100), period)
    assert fee is not None
    assert (fee.seconds, fee.amount) == (seconds, amount)


def test_without_a_fee_or_outside_the_month_there_is_no_fee_line() -> None:
    assert rating.fee(terms(fee=0), MAY) is None
    assert rating.fee(terms(fee=100, end=MAY.start), MAY) is None
    assert rating.fee(terms(fee=100, start=MAY.end), MAY) is None


# --- keys -----------------------------------------------------------------------------------------


def test_a_line_is_shared_by_largest_remainder_and_ties_go_to_the_smaller_key() -> None:
    [line] = rating.rate([used(1, key) for key in ("key_c", "key_B", "key_a")], {1: terms(per_unit("0.33"))})
    assert line.amount == 99
    [line] = rating.rate([used(1, key) for key in ("key_c", "key_B", "key_a")], {1: terms(package("1", 3))})
    assert [(share.key, share.amount) for share in line.shares] == [
        ("key_B", 34),
        ("key_a", 33),
        ("key_c", 33),
    ]


def test_where_shares_tie_a_keys_parts_still_add_up_to_its_own_usage() -> None:
    [line] = rating.rate([used(1, "key_a"), used(1, "key_b")], {1: terms(per_unit("1", included=1))})
    assert [share[:4] for share in line.shares] == [("key_a", 1, 1, 0), ("key_b", 1, 0, 1)]


def test_test_usage_is_listed_at_0_and_uses_up_nothing() -> None:
    rate = per_unit("1", included=5)
    lines = list(rating.rate([used(7, "key_t", live=False), used(5)], {1: terms(rate)}))
    assert [(line.live, line.amount, line.shares[0][1:4]) for line in lines] == [
        (False, 0, (7, 0, 0)),
        (True, 0, (5, 5, 0)),
    ]


def test_what_has_no_price_or_subscription_is_listed_at_0() -> None:
    lines = list(
        rating.rate(
            [Used(None, "key_a", True, "tokens", "x", 3), Used(1, "key_a", True, "seats", "", 4)],
            {1: terms(per_unit("1"))},
        )
    )
    assert [(line.meter, line.resource, line.amount, line.shares[0][1:]) for line in lines] == [
        ("tokens", "x", 0, (3, 0, 3, 0)),
        ("seats", "", 0, (4, 0, 4, 0)),
    ]


def test_a_resources_own_price_wins_and_the_others_are_one_line() -> None:
    mine = terms()._replace(rates={("tokens", ""): per_unit("1"), ("tokens", "big"): per_unit("2")})
    lines = rating.rate([used(1, resource="big"), used(2, resource="a"), used(3, resource="b")], {1: mine})
    assert [(line.resource, line.amount) for line in lines] == [("big", 200), ("", 500)]


def test_nothing_used_is_no_line() -> None:
    assert list(rating.rate([used(0)], {1: terms(GRADUATED)})) == []


# --- properties -----------------------------------------------------------------------------------

PRICES = st.integers(0, 10**9).map(lambda number: str(Decimal(number).scaleb(-6)))
UP_TO = st.lists(st.integers(1, 3000), min_size=0, max_size=4, unique=True).map(sorted)


@st.composite
def rates(draw: st.DrawFn, models: Sequence[str] = ("per_unit", "package", "graduated", "volume")) -> Rate:
    model = draw(st.sampled_from(models))
    ends: list[int | None] = [*draw(UP_TO), None] if model in ("graduated", "volume") else [None]
    tiers = tuple(Tier(end, Decimal(draw(PRICES))) for end in ends)
    return Rate(model, tiers, draw(st.integers(0, 3)), draw(st.integers(0, 500)), draw(st.integers(1, 700)))


USES = st.lists(st.tuples(st.sampled_from(["key_a", "key_B", "key_c"]), st.integers(0, 2000)), max_size=12)
CURRENCIES = st.sampled_from(["USD", "JPY", "KWD"])


def slowly(rate: Rate, quantity: int, currency: str) -> int:
    """The same by fractions, each smallest unit put into its tier by itself."""
    billable = quantity - min(quantity, rate.included)
    unit = Fraction(1, 10**rate.decimals)

    def tier_of(position: int) -> int:
        return next(n for n, tier in enumerate(rate.tiers) if tier.up_to is None or position <= tier.up_to)

    if rate.model == "package":
        exact = {0: math.ceil(Fraction(billable, rate.package)) * Fraction(rate.tiers[0].unit_price)}
    elif rate.model == "volume":
        exact = {0: billable * unit * Fraction(rate.tiers[tier_of(billable)].unit_price)}
    else:
        counted = Counter(tier_of(position) for position in range(1, billable + 1))
        exact = {n: many * unit * Fraction(rate.tiers[n].unit_price) for n, many in counted.items()}
    # round() of a fraction is half to even.
    return sum(round(amount * 10 ** money.DIGITS[currency]) for amount in exact.values())


@given(rate=rates(), quantity=st.integers(0, 4000), currency=CURRENCIES)
def test_a_slow_rater_that_is_written_otherwise_agrees(rate: Rate, quantity: int, currency: str) -> None:
    assert total(rate, quantity, currency) == slowly(rate, quantity, currency)


@given(rate=rates(), uses=USES, currency=CURRENCIES)
def test_keys_add_up_to_each_line_and_lines_to_each_keys_usage(
    rate: Rate, uses: list[tuple[str, int]], currency: str
) -> None:
    lines = list(
        rating.rate([used(quantity, key) for key, quantity in uses], {1: terms(rate, currency=currency)})
    )
    whole = sum(quantity for _, quantity in uses)
    parts = rating.parts(rate, whole, currency) if whole else []
    by_key: Counter[str] = Counter()
    for line, part in zip(lines, parts, strict=True):
        assert sum(share.amount for share in line.shares) == line.amount == part.amount
        assert sum(share.included for share in line.shares) == part.included
        assert sum(share.billable for share in line.shares) == part.billable
        for share in line.shares:
            assert share.quantity == share.included + share.billable >= 0
            assert min(share.included, share.billable, share.amount) >= 0
            by_key[share.key] += share.quantity
    expected: Counter[str] = Counter()
    for key, quantity in uses:
        expected[key] += quantity
    assert +by_key == +expected


@given(
    rate=rates(models=("per_unit", "package", "graduated")),
    quantity=st.integers(0, 4000),
    more=st.integers(1, 2000),
    currency=CURRENCIES,
)
def test_more_usage_never_costs_less(rate: Rate, quantity: int, more: int, currency: str) -> None:
    assert total(rate, quantity, currency) <= total(rate, quantity + more, currency)


@given(rate=rates(), uses=USES, cuts=st.lists(st.integers(0, 2000), max_size=12), currency=CURRENCIES)
def test_how_usage_is_split_changes_no_total(
    rate: Rate, uses: list[tuple[str, int]], cuts: list[int], currency: str
) -> None:
    whole = [used(quantity, key) for key, quantity in uses]
    split: list[Used] = []
    for each, cut in zip(whole, [*cuts, *[0] * len(whole)], strict=False):
        first = min(cut, each.quantity)
        split += [each._replace(quantity=first), each._replace(quantity=each.quantity - first, key="key_z")]

    def amount(usage: list[Used]) -> int:
        return sum(line.amount for line in rating.rate(usage, {1: terms(rate, currency=currency)}))

    assert amount(whole) == amount(split) == amount(split[::-1])


@given(total=st.integers(-(10**20), 10**20), weights=st.lists(st.integers(0, 10**15), min_size=1, max_size=9))
def test_what_is_apportioned_adds_up_and_is_within_one_of_its_share(total: int, weights: list[int]) -> None:
    parts = money.apportion(total, weights)
    assert sum(parts) == total
    if whole := sum(weights):
        assert all(
            abs(part - Fraction(total * weight, whole)) < 1
            for part, weight in zip(parts, weights, strict=True)
        )


@pytest.mark.parametrize("weights", [[0, 0], [5, -5], [-1, -2, -1]])
def test_weights_that_come_to_nothing_or_less_still_share_all(weights: list[int]) -> None:
    assert sum(money.apportion(7, weights)) == 7
    assert sum(money.apportion(-7, weights)) == -7


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [(1250, "USD", "12.50"), (-5, "USD", "-0.05"), (1250, "JPY", "1250"), (1250, "KWD", "1.250")],
)
def test_money_is_written_with_its_currencys_decimals(amount: int, currency: str, text: str) -> None:
    assert money.as_text(amount, currency) == text
