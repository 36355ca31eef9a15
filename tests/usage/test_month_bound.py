"""How much a month may hold: what would not fit is refused alone, and what fits can be billed and proved."""

import csv
import datetime as dt
import io
import threading
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from keys import lifecycle
from keys.models import Key, Organization
from tests import builders
from tests.builders import NOW
from tests.threads import at_once
from tests.usage.journals import hold
from usage import events, month_bound
from usage.billing import Period, closing
from usage.drain import drain_once
from usage.event_format import MAX_EVENTS, Reported
from usage.events import Report
from usage.journal import Journal
from usage.meters import MAX_QUANTITY
from usage.models import Event, Hold, Rollup
from usage.month_bound import MAX_MONTH, Place
from usage.rules import MAX_COST

pytestmark = pytest.mark.django_db

MAY, JUNE = Period(2026, 5), Period(2026, 6)
WHOLE = MAX_MONTH // MAX_QUANTITY  # events of the highest value that fill a month


@pytest.fixture
def acme(db: None) -> Organization:
    return builders.organization("acme", now=NOW - dt.timedelta(days=60))


@pytest.fixture
def key(acme: Organization) -> Key:
    return builders.key(acme, now=NOW - dt.timedelta(days=60)).key


@pytest.fixture
def journal(journal_dir: Path) -> Iterator[Journal]:
    journal = Journal(journal_dir, clock=lambda: int(NOW.timestamp()) * 1_000_000_000, tick=False)
    yield journal
    journal.close()


def event(name: str, key: Key, quantity: int, at: dt.datetime = NOW, **fields: Any) -> Reported:
    made = Reported("us", name, key.public_id, "requests", Decimal(quantity), at, "", "", False)
    return made._replace(**fields)


def settlement(name: str, request: str, quantity: int) -> Reported:
    return Reported("us", name, "", "", Decimal(quantity), None, "", request, False)


def send(*sent: Reported, now: dt.datetime = NOW) -> Report:
    return events.report(sent, now, wait=0)


def codes(report: Report) -> list[tuple[int, str]]:
    return [(each.index, each.code.value) for each in report.rejected]


def full(key: Key, at: dt.datetime = NOW) -> None:
    """A month at its bound, spread over hours that still have some room each."""
    start = Period.of(at).start
    for hour in range(8):
        builders.used(key, MAX_MONTH // 8, start + dt.timedelta(hours=hour))


def total() -> int:
    return sum(Rollup.objects.values_list("quantity", flat=True))


def test_what_would_not_fit_is_refused_alone(key: Key) -> None:
    huge = [event(str(n), key, MAX_QUANTITY) for n in range(WHOLE + 1)]

    report = send(*huge, event("small", key, 3))

    assert (report.accepted, codes(report)) == (WHOLE + 1, [(WHOLE, "INVALID_VALUE")])
    assert "month" in report.rejected[0].detail
    assert total() == MAX_MONTH + 3
    assert not Event.objects.filter(event_id=str(WHOLE)).exists()


def test_what_was_counted_before_takes_up_room(key: Key) -> None:
    full(key)

    assert codes(send(event("1", key, MAX_COST + 1))) == [(0, "INVALID_VALUE")]
    assert total() == MAX_MONTH


def test_what_still_fits_is_taken_after_what_did_not(key: Key) -> None:
    builders.used(key, MAX_MONTH - MAX_QUANTITY)
    sent = [event("1", key, MAX_QUANTITY - 1), event("2", key, MAX_QUANTITY), event("3", key, 1)]

    assert codes(send(*sent)) == [(1, "INVALID_VALUE")]
    assert total() == MAX_MONTH


def test_each_organization_meter_and_month_has_room_of_its_own(key: Key) -> None:
    full(key)
    builders.meter("tokens")
    bob = builders.key(builders.organization("bob")).key

    report = send(
        event("1", key, MAX_QUANTITY, meter="tokens"),
        event("2", key, MAX_QUANTITY, MAY.start + dt.timedelta(days=20)),
        event("3", bob, MAX_QUANTITY),
        event("4", key, MAX_QUANTITY),
    )

    assert (report.accepted, codes(report)) == (3, [(3, "INVALID_VALUE")])


def test_what_came_in_time_is_a_duplicate_though_it_would_not_fit_again(key: Key) -> None:
    builders.used(key, MAX_MONTH - MAX_QUANTITY)
    sent = event("1", key, MAX_QUANTITY)
    assert send(sent).accepted == 1

    assert send(sent).duplicates == 1


def test_ordinary_events_are_counted_in_a_full_month_and_ask_nothing(key: Key) -> None:
    full(key)
    with CaptureQueriesContext(connection) as ordinary:
        report = send(*(event(f"n{n}", key, MAX_COST) for n in range(20)))
    assert (report.accepted, report.rejected) == (20, [])
    with CaptureQueriesContext(connection) as huge:
        assert send(event("2", key, MAX_COST + 1)).rejected

    assert [
        any("SUM(" in each["sql"] for each in captured.captured_queries) for captured in (ordinary, huge)
    ] == [False, True]


def test_a_settlement_that_would_not_fit_leaves_its_call_to_another(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    full(key)

    report = send(
        settlement("1", request, MAX_QUANTITY), settlement("2", request, 7), settlement("3", request, 8)
    )
    assert (report.accepted, codes(report)) == (1, [(0, "INVALID_VALUE"), (2, "SETTLED")])
    assert Hold.objects.get().settled_at == NOW
    assert total() == MAX_MONTH + 7


def test_a_call_that_no_settlement_fits_stays_as_it_was_held(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    full(key)

    assert codes(send(settlement("1", request, MAX_QUANTITY))) == [(0, "INVALID_VALUE")]
    assert Hold.objects.get().settled_at is None
    assert send(settlement("2", request, 7)).accepted == 1
    assert total() == MAX_MONTH + 7


@pytest.mark.django_db(transaction=True)
def test_batches_at_once_fill_a_month_and_never_more(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone would fit, and each is of an hour of its own, so that no roll-up keeps them apart. Who has
    asked for room waits for the other to have asked too, which it cannot."""
    asked, room = threading.Barrier(2), month_bound.room

    def slow_room(places: set[Place]) -> dict[Place, int]:
        found = room(places)
        with suppress(threading.BrokenBarrierError):
            asked.wait(0.5)
        return found

    monkeypatch.setattr(month_bound, "room", slow_room)
    hours = [NOW - dt.timedelta(hours=turn) for turn in range(2)]
    batches = [[event(f"{at:%H}-{n}", key, MAX_QUANTITY, at) for n in range(WHOLE)] for at in hours]

    reports = at_once([partial(send, *batch) for batch in batches])

    assert all(isinstance(report, Report) for report in reports), reports
    assert sum(report.accepted for report in reports if isinstance(report, Report)) == WHOLE
    assert total() == MAX_MONTH


def test_a_batch_of_ordinary_events_and_a_year_of_full_months_are_far_from_what_a_sum_can_be() -> None:
    assert 13 * MAX_MONTH + MAX_EVENTS * MAX_COST < 2**63
    assert 2**63 - 13 * MAX_MONTH > MAX_COST * 500_000_000


def exported(period: Period, folder: Path) -> list[dict[str, str]]:
    """The rows of its CSV."""
    file = folder / f"{period}.csv"
    call_command("export_billing", "--period", str(period), "--output", str(file), stderr=io.StringIO())
    return list(csv.DictReader(file.read_text().splitlines()))


def test_full_months_of_many_customers_can_be_closed_exported_and_proved(
    settings: Settings, tmp_path: Path, journal_dir: Path
) -> None:
    """All of them together are more than a database's sum can be, and so is what comes late for them."""
    settings.BILLING_GRACE_HOURS = 0
    keys = [builders.key(builders.organization(f"o{n}")).key for n in range(40)]
    dear = builders.version("basic", requests={"unit_price": "1000000000000"})
    for each in keys:
        builders.subscription(each.organization, dear, MAY.start)

    def fill(name: str, at: dt.datetime, now: dt.datetime, count: int) -> None:
        for each in keys:
            sent = [event(f"{name}-{each.pk}-{n}", each, MAX_QUANTITY, at) for n in range(count)]
            assert send(*sent, now=now).accepted == count

    day = dt.timedelta(days=1)
    fill("in time", MAY.end - day, MAY.end, WHOLE // 2)
    closing.close(MAY, lifecycle.command_actor(), now=MAY.end)
    fill("late", MAY.end - day, MAY.end, WHOLE // 2)
    fill("june", JUNE.end - day, JUNE.end, WHOLE)
    call_command("close_period", "2026-06", "--dry-run", stdout=io.StringIO(), stderr=io.StringIO())
    closing.close(JUNE, lifecycle.command_actor(), now=JUNE.end)

    for period, whole in ((MAY, MAX_MONTH // 2), (JUNE, MAX_MONTH // 2 + MAX_MONTH)):
        rows = exported(period, tmp_path)
        assert sum(int(row["quantity"]) for row in rows) == whole * len(keys)
        assert sum(Decimal(row["amount"]) for row in rows) == whole * len(keys) * 10**12
    out = io.StringIO()
    call_command("verify_billing", stdout=out, stderr=io.StringIO())
    assert out.getvalue().splitlines() == [
        "2026-05: as closed.",
        "2026-06: as closed.",
        "Journals: as closed.",
    ]
