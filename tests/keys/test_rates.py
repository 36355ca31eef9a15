"""The text of rates, and how people are shown it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import quotas, rates
from keys.quotas import Quota
from keys.rates import MAX_LIMIT, UNITS, Rate


@given(st.integers(1, MAX_LIMIT), st.sampled_from(list(UNITS.values())))
def test_a_rate_is_written_as_it_is_read_and_shown_with_commas(limit: int, seconds: int) -> None:
    rate = Rate(limit, seconds)
    assert rates.parse(rate.text) == rate
    assert rates.shown(rate.text) == f"{limit:,}{rate.text.removeprefix(str(limit))}"


@given(
    st.integers(1, quotas.MAX_LIMIT),
    st.from_regex(r"[a-z][a-z0-9_.-]{0,49}", fullmatch=True),
    st.sampled_from(quotas.UNITS),
)
def test_a_quota_is_shown_with_commas(limit: int, meter: str, unit: str) -> None:
    quota = Quota(limit, meter, unit)
    assert rates.shown(quota.text) == f"{limit:,}{quota.text.removeprefix(str(limit))}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("1000/second, 600/minute, 20000/hour", "1,000/second, 600/minute, 20,000/hour"),
        ("At least 1,234 beyond 1000/second.", "At least 1,234 beyond 1,000/second."),
        *(
            (text, text)
            for text in ("", "none", "10.0.0.0/8", "2001:db8::/32", "1000", "1000/days", "v1000/day")
        ),
    ],
)
def test_only_limits_are_shown_otherwise(text: str, shown: str) -> None:
    assert rates.shown(text) == shown
