"""Retention: what goes, what stays, and that no sum ever changes."""

import datetime as dt
from typing import Any

import pytest
from django.db.models import Sum
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys.models import Organization
from tests import builders
from usage import billing, events, reports, retention
from usage.models import Event, Hold, ResponseRollup, Rollup

pytestmark = pytest.mark.django_db

START = dt.datetime(2025, 1, 30, tzinfo=dt.UTC)
NOW = START + dt.timedelta(days=500)
HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", now=START)


def used(of: Organization, hours: int, calls: int = 1, **fields: Any) -> None:
    hour = START + hours * HOUR
    base: dict[str, Any] = {"key_id": 1, "meter": "requests", "outcome": "VALID", "resource": ""} | fields
    place: dict[str, Any] = {
        "organization": of,
        "hour": hour,
        "booked_period": hour.date().replace(day=1),
    } | base
    row, _ = Rollup.objects.get_or_create(**place)
    Rollup.objects.filter(pk=row.pk).update(calls=row.calls + calls, quantity=row.quantity + 2 * calls)


def fold(before: dt.datetime) -> list[tuple[int, dt.datetime]]:
    return list(retention.fold(before))


def event(event_id: str, received_at: dt.datetime) -> None:
    Event.objects.create(
        source="us",
        event_id=event_id,
        digest="",
        organization_id=1,
        key_id=1,
        meter="requests",
        at=received_at,
        quantity=1,
        received_at=received_at,
    )


def test_ids_and_holds_are_forgotten_once_nothing_can_come_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    for number in range(10):
        moment = NOW - events.REMEMBERED + (number - 8) * HOUR
        event(str(number), moment)
        Hold.objects.create(
            spool="s", sequence=number, organization_id=1, key_id=1, meter="requests", cost=1, at=moment
        )
    assert list(retention.forget(NOW)) == [3, 3, 2, 3, 3, 2]
    assert sorted(Event.objects.values_list("event_id", flat=True)) == ["8", "9"]
    assert sorted(Hold.objects.values_list("sequence", flat=True)) == [8, 9]
    assert list(retention.forget(NOW)) == []


def test_many_rows_go_in_statements_that_every_database_takes() -> None:
    for number in range(1200):
        event(str(number), START)
    assert list(retention.forget(NOW)) == [1200]


def test_old_hours_become_one_row_a_day(acme: Organization) -> None:
    for hours in (0, 1, 23, 24, 30, 47, 48, 49):
        used(acme, hours)
    used(acme, 5, outcome="REVOKED")
    ResponseRollup.objects.create(organization=acme, hour=START + HOUR, key_id=1, status_class=2, responses=3)
    assert fold(START + 2 * DAY + 5 * HOUR) == [(acme.pk, START), (acme.pk, START + DAY)]
    rows = Rollup.objects.order_by("hour", "outcome").values_list("hour", "outcome", "calls", "quantity")
    assert list(rows) == [
        (START, "REVOKED", 1, 2),
        (START, "VALID", 3, 6),
        (START + DAY, "VALID", 3, 6),
        (START + 2 * DAY, "VALID", 1, 2),
        (START + 2 * DAY + HOUR, "VALID", 1, 2),
    ]
    assert ResponseRollup.objects.get().hour == START
    assert fold(START + 2 * DAY + 5 * HOUR) == []


def test_what_comes_late_is_folded_too(acme: Organization) -> None:
    used(acme, 1)
    fold(NOW)
    used(acme, 2, 5)
    fold(NOW)
    assert Rollup.objects.get().calls == 6


def test_hours_are_kept_as_long_as_the_setting_says(acme: Organization, settings: Any) -> None:
    now = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    hour = now.replace(hour=7) - 401 * DAY
    used(acme, (hour - START) // HOUR)
    settings.USAGE_DETAIL_DAYS = 0
    retention.once()
    assert Rollup.objects.get().hour == hour
    settings.USAGE_DETAIL_DAYS = 400
    retention.once(stop=lambda: False)
    assert Rollup.objects.get().hour == hour.replace(hour=0)


def test_a_backlog_is_worked_off_a_little_at_a_time(acme: Organization) -> None:
    for day in range(3):
        used(acme, day * 24 + 5)
    for left in (2, 1, 0, 0):
        retention.once(seconds=0)
        assert Rollup.objects.exclude(hour__hour=0).count() == left


usage = st.tuples(
    st.integers(0, 96),
    st.integers(1, 2**40),
    st.sampled_from(["VALID", "REVOKED"]),
    st.sampled_from(["", "chat"]),
    st.integers(1, 3),
    st.sampled_from([dt.date(2025, 1, 1), dt.date(2025, 2, 1)]),
)


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(usage, max_size=30), cutoff=st.integers(0, 120))
def test_no_sum_that_a_page_or_a_bill_shows_ever_changes(
    acme: Organization, sent: list[tuple[int, int, str, str, int, dt.date]], cutoff: int
) -> None:
    Rollup.objects.all().delete()
    for hours, calls, outcome, resource, key, booked in sent:
        used(acme, hours, calls, outcome=outcome, resource=resource, key_id=key, booked_period=booked)

    def shown() -> list[object]:
        end = START + 6 * DAY
        groups = Rollup.objects.values_list("booked_period", "key_id", "outcome", "resource")
        return [
            reports.daily(acme, START.date(), end.date()),
            reports.totals(acme, START, end),
            list(billing.lines(billing.Period(2025, 1))),
            list(billing.lines(billing.Period(2025, 2))),
            sorted(groups.annotate(calls=Sum("calls"), quantity=Sum("quantity"))),
        ]

    before = shown()
    fold(START + cutoff * HOUR)
    assert shown() == before
