"""Brownouts: when they are, that they are announced as they come, and that nobody else is refused."""

import datetime as dt
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import brownouts, lifecycle
from keys.directory import Directory
from keys.lifecycle import Invalid
from keys.lifecycle.organizations import standard_policy
from keys.models import Organization
from keys.verdicts import Code
from keys.verification import verify
from tests import builders
from tests.builders import NOW

DAY = dt.timedelta(days=1)
COMMAND = lifecycle.command_actor()
KEYS = st.from_regex(r"key_[0-9A-Za-z]{16}", fullmatch=True)
DAYS = st.integers(1, brownouts.MOST_DAYS)
EXPIRIES = st.floats(1.7e9, 2e9)


@given(key=KEYS, expires_at=EXPIRIES, days=DAYS)
def test_a_schedule_is_few_full_minutes_ever_denser_and_ends_before_the_key(
    key: str, expires_at: float, days: int
) -> None:
    starts = brownouts.starts(key, expires_at, days)
    assert 5 <= len(starts) <= 10
    assert all(start % 60 == 0 for start in starts)
    assert expires_at - brownouts.lead(days) <= starts[0]
    assert starts[-1] + brownouts.SECONDS < expires_at - 3000
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps == sorted(gaps, reverse=True)
    assert all(gap > brownouts.SECONDS for gap in gaps)
    brownouts.starts.cache_clear()
    assert brownouts.starts(key, expires_at, days) == starts


@given(key=KEYS, expires_at=EXPIRIES, days=DAYS, left=st.floats(-100_000, 40 * 86_400))
def test_a_moment_is_in_a_brownout_exactly_where_the_schedule_says(
    key: str, expires_at: float, days: int, left: float
) -> None:
    now = expires_at - left
    inside = [start for start in brownouts.starts(key, expires_at, days) if start <= now < start + 120]
    assert brownouts.until(key, expires_at, days, now) == (inside[0] + 120 if inside else 0.0)
    for start in brownouts.starts(key, expires_at, days):
        assert brownouts.until(key, expires_at, days, start) == start + 120
        assert brownouts.until(key, expires_at, days, start + 119.999) == start + 120
        assert brownouts.until(key, expires_at, days, start + 120) == 0.0
        assert brownouts.until(key, expires_at, days, start - 0.001) == 0.0


@given(key=KEYS, expires_at=EXPIRIES, now=EXPIRIES)
def test_without_days_or_an_expiry_there_is_none(key: str, expires_at: float, now: float) -> None:
    assert brownouts.until(key, expires_at, None, now) == 0.0
    assert brownouts.until(key, expires_at, 0, now) == 0.0
    assert brownouts.until(key, float("inf"), 30, now) == 0.0


def test_keys_that_expire_together_do_not_stop_together() -> None:
    firsts = {brownouts.starts(f"key_{number:016}", 1.8e9, 7)[0] for number in range(200)}
    assert len(firsts) > 50
    assert max(firsts) - min(firsts) < 3600


def test_what_is_to_come_ends_with_the_last_one() -> None:
    made, expires_at = NOW - 90 * DAY, NOW + 7 * DAY
    coming = brownouts.to_come("key_a", made, expires_at, 7, NOW - DAY)
    assert len(coming) == 8
    assert brownouts.to_come("key_a", made, expires_at, 7, coming[0] + dt.timedelta(seconds=119)) == coming
    assert (
        brownouts.to_come("key_a", made, expires_at, 7, coming[0] + dt.timedelta(seconds=120)) == coming[1:]
    )
    assert brownouts.to_come("key_a", made, expires_at, 7, expires_at) == []
    assert brownouts.to_come("key_a", made, None, 7, NOW) == []
    assert brownouts.to_come("key_a", made, expires_at, None, NOW) == []
    assert brownouts.to_come("key_a", NOW, NOW + dt.timedelta(hours=47), 7, NOW) == []


# --- verification --------------------------------------------------------------------------------


@pytest.fixture
def acme(db: None) -> Organization:
    lifecycle.edit_policy(COMMAND, standard_policy(), brownout_days=7, now=NOW)
    return builders.organization("acme", now=NOW - 90 * DAY)


def code(directory: Directory, credential: str, at: dt.datetime, *scopes: str) -> Code:
    return verify(credential, directory=directory, now=at.timestamp(), scopes=scopes).code


def test_a_key_is_refused_in_its_brownouts_and_at_no_other_time(
    acme: Organization, directory: Directory
) -> None:
    issued = builders.key(acme, expires_at=NOW + 20 * DAY, now=NOW - 70 * DAY)
    directory.refresh()
    end = NOW + 20 * DAY
    coming = brownouts.to_come(issued.key.public_id, issued.key.created_at, end, 7, NOW)
    minutes = [NOW + dt.timedelta(minutes=minute) for minute in range(20 * 24 * 60)]
    refused = [each for each in minutes if code(directory, issued.plaintext, each) is Code.BROWNOUT]
    assert refused == [start + dt.timedelta(minutes=minute) for start in coming for minute in (0, 1)]
    assert code(directory, issued.plaintext, end) is Code.EXPIRED
    verdict = verify(issued.plaintext, directory=directory, now=coming[0].timestamp())
    until = coming[0] + dt.timedelta(minutes=2)
    assert verdict.detail.startswith(f"An announced brownout until {until:%Y-%m-%dT%H:%M:%SZ}:")
    assert verdict.detail.endswith(f"the key expires at {end:%Y-%m-%dT%H:%M:%SZ}.")


def test_only_what_would_be_allowed_is_refused_for_a_brownout(
    acme: Organization, directory: Directory
) -> None:
    issued = builders.key(acme, expires_at=NOW + 20 * DAY, now=NOW - 70 * DAY)
    at = brownouts.to_come(issued.key.public_id, issued.key.created_at, NOW + 20 * DAY, 7, NOW)[0]
    directory.refresh()
    assert code(directory, issued.plaintext, at, "orders:read") is Code.INSUFFICIENT_SCOPE
    lifecycle.suspend_organization(COMMAND, acme, reason="", now=NOW)
    directory.refresh()
    assert code(directory, issued.plaintext, at) is Code.ORGANIZATION_SUSPENDED
    lifecycle.revoke_key(COMMAND, issued.key, now=NOW)
    directory.refresh()
    assert code(directory, issued.plaintext, at) is Code.REVOKED


def test_a_policy_turns_brownouts_on_and_off_at_once_and_a_new_expiry_ends_them(
    acme: Organization, directory: Directory
) -> None:
    issued = builders.key(acme, expires_at=NOW + 20 * DAY, now=NOW - 70 * DAY)
    at = brownouts.to_come(issued.key.public_id, issued.key.created_at, NOW + 20 * DAY, 7, NOW)[0]
    directory.refresh()
    assert code(directory, issued.plaintext, at) is Code.BROWNOUT
    for days, expected in ((None, Code.VALID), (7, Code.BROWNOUT)):
        lifecycle.edit_policy(COMMAND, standard_policy(), brownout_days=days, now=NOW)
        directory.refresh()
        assert code(directory, issued.plaintext, at) is expected
    lifecycle.edit_key(COMMAND, issued.key, expires_at=NOW + 200 * DAY, now=NOW)
    directory.refresh()
    assert code(directory, issued.plaintext, at) is Code.VALID


def test_a_key_that_lives_for_a_day_has_none(acme: Organization, directory: Directory) -> None:
    brief = builders.key(acme, expires_at=NOW + DAY, now=NOW)
    forever = builders.key(acme, name="Forever", expires_at=None, now=NOW)
    directory.refresh()
    for minute in range(24 * 60):
        at = NOW + dt.timedelta(minutes=minute)
        assert code(directory, brief.plaintext, at) is Code.VALID
        assert code(directory, forever.plaintext, at) is Code.VALID


@pytest.mark.django_db
@pytest.mark.parametrize("junk", [-1, 0, 31, 1.5, "7", "\x00", [7]])
def test_days_that_make_no_sense_are_refused(junk: object) -> None:
    with pytest.raises(Invalid):
        lifecycle.edit_policy(COMMAND, standard_policy(), brownout_days=junk, now=NOW)
