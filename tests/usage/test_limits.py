"""Rate windows: all checked, then all spent; waiting as told always suffices."""

import math
import threading

from hypothesis import given
from hypothesis import strategies as st

from keys.rates import Rate
from keys.records import KeyRecord, OrganizationRecord
from usage.limits import Windows, headers

SECOND, MINUTE, HOUR = 1, 60, 3600
NOW = 1_790_812_800.25


def key(*rates: Rate, organization: tuple[Rate, ...] = (), number: int = 1, customer: int = 1) -> KeyRecord:
    owner = OrganizationRecord(customer, "acme", "Acme", False, organization)
    return KeyRecord(
        *(number, f"key_{number}", "Backend", owner, "live", frozenset(), ""),
        *((), math.inf, False, False, rates, {}),
    )


def test_no_rates_no_limit() -> None:
    windows = Windows()
    assert windows.spend(key(), 1, NOW) is None
    assert len(windows) == 0


def test_the_limit_is_reached_exactly_and_begins_anew() -> None:
    windows, mine = Windows(), key(Rate(3, SECOND))
    assert [windows.spend(mine, 1, NOW).remaining for _ in range(3)] == [2, 1, 0]  # type: ignore[union-attr]  # there is a limit
    refused = windows.spend(mine, 1, NOW)
    assert refused is not None
    assert (refused.allowed, refused.reset, refused.remaining) == (False, 1, 0)
    again = windows.spend(mine, 1, NOW + 1)
    assert again is not None
    assert again.allowed


def test_a_refused_call_spends_in_no_window() -> None:
    windows = Windows()
    mine = key(Rate(1, SECOND), Rate(5, HOUR))
    for second in range(5):
        for attempt in range(4):
            standing = windows.spend(mine, 1, NOW + second)
            assert standing is not None
            assert standing.allowed is (attempt == 0)
    spent = windows.spend(mine, 1, NOW + 10)
    assert spent is not None
    assert (spent.allowed, spent.name) == (False, "key-hour")


def test_an_organization_shares_its_window_and_keys_have_their_own() -> None:
    windows, shared = Windows(), (Rate(3, MINUTE),)
    first = key(Rate(2, MINUTE), organization=shared, number=1)
    second = key(Rate(2, MINUTE), organization=shared, number=2)
    outcomes = [windows.spend(each, 1, NOW).allowed for each in (first, first, first, second, second)]  # type: ignore[union-attr]  # there is a limit
    assert outcomes == [True, True, False, True, False]


def test_a_key_and_an_organization_with_one_number_do_not_mix() -> None:
    windows = Windows()
    mine = key(Rate(2, MINUTE), organization=(Rate(2, MINUTE),), number=7, customer=7)
    assert [windows.spend(mine, 1, NOW).allowed for _ in range(3)] == [True, True, False]  # type: ignore[union-attr]  # there is a limit


def test_cost_is_what_is_spent_and_nothing_always_passes() -> None:
    windows, mine = Windows(), key(Rate(10, MINUTE))
    assert windows.spend(mine, 9, NOW).remaining == 1  # type: ignore[union-attr]  # there is a limit
    assert not windows.spend(mine, 2, NOW).allowed  # type: ignore[union-attr]  # there is a limit
    assert windows.spend(mine, 1, NOW).allowed  # type: ignore[union-attr]  # there is a limit
    assert windows.spend(mine, 0, NOW).allowed  # type: ignore[union-attr]  # there is a limit


def test_the_tightest_window_is_reported() -> None:
    mine = key(Rate(10, SECOND), organization=(Rate(4, HOUR),))
    standing = Windows().spend(mine, 1, NOW)
    assert standing is not None
    assert dict(headers(standing)) == {
        "RateLimit-Policy": '"key-second";q=10;w=1, "organization-hour";q=4;w=3600',
        "RateLimit": '"organization-hour";r=3;t=3600',
    }


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    windows, mine = Windows(), key(Rate(1, MINUTE))
    assert windows.spend(mine, 1, NOW).allowed  # type: ignore[union-attr]  # there is a limit
    refused = windows.spend(mine, 1, NOW - 300)
    assert refused is not None
    assert not refused.allowed
    assert windows.spend(mine, 1, NOW - 300 + refused.reset).allowed  # type: ignore[union-attr]  # there is a limit


def test_windows_that_ended_are_forgotten() -> None:
    windows = Windows()
    for number in range(25_000):
        windows.spend(key(Rate(1, SECOND), number=number), 1, NOW + number / 100)
    assert len(windows) <= 10_000


@given(
    st.lists(st.tuples(st.integers(1, 5), st.sampled_from([SECOND, MINUTE, HOUR])), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 90)), max_size=60),
)
def test_no_window_is_overspent_and_waiting_suffices(
    rates: list[tuple[int, int]], calls: list[tuple[int, float]]
) -> None:
    windows = Windows()
    mine = key(*(Rate(limit, seconds) for limit, seconds in rates))
    spent: dict[tuple[Rate, int], int] = {}
    now = NOW
    for cost, step in calls:
        now += step
        standing = windows.spend(mine, cost, now)
        assert standing is not None
        fits = all(spent.get((rate, int(now // rate.seconds)), 0) + cost <= rate.limit for rate in mine.rates)
        assert standing.allowed is (fits or cost == 0)
        if not standing.allowed and cost <= min(rate.limit for rate in mine.rates):
            now += standing.reset
            later = windows.spend(mine, cost, now)
            assert later is not None
            assert later.allowed
            standing = later
        if standing.allowed:
            for rate in set(mine.rates):
                window = (rate, int(now // rate.seconds))
                spent[window] = spent.get(window, 0) + cost
    assert all(total <= rate.limit for (rate, _), total in spent.items())


def test_threads_together_never_overspend() -> None:
    windows, mine = Windows(), key(Rate(500, HOUR))
    allowed: list[bool] = []

    def work() -> None:
        allowed.extend(windows.spend(mine, 1, NOW).allowed for _ in range(400))  # type: ignore[union-attr]  # there is a limit

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(allowed) == 500
