"""Reports: sums over the roll-ups, in a fixed number of queries."""

import datetime as dt
from collections import Counter

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from keys import lifecycle
from keys.models import Organization
from tests import builders
from usage import reports
from usage.models import Rollup, SecretUse

pytestmark = pytest.mark.django_db

START = dt.date(2026, 6, 1)
END = dt.date(2026, 6, 8)
MIDNIGHT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
LAST_MIDNIGHT = dt.datetime(2026, 6, 8, tzinfo=dt.UTC)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme")


def called(
    organization: Organization,
    key: int,
    hour: dt.datetime,
    calls: int = 1,
    outcome: str = "VALID",
    *,
    quantity: int | None = None,
    resource: str = "",
) -> Rollup:
    return builders.rollup(
        organization=organization,
        hour=hour,
        key_id=key,
        meter="requests",
        resource=resource,
        outcome=outcome,
        booked_period=hour.date().replace(day=1),
        calls=calls,
        quantity=calls if quantity is None else quantity,
    )


def test_daily_has_every_day_and_splits_accepted_from_refused(acme: Organization) -> None:
    called(acme, 1, MIDNIGHT, 3)
    called(acme, 1, MIDNIGHT + dt.timedelta(hours=23), 2, "RATE_LIMITED")
    called(acme, 2, MIDNIGHT + dt.timedelta(days=2), 5)

    days = reports.daily(acme, START, START + dt.timedelta(days=3))

    assert days == [
        (dt.date(2026, 6, 1), 3, 2, 3),
        (dt.date(2026, 6, 2), 0, 0, 0),
        (dt.date(2026, 6, 3), 5, 0, 5),
    ]


def test_daily_of_one_key_leaves_out_the_others(acme: Organization) -> None:
    mine = builders.key(acme).key
    called(acme, mine.pk, MIDNIGHT, 3)
    called(acme, mine.pk + 1, MIDNIGHT, 4)

    assert reports.daily(acme, START, START + dt.timedelta(days=1), key=mine)[0].accepted == 3
    assert reports.daily(acme, START, START + dt.timedelta(days=1), key=mine.pk)[0].accepted == 3


def test_an_empty_range_has_no_days(acme: Organization) -> None:
    assert reports.daily(acme, START, START) == []


def test_the_end_of_a_range_is_not_in_it(acme: Organization) -> None:
    called(acme, 1, LAST_MIDNIGHT)

    assert sum(day.accepted for day in reports.daily(acme, START, END)) == 0
    assert reports.totals(acme, MIDNIGHT, LAST_MIDNIGHT) == (0, 0, 0, [])


def test_totals_name_the_reasons_with_the_most_frequent_first(acme: Organization) -> None:
    called(acme, 1, MIDNIGHT, 10, quantity=70)
    called(acme, 1, MIDNIGHT, 2, "EXPIRED")
    called(acme, 2, MIDNIGHT, 5, "RATE_LIMITED", quantity=900)

    totals = reports.totals(acme, MIDNIGHT, LAST_MIDNIGHT)

    assert totals == (10, 7, 70, [("RATE_LIMITED", 5), ("EXPIRED", 2)])


def test_sums_are_whole_numbers_on_every_database(acme: Organization) -> None:
    called(acme, 1, MIDNIGHT, 2**62)

    totals = reports.totals(acme, MIDNIGHT, LAST_MIDNIGHT)
    day = reports.daily(acme, START, END)[0]

    assert [type(number) for number in (totals.accepted, totals.quantity, day.accepted)] == [int] * 3
    assert day.accepted == 2**62


def test_recent_calls_have_zeros_for_keys_without_calls(acme: Organization) -> None:
    called(acme, 1, MIDNIGHT, 4)
    called(acme, 1, LAST_MIDNIGHT - dt.timedelta(hours=1), 6)
    called(acme, 1, MIDNIGHT, 3, "REVOKED")
    called(acme, 9, MIDNIGHT, 100)

    called(acme, 1, MIDNIGHT - dt.timedelta(days=23), 5)
    called(acme, 1, MIDNIGHT - dt.timedelta(days=23, hours=1), 50)

    assert reports.recent(acme, [1, 2], END) == {1: (15, [4, 0, 0, 0, 0, 0, 6]), 2: (0, [0] * 7)}


def test_another_organizations_calls_are_in_no_sum(acme: Organization) -> None:
    other = builders.organization("other")
    called(other, 1, MIDNIGHT, 7)

    assert sum(day.accepted for day in reports.daily(acme, START, END)) == 0
    assert reports.totals(acme, MIDNIGHT, LAST_MIDNIGHT).accepted == 0
    assert reports.recent(acme, [1], END) == {1: (0, [0] * 7)}


def test_last_uses_are_per_secret_and_the_latest_per_key(acme: Organization) -> None:
    used, unused = builders.key(acme), builders.key(acme)
    first = used.secret
    second = lifecycle.rotate_key(
        lifecycle.command_actor(), used.key, overlap=dt.timedelta(hours=1), now=timezone.now()
    ).secret
    for secret, hour in ((first, 3), (second, 9)):
        SecretUse.objects.create(secret=secret, calls=1, last_used_at=MIDNIGHT.replace(hour=hour))

    keys = [used.key.pk, unused.key.pk]
    assert reports.key_last_used(acme, keys) == {used.key.pk: MIDNIGHT.replace(hour=9)}
    assert reports.key_last_used(builders.organization("other"), keys) == {}
    uses = reports.last_uses([first.pk, unused.secret.pk])
    assert {pk: use.last_used_at.hour for pk, use in uses.items()} == {first.pk: 3}


def test_a_report_is_one_query_however_many_rows(
    acme: Organization, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    keys = list(range(1, 21))
    for key in keys:
        for day in range(3):
            called(acme, key, MIDNIGHT + dt.timedelta(days=day))

    with django_assert_num_queries(1):
        reports.daily(acme, START, END)
    with django_assert_num_queries(1):
        reports.totals(acme, MIDNIGHT, LAST_MIDNIGHT)
    with django_assert_num_queries(1):
        reports.recent(acme, keys, END)
    with django_assert_num_queries(1):
        reports.last_uses(keys)
    with django_assert_num_queries(1):
        reports.key_last_used(acme, keys)


type Cells = dict[tuple[int, int, str, str], tuple[int, int]]
CELLS: st.SearchStrategy[Cells] = st.dictionaries(
    st.tuples(
        st.integers(min_value=-30, max_value=24 * 7 + 30),  # hours from the range's start
        st.integers(min_value=1, max_value=3),  # key
        st.sampled_from(["VALID", "EXPIRED", "RATE_LIMITED"]),
        st.sampled_from(["", "tiles"]),
    ),
    st.tuples(st.integers(min_value=1, max_value=10**12), st.integers(min_value=0, max_value=10**12)),
    max_size=25,
)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=CELLS)
def test_every_report_agrees_with_the_roll_ups(acme: Organization, cells: Cells) -> None:
    builders.nothing_used()
    expected: Counter[str] = Counter()
    quantity = 0
    for (hour, key, outcome, resource), (calls, cost) in cells.items():
        called(
            acme, key, MIDNIGHT + dt.timedelta(hours=hour), calls, outcome, quantity=cost, resource=resource
        )
        if 0 <= hour < 24 * 7:
            expected[outcome] += calls
            quantity += cost if outcome == "VALID" else 0
    refused = expected.total() - expected["VALID"]

    totals = reports.totals(acme, MIDNIGHT, LAST_MIDNIGHT)
    days = reports.daily(acme, START, END)
    lines = {key: found.line for key, found in reports.recent(acme, [1, 2, 3], END).items()}
    single = [reports.daily(acme, START, END, key=key) for key in (1, 2, 3)]

    assert (totals.accepted, totals.refused, totals.quantity) == (expected["VALID"], refused, quantity)
    assert dict(totals.reasons) == {code: n for code, n in expected.items() if code != "VALID"}
    assert (sum(d.accepted for d in days), sum(d.refused for d in days)) == (totals.accepted, totals.refused)
    assert [sum(column) for column in zip(*lines.values(), strict=True)] == [d.accepted for d in days]
    assert [sum(d.accepted for d in one) for one in single] == [sum(lines[key]) for key in (1, 2, 3)]
