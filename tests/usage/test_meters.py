"""Meters: whole numbers of the smallest unit, exactly; and which there are, wherever that is asked."""

from decimal import Decimal
from pathlib import Path

import pytest
from django.db import DatabaseError
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from keys.directory import Directory, Unavailable
from keys.lifecycle import command_actor
from keys.models import Process
from tests.builders import NOW, meter, organization
from tests.threads import at_once
from tests.waiting import until
from usage import definitions, metering, meters
from usage.meters import MAX_QUANTITY, REQUESTS, Meter
from usage.models import Meter as Row


def acknowledged() -> int:
    return Process.objects.get(pk="test").feed_number


HOURS = Meter("hours", "hour", "Hours", decimals=3)
JOBS = Meter("jobs", "job", "Jobs", aggregation="count")


@given(st.integers(0, MAX_QUANTITY))
def test_a_quantity_comes_back_exactly(whole: int) -> None:
    assert HOURS.smallest(Decimal(whole).scaleb(-3)) == whole


@pytest.mark.parametrize(
    "text", ["NaN", "sNaN", "Infinity", "-Infinity", "-1", "-0.001", "1e400", "9007199254740.993"]
)
def test_what_cannot_be_counted_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a number from 0"):
        HOURS.smallest(Decimal(text))


@pytest.mark.parametrize("text", ["0.0001", "1.2345", "1e-400"])
def test_more_decimals_than_the_meter_has_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than 3 decimals"):
        HOURS.smallest(Decimal(text))


@given(st.integers(-(2**63), 2**63), st.integers(0, 6))
def test_a_sum_is_written_as_it_is(quantity: int, decimals: int) -> None:
    text = Meter("m", "m", "M", decimals=decimals).as_text(quantity)
    assert Decimal(text) == Decimal(quantity).scaleb(-decimals)
    assert len(text.partition(".")[2]) == decimals
    assert set(text) <= set("-.0123456789")


@pytest.mark.parametrize(
    ("quantity", "text"), [(1500, "1.500"), (0, "0.000"), (-7, "-0.007"), (-12_345, "-12.345")]
)
def test_sums_have_all_their_decimals(quantity: int, text: str) -> None:
    assert HOURS.as_text(quantity) == text


def test_a_sum_without_decimals_is_a_whole_number() -> None:
    assert REQUESTS.as_text(1_234_567) == "1234567"


@given(st.integers(0, MAX_QUANTITY))
def test_a_count_takes_one_of_whatever_is_not_nothing(value: int) -> None:
    assert JOBS.smallest(Decimal(value)) == JOBS.counted(value) == (value > 0)
    assert REQUESTS.counted(value) == value


@pytest.mark.parametrize("name", ["tokens", "a", "tokens-in", "tokens_in", "t0-1", "a" * 50])
def test_what_can_name_a_meter(name: str) -> None:
    assert meters.is_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "Tokens", "0tokens", "-a", "a-", "a__b", "a b", "a.b", "a/b", "é", "a\0", "a\n", "\ud800", "a" * 51],
)
def test_what_cannot_name_a_meter(name: str) -> None:
    assert not meters.is_name(name)


# --- which there are ------------------------------------------------------------------------------


def test_requests_is_built_in_and_costs_no_query(
    db: None, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        assert meters.get("requests") is REQUESTS


@pytest.mark.django_db
def test_a_process_that_follows_nothing_looks_again_after_a_second(
    monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    assert meters.get("tokens") is None
    tokens = meter("tokens")
    with django_assert_num_queries(0):
        assert meters.get("tokens") is None
    monkeypatch.setattr(meters, "FRESH_SECONDS", 0.0)
    assert meters.get("tokens") == Meter("tokens", "token", "Tokens")
    definitions.archive_meter(command_actor(), tokens, now=NOW)
    assert meters.get("tokens") is None


@pytest.mark.django_db
def test_what_was_counted_on_an_archived_meter_can_still_be_read() -> None:
    hours = meter("hours", unit="hour", decimals=3)
    definitions.archive_meter(command_actor(), hours, now=NOW)
    assert list(meters.read()) == ["requests", "hours"]
    assert meters.read()["hours"].as_text(1500) == "1.500"


@pytest.mark.django_db
def test_a_process_that_follows_the_feed_knows_each_act_with_its_next_read(
    tmp_path: Path, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    directory = Directory(process_id="test", lock_dir=tmp_path, followers=[("meter.", meters.reload)])
    meters.follow()
    with pytest.raises(Unavailable):
        meters.get("tokens")
    directory.refresh()
    assert meters.get("tokens") is None

    tokens = meter("tokens")
    with django_assert_num_queries(0):
        assert meters.get("tokens") is None
    before = meters.generation
    directory.refresh()
    with django_assert_num_queries(0):
        assert meters.get("tokens") == Meter("tokens", "token", "Tokens")
    assert meters.generation != before

    definitions.archive_meter(command_actor(), tokens, now=NOW)
    directory.refresh()
    assert meters.get("tokens") is None


@pytest.mark.django_db
def test_nothing_is_acknowledged_before_its_followers_know_it(tmp_path: Path) -> None:
    told: list[str] = []

    def follow() -> None:
        if fails:
            raise DatabaseError
        told.append(Row.objects.values_list("slug", flat=True).last() or "")

    fails = True
    directory = Directory(process_id="test", lock_dir=tmp_path, followers=[("meter.", follow)])
    with pytest.raises(DatabaseError):
        directory.refresh()
    assert directory.explain()
    fails = False
    directory.refresh()
    assert (told, directory.explain()) == ([""], "")

    meter("tokens")
    fails = True
    number = acknowledged()
    with pytest.raises(DatabaseError):
        directory.refresh()
    assert acknowledged() == number
    fails = False
    directory.refresh()
    assert told == ["", "tokens"]
    assert acknowledged() > number


@pytest.mark.django_db
def test_followers_hear_of_their_own_acts_only(tmp_path: Path) -> None:
    told: list[int] = []
    directory = Directory(
        process_id="test", lock_dir=tmp_path, followers=[("meter.", lambda: told.append(1))]
    )
    directory.refresh()
    organization("acme")
    directory.refresh()
    assert told == [1]


@pytest.mark.django_db(transaction=True)
def test_a_started_process_follows_by_itself(journal_dir: Path) -> None:
    directory = metering.start()
    until(lambda: directory.ready, why=directory.explain)
    meter("tokens")
    until(lambda: meters.get("tokens"))


def test_a_child_does_not_wait_for_its_parents_follower(db: None) -> None:
    meters.follow()
    with meters._lock:  # as a thread of the parent that is in the middle of a read
        meters._after_fork()
        assert meters.get("tokens") is None  # asked of the database


def test_readers_in_two_threads_agree(transactional_db: None) -> None:
    meter("tokens")
    assert at_once([lambda: meters.get("tokens")] * 4) == [Meter("tokens", "token", "Tokens")] * 4
