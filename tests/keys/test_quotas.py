"""The text of quotas, and their periods."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import quotas
from keys.quotas import MAX_LIMIT, UNITS, Quota

LATEST = dt.datetime(9999, 1, 1)  # noqa: DTZ001  hypothesis adds the zone
meters = st.from_regex(r"[a-z][a-z0-9_.-]{0,49}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("100000/month", Quota(100_000, "requests", "month")),
        (" 5000/day ", Quota(5000, "requests", "day")),
        ("5000000 input_tokens/month", Quota(5_000_000, "input_tokens", "month")),
        ("1 requests/day", Quota(1, "requests", "day")),
        (f"{MAX_LIMIT}/month", Quota(MAX_LIMIT, "requests", "month")),
    ],
)
def test_a_quota_is_read(text: str, quota: Quota) -> None:
    assert quotas.parse(text) == quota


@given(st.integers(1, MAX_LIMIT), meters, st.sampled_from(UNITS))
def test_a_quota_is_written_as_it_is_read(limit: int, meter: str, unit: str) -> None:
    assert quotas.parse(Quota(limit, meter, unit).text) == Quota(limit, meter, unit)


@pytest.mark.parametrize(
    "text",
    [
        *("", "month", "0/month", "-1/month", "1.5/month", "1,000/month", "10/hour", "10/months", "10"),
        *(f"{MAX_LIMIT + 1}/month", "9" * 5000 + "/month", "1/month\n2/month", "\u0661/month"),
        *(
            "10 A/month",
            "10 a b/month",
            "10 " + "a" * 51 + "/month",
            "10 x\0/month",
            "\ud800/month",
            "x" * 2**20,
        ),
    ],
    ids=lambda text: text[:10].encode("ascii", "backslashreplace").decode(),
)
def test_junk_is_refused_with_a_sentence_that_can_be_shown(text: str) -> None:
    with pytest.raises(ValueError, match="quota") as refusal:
        quotas.parse(text)
    assert len(str(refusal.value).encode()) < 400


@given(st.sampled_from(UNITS), st.datetimes(max_value=LATEST, timezones=st.just(dt.UTC)))
def test_periods_follow_one_another_and_hold_their_moments(unit: str, at: dt.datetime) -> None:
    start, end = quotas.period(unit, at)
    assert start <= at < end
    assert quotas.period(unit, end)[0] == end
    assert quotas.period(unit, end - dt.timedelta(microseconds=1)) == (start, end)


def test_periods_are_utcs() -> None:
    tokyo = dt.timezone(dt.timedelta(hours=9))
    start, end = quotas.period("month", dt.datetime(2026, 12, 1, 8, 59, tzinfo=tokyo))
    assert (start, end) == (dt.datetime(2026, 11, 1, tzinfo=dt.UTC), dt.datetime(2026, 12, 1, tzinfo=dt.UTC))
