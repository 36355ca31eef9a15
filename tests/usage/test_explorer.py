"""The explorer's sums agree with the roll-ups they are made from, however they are cut and grouped."""

import datetime as dt
from collections import Counter

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys.models import Environment, Key, Organization
from tests import builders
from usage import explorer, organization_rollups, series
from usage.explorer import Asked, Group
from usage.models import Rollup

pytestmark = pytest.mark.django_db

START = dt.datetime(2026, 5, 30, tzinfo=dt.UTC)  # two days before a month's end
HOUR = dt.timedelta(hours=1)
type Rows = dict[tuple[int, int, str, str, str], int]  # calls
ROW = st.tuples(
    st.integers(-3, 24 * 4 + 3),  # hours from START
    st.integers(0, 2),  # key
    st.sampled_from(["requests", "tokens"]),
    st.sampled_from(["", "a", "b", "other"]),
    st.sampled_from(["VALID", "RATE_LIMITED", "EXPIRED"]),
)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme")


@pytest.fixture
def keys(acme: Organization) -> list[Key]:
    """Two live ones and one for tests."""
    live = [builders.key(acme).key for _ in range(2)]
    return [*live, builders.key(acme, environment=Environment.TEST).key]


def stored(
    organization: Organization, rows: dict[tuple[int, int, str, str, str], int], keys: list[Key]
) -> None:
    builders.nothing_used()
    Rollup.objects.bulk_create(
        Rollup(
            organization=organization,
            hour=START + hours * HOUR,
            key=keys[key],
            meter=meter,
            resource=resource,
            outcome=outcome,
            booked_period=dt.date(2026, 5, 1),
            calls=calls,
            quantity=10 * calls,
        )
        for (hours, key, meter, resource, outcome), calls in rows.items()
    )
    midnight = START.replace(hour=0)
    organization_rollups.mend(midnight, midnight + dt.timedelta(days=120))


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.dictionaries(ROW, st.integers(1, 1000), max_size=20),
    by=st.sampled_from(list(series.GROUPS)),
    bucket=st.sampled_from(series.BUCKETS),
    meter=st.sampled_from(["", "tokens"]),
    environment=st.sampled_from(["", "live", "test"]),
    only=st.sampled_from([None, 0]),
    first=st.integers(0, 5),
)
def test_sums_and_buckets_are_those_of_the_roll_ups(
    acme: Organization,
    keys: list[Key],
    rows: Rows,
    by: str,
    bucket: str,
    meter: str,
    environment: str,
    only: int | None,
    first: int,
) -> None:
    stored(acme, rows, keys)
    end = START + 24 * 4 * HOUR
    asked = Asked(START, end, meter, environment, None if only is None else keys[only].pk)
    calls: Counter[Group] = Counter()
    quantities: Counter[Group] = Counter()
    for (hours, key, its_meter, resource, outcome), number in rows.items():
        wanted = 0 <= hours < 24 * 4 and meter in ("", its_meter) and only in (None, key)
        if not wanted or environment not in ("", keys[key].environment):
            continue
        groups: dict[str, Group] = {
            "key": keys[key].pk,
            "meter": its_meter,
            "resource": resource,
            "outcome": outcome,
            "environment": keys[key].environment,
        }
        group = groups[by]
        calls[group] += number
        quantities[group] += 10 * number * (outcome == "VALID")

    found = explorer.sums(acme, asked, by)
    assert {group: each.accepted + each.refused for group, each in found.groups.items()} == calls
    assert {group: each.quantity for group, each in found.groups.items() if each.quantity} == +quantities
    assert sum(found.outcomes.values()) == calls.total()

    top = sorted(found.groups, key=str)[:first]
    parts = explorer.buckets(acme, asked, by, bucket, top)
    if by in explorer.FEW:
        both, every = explorer.everything(acme, asked, by, bucket)
        assert (both, explorer.only(every, top)) == (found, parts)
    assert {at for at, _ in parts} <= set(explorer.cuts(START, end, bucket))
    drawn: Counter[Group | None] = Counter()
    for (_, group_or_other), (number, _) in parts.items():
        drawn[group_or_other] += number
    others = sum(number for group, number in calls.items() if group not in top)
    expected: dict[Group | None, int] = {group: calls[group] for group in top}
    assert drawn == expected | ({None: others} if others else {})


@pytest.mark.parametrize(
    ("start", "bucket", "first", "number"),
    [
        (START + 5 * HOUR, "hour", START + 5 * HOUR, 91),
        (START + 5 * HOUR, "day", START, 4),
        (START + 5 * HOUR, "month", dt.datetime(2026, 5, 1, tzinfo=dt.UTC), 2),
    ],
)
def test_a_range_is_cut_into_every_bucket_that_it_touches(
    start: dt.datetime, bucket: str, first: dt.datetime, number: int
) -> None:
    cuts = explorer.cuts(start, START + 24 * 4 * HOUR, bucket)
    assert (cuts[0], len(cuts)) == (first, number)


def test_another_organizations_usage_is_in_no_sum(acme: Organization, keys: list[Key]) -> None:
    stored(acme, {(1, 0, "requests", "a", "VALID"): 7}, keys)
    asked = Asked(START, START + 24 * HOUR)
    globex = builders.organization("globex")
    assert explorer.sums(globex, asked, "key") == ({}, {})
    assert explorer.sums(globex, asked._replace(key=keys[0].pk), "key") == ({}, {})
    assert explorer.buckets(globex, asked._replace(environment="live"), "key", "day", [keys[0].pk]) == {}
