"""Usage from outside: each event counted once, whatever is sent again, at once or in whichever batch."""

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import batched
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connections
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.models import Key, Organization, Process
from tests import builders
from tests.builders import NOW
from tests.usage.journals import hold
from usage import event_format, events, holds
from usage.drain import drain_once
from usage.event_format import Rejection, parse, parse_cloudevent
from usage.events import EARLIEST, LATEST, Report
from usage.journal import Journal
from usage.models import Event, Hold, Rollup
from usage.records import CALL

pytestmark = pytest.mark.django_db

HOUR = dt.timedelta(hours=1)


@pytest.fixture(autouse=True)
def _meters(db: None) -> None:
    builders.meter("tokens", decimals=3)
    builders.meter("jobs", aggregation="count")


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", now=NOW - dt.timedelta(days=60))


@pytest.fixture
def key(acme: Organization) -> Key:
    return builders.key(acme, now=NOW - dt.timedelta(days=60)).key


@pytest.fixture
def journal(journal_dir: Path) -> Iterator[Journal]:
    journal = Journal(journal_dir, clock=lambda: int(NOW.timestamp()) * 1_000_000_000, tick=False)
    yield journal
    journal.close()


def event(of: Key | None = None, event_id: str = "1", **fields: Any) -> dict[str, Any]:
    """An item of a batch; numbers as the API's parser makes them."""
    named = {} if of is None else {"key": of.public_id}
    base = {"id": event_id, "meter": "requests", "value": Decimal(1)} | named
    return {name: value for name, value in (base | fields).items() if value is not ...}


def send(*items: object, now: dt.datetime = NOW, source: str = "us", wait: float = 0) -> Report:
    return events.report([parse(item, source) for item in items], now, wait=wait)


def codes(report: Report) -> list[tuple[int, str]]:
    return [(each.index, each.code.value) for each in report.rejected]


def quantities() -> dict[tuple[dt.datetime, str, str], int]:
    """(hour, meter, resource) → quantity of all that is accepted."""
    found: dict[tuple[dt.datetime, str, str], int] = {}
    for row in Rollup.objects.filter(outcome="VALID"):
        place = row.hour, row.meter, row.resource
        found[place] = found.get(place, 0) + row.quantity
    return found


def settlement(request: str, event_id: str = "s", **fields: Any) -> dict[str, Any]:
    return {"id": event_id, "settles": request} | fields


# --- what counts -----------------------------------------------------------------------------------


def test_an_event_counts_its_quantity_and_no_call(key: Key) -> None:
    report = send(event(key, value=Decimal(7), at="2026-06-15T09:59:59.9Z", resource="chat"))
    assert (report.accepted, report.duplicates, report.rejected) == (1, 0, [])
    row = Rollup.objects.get()
    assert (row.organization_id, row.key_id, row.meter, row.resource, row.outcome) == (
        key.organization_id,
        key.pk,
        "requests",
        "chat",
        "VALID",
    )
    assert (row.calls, row.quantity) == (0, 7)
    assert row.hour == dt.datetime(2026, 6, 15, 9, tzinfo=dt.UTC)
    assert row.booked_period == dt.date(2026, 6, 1)


def test_an_event_is_booked_in_the_utc_month_of_its_time(key: Key) -> None:
    send(event(key, at="2026-06-01T01:00:00+02:00"))
    assert Rollup.objects.get().booked_period == dt.date(2026, 5, 1)


def test_an_event_without_a_time_happens_now_and_stays_the_same_event(key: Key) -> None:
    assert send(event(key)).accepted == 1
    assert send(event(key), now=NOW + 3 * HOUR).duplicates == 1
    assert Rollup.objects.get().hour == NOW


def test_values_are_exact_decimals(key: Key) -> None:
    items = [event(key, str(n), meter="tokens", value=Decimal("0.1")) for n in range(10)]
    assert send(*items, event(key, "text", meter="tokens", value="0.001")).accepted == 11
    assert Rollup.objects.get().quantity == 1001


def test_a_meter_that_counts_counts_one_for_each_event_that_has_a_value(key: Key) -> None:
    values = (500, 0, 1)
    send(*(event(key, str(n), meter="jobs", value=Decimal(value)) for n, value in enumerate(values)))
    assert Rollup.objects.get().quantity == 2


def test_what_adds_nothing_is_accepted_and_no_row(key: Key) -> None:
    assert send(event(key, value=Decimal(0))).accepted == 1
    assert not Rollup.objects.exists()
    assert send(event(key, value=Decimal(0))).duplicates == 1


def test_keys_that_no_longer_work_may_still_be_reported_for(acme: Organization, key: Key) -> None:
    actor = lifecycle.command_actor()
    lifecycle.revoke_key(actor, key, now=NOW)
    lifecycle.suspend_organization(actor, acme, reason="unpaid", now=NOW)
    assert send(event(key)).accepted == 1


# --- exactly once ----------------------------------------------------------------------------------


def test_the_same_event_again_is_a_duplicate_however_it_is_written(key: Key) -> None:
    assert send(event(key, value=Decimal("2.0"), at="2026-06-15T11:00:00Z")).accepted == 1
    again = event(key, value="2", at="2026-06-15T13:00:00+02:00", resource="", settles=None)
    assert send(again).duplicates == 1
    assert sum(quantities().values()) == 2


def test_the_same_id_with_another_body_is_a_conflict(key: Key) -> None:
    send(event(key))
    for changed in ({"value": Decimal(2)}, {"resource": "chat"}, {"at": "2026-06-15T11:00:00Z"}):
        assert codes(send(event(key, **changed))) == [(0, "CONFLICT")]
    assert sum(quantities().values()) == 1


def test_another_source_has_ids_of_its_own(key: Key) -> None:
    send(event(key), source="us")
    assert send(event(key), source="them").accepted == 1
    assert Event.objects.count() == 2


def test_the_same_id_twice_in_a_batch(key: Key) -> None:
    report = send(event(key), event(key), event(key, value=Decimal(2)))
    assert (report.accepted, report.duplicates, codes(report)) == (1, 1, [(2, "CONFLICT")])
    assert sum(quantities().values()) == 1


def test_an_id_whose_first_event_was_refused_is_free(key: Key) -> None:
    report = send(event(key, meter="none"), event(key, meter="none"), event(key))
    assert (report.accepted, codes(report)) == (1, [(0, "UNKNOWN_METER"), (1, "UNKNOWN_METER")])


def test_what_was_counted_is_a_duplicate_even_when_it_would_now_be_too_late(key: Key) -> None:
    item = event(key, at=NOW.isoformat())
    send(item)
    assert send(item, now=NOW + LATEST + HOUR).duplicates == 1


def test_a_bad_event_refuses_no_other(key: Key) -> None:
    report = send(event(key, "1"), 7, event(key, "2", value=Decimal(-1)), event(key, "3"))
    assert report.accepted == 2
    assert codes(report) == [(1, "INVALID_EVENT"), (2, "INVALID_VALUE")]


def test_when_the_rollups_fail_no_id_is_taken(key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise DatabaseError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("usage.rollups.Sums.store", fail)
        with pytest.raises(DatabaseError):
            send(event(key))
    assert send(event(key)).accepted == 1


bodies = st.tuples(st.integers(0, 11), st.integers(0, 2), st.sampled_from(["", "chat"]))


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sent=st.lists(bodies, max_size=40),
    size=st.integers(1, 12),
    repeats=st.lists(st.integers(0, 40), max_size=4),
)
def test_any_events_in_any_batches_count_as_the_distinct_ones(
    key: Key, sent: list[tuple[int, int, str]], size: int, repeats: list[int]
) -> None:
    """Whoever came first with an id counts; batches may be sent again in any order, whole or overlapping."""
    Event.objects.all().delete()
    Rollup.objects.all().delete()
    items = [event(key, str(n), value=Decimal(value), resource=label) for n, value, label in sent]
    batches = [*batched(items, size), *(tuple(items[start : start + size]) for start in repeats)]
    first: dict[str, dict[str, Any]] = {}
    reports = []
    for batch in batches:
        for item in batch:
            first.setdefault(item["id"], item)
        reports.append(send(*batch))
    expected: dict[str, int] = {}
    for item in first.values():
        expected[item["resource"]] = expected.get(item["resource"], 0) + int(item["value"])
    found = {resource: quantity for (_, _, resource), quantity in quantities().items()}
    assert {name: quantity for name, quantity in expected.items() if quantity} == found
    assert sum(report.accepted for report in reports) == len(first)
    for batch, report in zip(batches, reports, strict=True):
        assert report.accepted + report.duplicates + len(report.rejected) == len(batch)


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """What each answers, all begun together."""
    ready = threading.Barrier(len(acts))
    answers: list[Any] = [None] * len(acts)

    def run(place: int, act: Callable[[], Any]) -> None:
        try:
            ready.wait()
            answers[place] = act()
        except BaseException as error:
            answers[place] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(n, act)) for n, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.django_db(transaction=True)
def test_batches_that_overlap_at_once_count_each_event_once(key: Key) -> None:
    """Each thread sends the same events in an order of its own, and one that says something else."""
    items = [event(key, str(n), value=Decimal(n), resource=f"r{n % 5}") for n in range(60)]

    def act(turn: int) -> Report:
        odd = event(key, "odd", value=Decimal(100 + turn))
        return send(*items[turn * 10 :], odd, *items[: turn * 10])

    for _ in range(3):
        Event.objects.all().delete()
        Rollup.objects.all().delete()
        reports = at_once(*(lambda turn=turn: act(turn) for turn in range(6)))
        assert all(isinstance(report, Report) for report in reports), reports
        assert sum(report.accepted for report in reports) == 61
        assert sum(report.duplicates for report in reports) == 60 * 5
        assert [code for report in reports for _, code in codes(report)] == ["CONFLICT"] * 5
        winner = next(n for n, report in enumerate(reports) if not report.rejected)
        assert sum(quantities().values()) == sum(range(60)) + 100 + winner


# --- what is refused -------------------------------------------------------------------------------

STRANGE = ["", "x" * 201, "a\0b", "\ud800", "a\nb", 7, None, ["a"], "lk_live_0123456789abcdef"]


@pytest.mark.parametrize("strange", STRANGE)
def test_an_id_is_short_printable_text_and_no_key(key: Key, strange: object) -> None:
    assert codes(send(event(key, id=strange))) == [(0, "INVALID_EVENT")]


@pytest.mark.parametrize(
    "fields",
    [
        {"unknown": 1},
        {"resource": "a\0b"},
        {"resource": "x" * 129},
        {"resource": 7},
        {"resource": "lk_live_0123456789abcdef"},
        {"key": ...},
        {"key": 7},
        {"meter": ...},
        {"meter": {}},
        {"void": True, "value": ...},
        {"void": "yes"},
        {"settles": 7},
        {"at": 7},
        {"at": "2026-06-15"},
        {"at": "2026-06-15T12:00:00"},
        {"at": "2026-02-30T12:00:00Z"},
        {"at": "0001-01-01T00:00:00+14:00"},
        {"at": "now\0"},
    ],
)
def test_what_is_no_event_is_invalid(key: Key, fields: dict[str, Any]) -> None:
    assert codes(send(event(key, **fields))) == [(0, "INVALID_EVENT")]


@pytest.mark.parametrize(
    "value",
    [
        ...,
        None,
        True,
        [],
        {},
        "",
        "x",
        "NaN",
        "Infinity",
        "1_000",
        " 1",
        "١",
        "1\0",
        "-1",
        Decimal("-0.001"),
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("-Infinity"),
        Decimal("0.0001"),
        Decimal("1.00000000000000000000000000000000001"),
        Decimal(2**53 + 1),
        Decimal("1e999999"),
        Decimal("1e-999999"),
        Decimal("9" * 5000),
        event_format.number("1e9999999999999999999999"),
    ],
)
def test_a_value_that_no_meter_counts_is_invalid(key: Key, value: object) -> None:
    assert codes(send(event(key, meter="tokens", value=value))) == [(0, "INVALID_VALUE")]


@pytest.mark.parametrize(
    ("value", "quantity"),
    [("1e3", 1_000_000), ("-0", 0), ("00.5", 500), ("+1", 1000), ("1.000000", 1000), ("1E-3", 1)],
)
def test_a_number_may_be_written_in_any_way(key: Key, value: str, quantity: int) -> None:
    assert send(event(key, meter="tokens", value=value)).accepted == 1
    assert sum(quantities().values()) == quantity


@pytest.mark.parametrize("name", ["key_0000000000000000", "x", "\0", "\ud800", "é", "k" * 5000])
def test_a_key_that_is_not_there_is_unknown(name: str) -> None:
    assert codes(send(event() | {"key": name})) == [(0, "UNKNOWN_KEY")]


def test_a_secret_is_no_keys_id_and_is_not_repeated(acme: Organization) -> None:
    issued = builders.key(acme, now=NOW)
    (rejected,) = send(event() | {"key": issued.plaintext}).rejected
    assert rejected.code is Rejection.UNKNOWN_KEY
    assert issued.plaintext not in rejected.detail


@pytest.mark.parametrize("name", ["none", "\0", "\ud800", "m" * 5000])
def test_a_meter_that_is_not_there_is_unknown(key: Key, name: str) -> None:
    assert codes(send(event(key, meter=name))) == [(0, "UNKNOWN_METER")]


def test_an_event_may_be_35_days_late_and_5_minutes_early(key: Key) -> None:
    tick = dt.timedelta(microseconds=1)
    report = send(
        event(key, "1", at=(NOW - LATEST).isoformat()),
        event(key, "2", at=(NOW + EARLIEST).isoformat()),
        event(key, "3", at=(NOW - LATEST - tick).isoformat()),
        event(key, "4", at=(NOW + EARLIEST + tick).isoformat()),
    )
    assert (report.accepted, codes(report)) == (2, [(2, "TOO_LATE"), (3, "TOO_EARLY")])


# --- CloudEvents -----------------------------------------------------------------------------------


def cloudevent(key: Key, **fields: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "1",
        "source": "/worker",
        "type": "tokens",
        "subject": key.public_id,
        "time": "2026-06-15T11:00:00Z",
        "datacontenttype": "application/json",
        "traceparent": "00-0af7",
        "data": {"value": Decimal("1.5"), "resource": "chat"},
    } | fields


def test_a_cloudevent_says_the_same_as_an_event_of_ours(key: Key) -> None:
    ours = event(key, meter="tokens", value="1.5", resource="chat", at="2026-06-15T11:00:00Z")
    assert send(ours, source="/worker").accepted == 1
    assert events.report([parse_cloudevent(cloudevent(key))], NOW).duplicates == 1


def test_a_cloudevents_data_may_name_the_meter(key: Key) -> None:
    sent = cloudevent(key, type="com.example.llm", data={"meter": "tokens", "value": Decimal(2)})
    assert events.report([parse_cloudevent(sent)], NOW).accepted == 1
    assert quantities() == {(NOW - HOUR, "tokens", ""): 2000}


@pytest.mark.parametrize(
    "fields",
    [
        {"specversion": "0.3"},
        {"specversion": Decimal("1.0")},
        {"source": ""},
        {"source": None},
        {"source": "a\0"},
        {"id": None},
        {"type": None},
        {"subject": None},
        {"time": "yesterday"},
        {"data": None},
        {"data": "text"},
        {"data": {"value": Decimal(1), "more": 1}},
        {"data_base64": "AAAA"},
    ],
)
def test_what_is_no_cloudevent_is_invalid(key: Key, fields: dict[str, Any]) -> None:
    assert codes(events.report([parse_cloudevent(cloudevent(key, **fields))], NOW)) == [(0, "INVALID_EVENT")]


# --- holds -----------------------------------------------------------------------------------------


def test_a_held_call_counts_as_it_was_held_until_it_is_settled(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    assert quantities() == {(NOW, "requests", "chat"): 10}
    assert send(settlement(request, value=Decimal(3)), now=NOW + 5 * HOUR).accepted == 1
    row = Rollup.objects.get()
    assert (row.hour, row.calls, row.quantity) == (NOW, 1, 3)


@pytest.mark.parametrize(("value", "quantity"), [("0", 0), ("10", 10), ("2000", 2000)])
def test_a_call_may_have_cost_more_or_less_than_was_held(
    journal: Journal, key: Key, value: str, quantity: int
) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    assert send(settlement(request, value=value)).accepted == 1
    assert sum(quantities().values()) == quantity


def test_a_void_call_costs_nothing_and_stays_a_call(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    assert send(settlement(request, void=True)).accepted == 1
    row = Rollup.objects.get()
    assert (row.calls, row.quantity) == (1, 0)


def test_a_settled_call_of_a_meter_that_counts_is_one(journal: Journal, key: Key) -> None:
    request = hold(journal, key, 1, meter="jobs")
    drain_once(NOW)
    assert send(settlement(request, value=Decimal(900))).accepted == 1
    assert sum(quantities().values()) == 1


def test_a_call_is_settled_once(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    first = settlement(request, value=Decimal(3))
    assert send(first, settlement(request, "other", value=Decimal(3))).accepted == 1
    report = send(
        first, settlement(request, "other", value=Decimal(3)), settlement(request, value=Decimal(4))
    )
    assert report.duplicates == 1
    assert codes(report) == [(1, "SETTLED"), (2, "CONFLICT")]
    assert sum(quantities().values()) == 3
    # An id that settled nothing is still free.
    assert send(event(key, "other")).accepted == 1


def test_an_id_that_settled_nothing_is_free_for_the_same_batch_too(journal: Journal, key: Key) -> None:
    request, open_one = hold(journal, key), hold(journal, key)
    drain_once(NOW)
    send(settlement(request, value=Decimal(3)))
    late = settlement(request, "other", value=Decimal(3))
    report = send(late, late, settlement(request, "other", void=True), event(key, "other"))
    assert (report.accepted, codes(report)) == (1, [(0, "SETTLED"), (1, "SETTLED"), (2, "SETTLED")])
    report = send(settlement(request, "new", void=True), settlement(open_one, "new", value=Decimal(4)))
    assert (report.accepted, codes(report)) == (1, [(0, "SETTLED")])
    assert sum(quantities().values()) == 3 + 4 + 1


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"key": "key_0000000000000000"}, "INVALID_EVENT"),
        ({"meter": "tokens"}, "INVALID_EVENT"),
        ({"resource": "other"}, "INVALID_EVENT"),
        ({"value": Decimal("0.5")}, "INVALID_VALUE"),
        ({"value": ...}, "INVALID_VALUE"),
        ({"void": True}, "INVALID_EVENT"),  # and a value
    ],
)
def test_a_settlement_must_fit_its_call(
    journal: Journal, key: Key, fields: dict[str, Any], code: str
) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    sent = {"value": Decimal(1)} | fields
    sent = {name: value for name, value in sent.items() if value is not ...}
    assert codes(send(settlement(request, **sent))) == [(0, code)]
    fitting = settlement(request, value=Decimal(1), key=key.public_id, meter="requests", resource="chat")
    assert send(fitting).accepted == 1


@pytest.mark.parametrize(
    "request_id", ["x", "0" * 11 + "-1", "0" * 11 + "-" + "9" * 40, "-", "a\0", "é" * 11 + "-1", "\ud800"]
)
def test_a_request_id_that_nobody_gave_is_unknown(request_id: str) -> None:
    assert codes(send(settlement(request_id, value=Decimal(1)))) == [(0, "UNKNOWN_REQUEST")]


def test_a_call_that_was_not_held_or_was_refused_cannot_be_settled(journal: Journal, key: Key) -> None:
    usual, refused = hold(journal, key, kind=CALL), hold(journal, key, code=2)
    drain_once(NOW)
    report = send(settlement(usual, "1", value=Decimal(1)), settlement(refused, "2", value=Decimal(1)))
    assert codes(report) == [(0, "NOT_HELD"), (1, "NOT_HELD")]
    assert not Event.objects.exists()


def test_a_settlement_may_come_35_days_after_its_call(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    late = NOW + LATEST + dt.timedelta(seconds=1)
    assert codes(send(settlement(request, value=Decimal(1)), now=late)) == [(0, "TOO_LATE")]
    assert send(settlement(request, value=Decimal(1)), now=NOW + LATEST).accepted == 1


def test_a_call_that_is_not_drained_is_not_yet_and_claims_nothing(journal: Journal, key: Key) -> None:
    hold(journal, key)
    drain_once(NOW)
    request = hold(journal, key)
    assert codes(send(settlement(request, value=Decimal(3)))) == [(0, "NOT_YET")]
    assert not Event.objects.exists()
    drain_once(NOW)
    assert send(settlement(request, value=Decimal(3))).accepted == 1


def test_a_process_that_serves_but_was_never_drained_is_not_yet(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    assert codes(send(settlement(request, value=Decimal(3)))) == [(0, "UNKNOWN_REQUEST")]
    Process.objects.create(
        pk=journal.spool, host="h", pid=1, lock_path="", started_at=NOW, feed_number=0, serves_until=NOW
    )
    assert codes(send(settlement(request, value=Decimal(3)))) == [(0, "NOT_YET")]


def test_a_finished_journal_gave_no_later_id(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    journal.close()
    drain_once(NOW)
    spool, _, sequence = request.partition("-")
    later = f"{spool}-{int(sequence) + 1000}"
    assert codes(send(settlement(later, value=Decimal(3)))) == [(0, "UNKNOWN_REQUEST")]


@pytest.mark.django_db(transaction=True)
def test_a_settlement_waits_for_the_drain(journal: Journal, key: Key) -> None:
    hold(journal, key)
    drain_once(NOW)
    request = hold(journal, key)
    asked, looked = threading.Event(), holds._look

    def look(wanted: Any) -> Any:
        asked.set()
        return looked(wanted)

    def drain() -> None:
        assert asked.wait(10)
        drain_once(NOW)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(holds, "_look", look)
        report, _ = at_once(lambda: send(settlement(request, value=Decimal(3)), wait=20), drain)
    assert isinstance(report, Report), report
    assert report.accepted == 1
    assert sum(quantities().values()) == 13


@pytest.mark.django_db(transaction=True)
def test_of_many_who_settle_one_call_at_once_one_does(journal: Journal, key: Key) -> None:
    """Each with ids of its own, so that nothing but the calls themselves keeps them apart."""
    for _ in range(4):
        Event.objects.all().delete()
        Rollup.objects.all().delete()
        requests = [hold(journal, key) for _ in range(60)]
        drain_once(NOW)

        def act(turn: int, requests: list[str] = requests) -> Report:
            mine = [settlement(each, f"{turn}-{each}", value=Decimal(turn)) for each in requests]
            return send(*(mine if turn % 2 else reversed(mine)))

        reports = at_once(*(lambda turn=turn: act(turn) for turn in range(6)))
        assert all(isinstance(report, Report) for report in reports), reports
        assert sum(report.accepted for report in reports) == 60
        assert {code for report in reports for _, code in codes(report)} == {"SETTLED"}
        assert Event.objects.count() == 60
        assert sum(quantities().values()) == sum(event.quantity + 10 for event in Event.objects.all())


@hypothesis_settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    held=st.lists(st.integers(0, 50), min_size=1, max_size=8),
    settled=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 99) | st.none()), max_size=20),
)
def test_each_call_costs_what_was_first_settled_or_else_held(
    journal: Journal, key: Key, held: list[int], settled: list[tuple[int, int | None]]
) -> None:
    Event.objects.all().delete()
    Rollup.objects.all().delete()
    requests = [hold(journal, key, cost) for cost in held]
    drain_once(NOW)
    costs = dict(enumerate(held))
    first: dict[int, int] = {}
    for number, (place, value) in enumerate(settled):
        if place >= len(requests):
            continue
        fields: dict[str, Any] = {"void": True} if value is None else {"value": Decimal(value)}
        report = send(settlement(requests[place], str(number), **fields))
        assert report.accepted == (place not in first)
        first.setdefault(place, value or 0)
    assert sum(quantities().values()) == sum((costs | first).values())
    assert sum(Rollup.objects.values_list("calls", flat=True)) == len(held)


def test_a_full_batch_of_events_and_settlements_counts_once(journal: Journal, key: Key) -> None:
    requests = [hold(journal, key) for _ in range(500)]
    drain_once(NOW)
    items = [event(key, f"e{n}", value=Decimal(2)) for n in range(500)]
    items += [settlement(request, f"s{n}", value=Decimal(3)) for n, request in enumerate(requests)]
    assert send(*items).accepted == 1000
    assert send(*items).duplicates == 1000
    assert codes(send(*[item | {"id": f"x{item['id']}"} for item in items[500:]])) == [
        (n, "SETTLED") for n in range(500)
    ]
    assert sum(quantities().values()) == 500 * 2 + 500 * 3


def test_a_drain_that_is_repeated_keeps_a_hold_once(journal: Journal, key: Key) -> None:
    request = hold(journal, key)
    drain_once(NOW)
    drain_once(NOW)
    held = Hold.objects.get()
    assert (str(held), held.cost, held.resource, held.at) == (request, 10, "chat", NOW)
