"""Refusals: the first of a minute each for itself, a flood in sums, and every one of them counted."""

import datetime as dt
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from keys.directory import Directory
from keys.records import KeyRecord, OrganizationRecord, SecretRecord
from keys.verdicts import Code
from tests import builders
from tests.waiting import until
from usage import metering, refusal_log, refusals
from usage.drain import Drain, drain_once
from usage.journal import Event, Journal, JournalError
from usage.models import Refusal, Rollup, Segment
from usage.records import CALL, Record, read_records
from usage.refusals import FIRST, Refusals

pytestmark = pytest.mark.django_db

START = 1_790_812_800  # 2026-10-01 00:00 UTC
NOW = dt.datetime(2026, 10, 1, 12, tzinfo=dt.UTC)
LABELS = ("requests", "orders", "192.0.2.1", "curl")


class Clock:
    """Seconds since the epoch, for the journal as ns."""

    def __init__(self) -> None:
        self.seconds = float(START)

    def __call__(self) -> int:
        return int(self.seconds * 1_000_000_000)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusals]:
    """Whose background thread never comes to write: the tests say when."""
    monkeypatch.setattr(refusals, "FLUSH_SECONDS", 3600)
    recorder = Refusals(journal)
    yield recorder
    recorder.close()


def secret(number: int = 2) -> SecretRecord:
    acme = OrganizationRecord(1, "acme", "Acme", False, ())
    infinity = float("inf")
    key = KeyRecord(
        number, f"key_{number}", "Key", acme, "live", frozenset(), "", (), infinity, False, True, (), {}
    )
    return SecretRecord(number * 10, key, infinity, "lk", False)


def refuse(
    recorder: Refusals,
    times: int = 1,
    *,
    of: SecretRecord | None = None,
    code: Code = Code.REVOKED,
    labels: tuple[str, str, str, str] = LABELS,
    now: float = START,
) -> list[str]:
    return [recorder.record(code.number, of, 1, labels, now) for _ in range(times)]


def written(journal: Journal) -> list[Record]:
    """The calls in the journal, and it goes on."""
    assert journal._segment is not None
    return [record for record in read_records(journal._segment.path.read_bytes()) if record.kind == CALL]


def counted() -> dict[tuple[int, str], int]:
    found: Counter[tuple[int, str]] = Counter()
    for row in Rollup.objects.all():
        found[row.key_id, row.outcome] += row.calls
    return dict(found)


# --- in the journal ------------------------------------------------------------------------------


def test_sums_are_kept_apart_by_secret_meter_and_resource(recorder: Refusals, journal: Journal) -> None:
    old = secret()
    new = SecretRecord(21, old.key, old.stops_at, old.prefix, old.imported)
    tokens, users = ("tokens", *LABELS[1:]), ("requests", "users", *LABELS[2:])
    refuse(recorder, FIRST, of=old)
    for of, labels, times in [(old, LABELS, 2), (new, LABELS, 3), (new, tokens, 4), (new, users, 5)] * 2:
        refuse(recorder, times, of=of, labels=labels)
    recorder.flush()
    sums = {(each.secret, each.meter, each.resource): each.calls for each in written(journal)[FIRST:]}
    assert sums == {
        (20, "requests", "orders"): 4,
        (21, "requests", "orders"): 6,
        (21, "tokens", "orders"): 8,
        (21, "requests", "users"): 10,
    }


def test_the_first_have_records_of_their_own_and_the_rest_is_one_sum(
    recorder: Refusals, journal: Journal
) -> None:
    ids = refuse(recorder, FIRST + 1000, of=secret())
    assert len(written(journal)) == FIRST
    recorder.flush()
    *own, rest = written(journal)
    assert [(each.calls, each.address, each.continues) for each in own] == [(1, "192.0.2.1", 0)] * FIRST
    assert (rest.calls, rest.address, rest.user_agent) == (1000, "", "")
    assert (rest.organization, rest.key, rest.secret, rest.code) == (1, 2, 20, Code.REVOKED.number)
    assert (rest.meter, rest.resource, rest.continues) == ("requests", "orders", own[-1].sequence)
    assert ids[:FIRST] == [journal.request_id(each.sequence) for each in own]
    assert ids[FIRST:] == [f"{ids[FIRST - 1]}.{n}" for n in range(1, 1001)]


def test_each_key_code_and_minute_has_its_own_first(recorder: Refusals, journal: Journal) -> None:
    for of, code, now in [
        (secret(2), Code.REVOKED, START),
        (secret(3), Code.REVOKED, START),
        (secret(2), Code.EXPIRED, START),
        (None, Code.UNKNOWN, START),
        (None, Code.MALFORMED, START + 59.9),
        (None, Code.MALFORMED, START + 60),
    ]:
        refuse(recorder, FIRST + 5, of=of, code=code, now=now)
    assert len(written(journal)) == 6 * FIRST
    recorder.flush()
    assert [each.calls for each in written(journal)[6 * FIRST :]] == [5] * 6


def test_what_a_client_varies_takes_no_memory(recorder: Refusals) -> None:
    for number in range(2000):
        refuse(recorder, labels=("requests", "orders", f"192.0.2.{number}", f"agent {number}"))
    assert recorder._places == 1
    assert len(recorder._runs) == 1


def test_a_flood_of_many_keys_is_written_before_it_fills_the_memory(
    recorder: Refusals, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_SUMS", 3)
    monkeypatch.setattr(refusals, "MAX_RUNS", 10)
    for number in range(50):
        refuse(recorder, FIRST + 2, of=secret(number))
        assert recorder._places <= 3
        assert len(recorder._runs) <= 10
    recorder.flush()
    assert sum(each.calls for each in written(journal)) == 50 * (FIRST + 2)


def test_what_is_summed_is_written_within_a_second(journal: Journal) -> None:
    recorder = Refusals(journal)
    refuse(recorder, FIRST + 7)
    until(lambda: len(written(journal)) > FIRST, 10)
    assert written(journal)[-1].calls == 7
    recorder.close()


def test_what_was_summed_is_written_at_the_end_and_later_ones_each_for_itself(
    recorder: Refusals, journal: Journal
) -> None:
    refuse(recorder, FIRST + 7)
    recorder.close()
    refuse(recorder, 3)
    assert [each.calls for each in written(journal)[FIRST:]] == [7, 1, 1, 1]


def test_a_journal_that_fails_is_told_and_loses_no_sum(
    recorder: Refusals, journal: Journal, journal_dir: Path
) -> None:
    refuse(recorder, FIRST + 3)
    journal.close()
    journal.directory = journal_dir / "file" / "below"
    (journal_dir / "file").write_text("")
    with pytest.raises(JournalError):
        recorder.flush()
    with pytest.raises(JournalError):  # it would be summed, but nothing says that it will be written
        refuse(recorder)
    journal.directory = journal_dir
    refuse(recorder)
    recorder.flush()
    assert sum(each.calls for each in written(journal)) == 4
    journal.close()
    (journal_dir / "file").unlink()
    drain_once(NOW)
    assert sum(calls for s in Segment.objects.all() for calls, _ in s.sums.values()) == FIRST + 4


def test_a_refusal_that_cannot_be_recorded_keeps_its_place(
    recorder: Refusals, journal: Journal, journal_dir: Path
) -> None:
    journal.directory = journal_dir / "file" / "below"
    (journal_dir / "file").write_text("")
    for _ in range(2 * FIRST):
        with pytest.raises(JournalError):
            refuse(recorder)
    (journal_dir / "file").unlink()
    refuse(recorder, FIRST)
    assert len(written(journal)) == FIRST


def test_threads_share_one_count_and_no_id(recorder: Refusals, journal: Journal) -> None:
    ids: list[str] = []
    go = threading.Barrier(8)

    def flood() -> None:
        go.wait()
        found = refuse(recorder, 500, of=secret())
        recorder.flush()
        ids.extend(found)

    threads = [threading.Thread(target=flood) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 4000
    assert sum(each.calls for each in written(journal)) == 4000
    assert len(written(journal)) <= FIRST + 8 + 8


def test_a_record_that_was_slow_to_be_written_does_not_part_a_sum_from_its_ids(
    recorder: Refusals, journal: Journal
) -> None:
    first = refuse(recorder, FIRST + 1)[-1]
    run = recorder._runs[Code.REVOKED.number]
    recorder._write(run, 0, 1, LABELS)  # as of a thread that was held up
    (second,) = refuse(recorder)
    assert (first.partition(".")[0], second.partition(".")[2]) == (second.partition(".")[0], "2")
    recorder.flush()
    assert journal.request_id(written(journal)[-1].continues) == first.partition(".")[0]


def test_a_call_that_cannot_be_summed_is_unavailable(journal_dir: Path) -> None:
    directory = Directory(process_id="test", lock_dir=journal_dir)
    directory.refresh()
    metering.start(directory)
    for _ in range(FIRST + 1):
        assert metering.authorize("lk_live_no", now=START).code is Code.MALFORMED
    process = metering._current()
    process.journal.close()
    process.journal.directory = journal_dir / "file" / "below"
    (journal_dir / "file").write_text("")
    with pytest.raises(JournalError):
        process.refusals.flush()
    decision = metering.authorize("lk_live_no", now=START)
    assert (decision.code, decision.request) == (Code.UNAVAILABLE, "")
    process.journal.directory = journal_dir
    assert metering.authorize("lk_live_no", now=START).code is Code.MALFORMED


calls = st.lists(
    st.tuples(
        st.sampled_from(["refuse", "refuse many", "allow", "flush", "drain", "later", "rotate"]),
        st.integers(0, 3),  # key; 0: nobody's
        st.sampled_from([Code.REVOKED, Code.EXPIRED, Code.RATE_LIMITED]),
        st.sampled_from(["", "orders"]),
    ),
    max_size=40,
)


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(calls)
def test_whatever_is_summed_the_counters_say_what_was_answered(
    journal_dir: Path, steps: list[tuple[str, int, Code, str]]
) -> None:
    clock, answered, anonymous = Clock(), Counter[tuple[int, str]](), Counter[str]()
    with transaction.atomic():
        journal = Journal(journal_dir, clock=clock, tick=False, segment_bytes=2000)
        recorder, drain, ids = Refusals(journal), Drain(batch=17), set[str]()
        for act, number, code, resource in steps:
            labels = ("requests", resource, "192.0.2.1", "")
            if act == "allow":
                journal.append(Event(1, number + 1, 1, Code.VALID.number, 1, labels))
                answered[number + 1, "VALID"] += 1
            elif act == "flush":
                recorder.flush()
            elif act == "drain":
                drain.once(NOW)
            elif act == "later":
                clock.seconds += 21
            elif act == "rotate":
                journal.close()
            else:
                times = 1 if act == "refuse" else 33
                whose = secret(number) if number else None
                found = refuse(recorder, times, of=whose, code=code, labels=labels, now=clock.seconds)
                assert not ids & set(found)
                ids |= set(found)
                if number:
                    answered[number, code.name] += times
                else:
                    anonymous[code.name] += times
        recorder.close()
        journal.close()
        drain.once(NOW)
        assert counted() == answered
        sums: Counter[str] = Counter()
        for segment in Segment.objects.all():
            for name, (count, quantity) in segment.sums.items():
                sums[name] += count
                assert name.startswith("VALID") or quantity == 0
        everything = Counter(dict(anonymous))
        for (_, outcome), count in answered.items():
            everything[outcome] += count
        assert sums == Counter({f"{name}/requests": count for name, count in everything.items()})
        rows = Refusal.objects.all()
        listed = Counter[tuple[int | None, str]]()
        for row in rows:
            listed[row.key_id, row.outcome] += 1 + row.more
            assert row.request_id in ids
        refused = {pair: count for pair, count in answered.items() if pair[1] != "VALID"}
        assert listed == refused | {(None, name): count for name, count in anonymous.items()}
        for found_id in ids:
            whole, _, _ = found_id.partition(".")
            assert any(row.request_id == whole for row in rows)
        transaction.set_rollback(True)
    shutil.rmtree(journal_dir)
    journal_dir.mkdir()


# --- in the log ----------------------------------------------------------------------------------


def test_a_refusal_is_a_row_that_says_what_is_known(recorder: Refusals) -> None:
    (request,) = refuse(recorder, of=secret(), code=Code.EXPIRED)
    drain_once(NOW)
    row = Refusal.objects.get()
    assert row.request_id == request
    assert (row.organization_id, row.key_id, row.secret_id, row.outcome) == (1, 2, 20, "EXPIRED")
    assert (row.resource, row.address, row.user_agent, row.more) == ("orders", "192.0.2.1", "curl", 0)
    assert row.at == dt.datetime(2026, 10, 1, tzinfo=dt.UTC)


def test_calls_without_a_key_are_rows_of_no_organization(recorder: Refusals) -> None:
    refuse(recorder, FIRST + 30, code=Code.UNKNOWN)
    recorder.flush()
    drain_once(NOW)
    rows = Refusal.objects.order_by("sequence")
    assert {(row.organization_id, row.key_id, row.secret_id) for row in rows} == {(None, None, None)}
    assert [row.more for row in rows] == [0] * (FIRST - 1) + [30]


def test_an_allowed_call_is_no_row(journal: Journal) -> None:
    journal.append(Event(1, 2, 20, Code.VALID.number, 1, LABELS))
    drain_once(NOW)
    assert not Refusal.objects.exists()


def test_a_sum_that_comes_after_its_row_is_added_there(recorder: Refusals, clock: Clock) -> None:
    refuse(recorder, FIRST + 1, of=secret())
    recorder.flush()
    drain_once(NOW)
    refuse(recorder, 4, of=secret())
    clock.seconds += 60  # it is written in the next minute, and still belongs there
    refuse(recorder, 1, of=secret(), now=clock.seconds)
    recorder.flush()
    drain_once(NOW)
    assert [row.more for row in Refusal.objects.order_by("sequence")] == [0] * (FIRST - 1) + [5, 0]


def test_a_journal_without_sums_makes_no_more_rows_than_there_may_be(journal: Journal) -> None:
    """As an earlier version wrote them."""
    for _ in range(100):
        journal.append(Event(1, 2, 20, Code.REVOKED.number, 1, LABELS))
    drain_once(NOW)
    rows = list(Refusal.objects.order_by("sequence"))
    assert len(rows) == refusal_log.ROWS
    assert sum(1 + row.more for row in rows) == 100
    assert rows[-1].more == 100 - refusal_log.ROWS


def test_drained_again_a_refusal_is_one_row(recorder: Refusals, journal: Journal, journal_dir: Path) -> None:
    refuse(recorder, FIRST + 5)
    recorder.flush()
    assert journal._segment is not None
    path = journal._segment.path
    journal.close()
    content = path.read_bytes()
    for _ in range(3):
        path.write_bytes(content)  # as if it could not be deleted
        drain_once(NOW)
    assert Refusal.objects.count() == FIRST
    assert sum(row.more for row in Refusal.objects.all()) == 5


def test_texts_that_no_database_takes_are_cleaned(recorder: Refusals) -> None:
    refuse(recorder, of=secret(), labels=("requests", "a\0b", "\ud800", "x" * 5000))
    drain_once(NOW)
    row = Refusal.objects.get()
    assert (row.resource, row.address, len(row.user_agent)) == ("a\ufffdb", "?", 256)


def rows(count: int, at: dt.datetime, **fields: object) -> None:
    values: dict[str, object] = {"outcome": "REVOKED", **fields}
    first = Refusal.objects.count() + 1
    Refusal.objects.bulk_create(
        Refusal(spool="a" * 11, sequence=first + n, at=at, **values) for n in range(count)
    )


def test_old_rows_go_in_small_transactions_and_the_young_stay(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.USAGE_REFUSAL_DAYS = 30
    monkeypatch.setattr(refusal_log, "BATCH", 10)
    limit = NOW - dt.timedelta(days=30)
    rows(25, limit - dt.timedelta(seconds=1))
    rows(3, limit)
    with CaptureQueriesContext(connection) as captured:
        assert refusal_log.prune(NOW) == 25
    assert [each["sql"][:6] for each in captured].count("DELETE") == 3
    assert Refusal.objects.count() == 3
    assert refusal_log.prune(NOW) == 0


def test_a_worker_that_is_to_stop_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    rows(3, NOW - dt.timedelta(days=31))
    assert refusal_log.prune(NOW, stop=lambda: True) == 0
    assert Refusal.objects.count() == 3


@pytest.mark.django_db(transaction=True)
def test_the_worker_deletes_what_is_too_old(journal_dir: Path) -> None:
    now = timezone.now()
    rows(1, now)
    rows(2, now - dt.timedelta(days=31))
    worker = subprocess.Popen(
        [sys.executable, str(django_settings.BASE_DIR / "manage.py"), "worker"], env=builders.environment()
    )
    try:
        until(lambda: Refusal.objects.count() == 1, 30)
    finally:
        worker.terminate()
        assert worker.wait(10) == 0
    assert Refusal.objects.get().at == now
