"""The drain: every record counted, none twice, whatever dies and whoever else drains."""

import datetime as dt
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from keys.verdicts import Code
from tests.builders import environment
from tests.usage.journals import (
    NOW,
    Clock,
    call,
    kept,
    kill,
    path_of,
    responses,
    totals,
    undrained,
    write_behind,
)
from usage import records, watermark
from usage.drain import Drain, complete_through, drain_once
from usage.journal import Journal
from usage.models import ResponseRollup, Rollup, SecretUse, Segment, Spool

OCTOBER = dt.date(2026, 10, 1)

pytestmark = pytest.mark.django_db


def test_calls_become_rollups_by_hour_key_and_resource(journal: Journal, clock: Clock) -> None:
    call(journal, cost=3)
    call(journal, cost=4)
    call(journal, key=3, resource="GET /a")
    clock.now += 3600 * 1_000_000_000
    call(journal)
    report = drain_once(NOW)
    assert report.calls == 4
    assert report.problems == []
    rows = [
        (r.organization_id, r.hour.hour, r.key_id, r.meter, r.resource, r.outcome, r.calls, r.quantity)
        for r in Rollup.objects.order_by("hour", "key_id")
    ]
    assert rows == [
        (1, 0, 2, "requests", "", "VALID", 2, 7),
        (1, 0, 3, "requests", "GET /a", "VALID", 1, 1),
        (1, 1, 2, "requests", "", "VALID", 1, 1),
    ]
    assert {row.booked_period for row in Rollup.objects.all()} == {OCTOBER}


def test_a_call_is_booked_in_its_own_utc_month(journal: Journal, clock: Clock) -> None:
    clock.now -= 1000
    call(journal)
    clock.now += 1000
    call(journal)
    drain_once(NOW)
    assert list(Rollup.objects.order_by("hour").values_list("booked_period", flat=True)) == [
        dt.date(2026, 9, 1),
        OCTOBER,
    ]


def test_refusals_count_apart_and_bill_nothing(journal: Journal) -> None:
    call(journal, cost=5)
    call(journal, cost=5, code=Code.INSUFFICIENT_SCOPE)
    drain_once(NOW)
    assert totals() == {(2, "VALID"): (1, 5), (2, "INSUFFICIENT_SCOPE"): (1, 0)}


def test_calls_without_a_key_are_in_the_segments_sums_only(journal: Journal) -> None:
    call(journal, organization=0, key=0, code=Code.UNKNOWN)
    call(journal, cost=2)
    drain_once(NOW)
    assert totals() == {(2, "VALID"): (1, 2)}
    assert Segment.objects.get().sums == {"UNKNOWN/requests": [1, 0], "VALID/requests": [1, 2]}


def test_drained_twice_is_drained_once(journal: Journal, clock: Clock) -> None:
    call(journal)
    drain = Drain()
    for _ in range(2):
        drain.once(NOW)
        drain_once(NOW)
    assert totals() == {(2, "VALID"): (1, 1)}
    clock.now += 1_000_000
    call(journal, agent="other")
    assert drain.once(NOW).calls == 1
    assert drain_once(NOW).calls == 0
    assert totals() == {(2, "VALID"): (2, 2)}


def test_small_batches_add_up_to_the_same(journal: Journal) -> None:
    for number in range(25):
        call(journal, key=2 + number % 3, agent=f"agent{number % 4}")
        journal.append_response(1, 2 + number % 3, "", 2 + number % 2 * 3)
    journal.close()
    assert Drain(batch=4).once(NOW).calls == 25
    assert sum(calls for calls, _ in totals().values()) == 25
    assert responses() == {(2, 2): 5, (2, 5): 4, (3, 2): 4, (3, 5): 4, (4, 2): 4, (4, 5): 4}


def test_responses_become_rollups_by_hour_key_resource_and_class(journal: Journal, clock: Clock) -> None:
    for status_class in (2, 2, 5):
        journal.append_response(1, 2, "orders", status_class)
    journal.append_response(1, 3, "", 4)
    clock.now += 3600 * 1_000_000_000
    journal.append_response(1, 2, "orders", 2)
    drain_once(NOW)
    journal.append_response(1, 2, "orders", 2)
    for _ in range(2):
        drain_once(NOW)
    rows = [
        (r.organization_id, r.hour.hour, r.key_id, r.resource, r.status_class, r.responses)
        for r in ResponseRollup.objects.order_by("hour", "key_id", "status_class")
    ]
    assert rows == [
        (1, 0, 2, "orders", 2, 2),
        (1, 0, 2, "orders", 5, 1),
        (1, 0, 3, "", 4, 1),
        (1, 1, 2, "orders", 2, 2),
    ]
    assert totals() == {}  # a response is no call, and costs nothing
    assert Segment.objects.get().sums == {}


def test_every_truncation_counts_the_whole_responses_once(journal_dir: Path, clock: Clock) -> None:
    """A kill at any byte, before and after a pass: what is whole counts, once."""
    journal = Journal(journal_dir, clock=clock, tick=False)
    ends = [0]
    for _ in range(3):
        journal.append_response(1, 2, "", 2)
        assert journal._segment is not None
        ends.append(journal._segment.size)
    assert journal._segment is not None
    path = journal._segment.path
    whole = path.read_bytes()[: ends[-1]]
    kill(journal)
    for cut in range(ends[1] - 40, len(whole) + 1):
        zeros = bytes(
            cut % 2 * 4096
        )  # behind a map that was not sealed; none behind a write that was cut off
        left = whole[:cut] + zeros
        with transaction.atomic():
            path.write_bytes(left)
            drain_once(NOW)
            path.write_bytes(left)  # as if the file could not be moved
            drain_once(NOW)
            # Where the lost bytes were zeros themselves, nothing is lost.
            counted = sum(cut >= end or bool(zeros and not any(whole[cut:end])) for end in ends[1:])
            assert responses() == ({(2, 2): counted} if counted else {})
            transaction.set_rollback(True)
        for name in undrained(journal_dir):
            (journal_dir / name).unlink()


def test_last_use_is_the_latest_success(journal: Journal, clock: Clock) -> None:
    call(journal, agent="old")
    clock.now += 1_000_000_000
    call(journal, agent="new" * 200)
    clock.now += 1_000_000_000
    call(journal, agent="refused", code=Code.EXPIRED)
    drain_once(NOW)
    use = SecretUse.objects.get()
    assert (use.secret_id, use.calls, use.address) == (20, 2, "192.0.2.1")
    assert use.user_agent == ("new" * 200)[:256]
    assert use.last_used_at == dt.datetime(2026, 10, 1, 0, 0, 1, tzinfo=dt.UTC)


def test_an_older_journal_does_not_move_last_use_back(
    journal: Journal, journal_dir: Path, clock: Clock
) -> None:
    clock.now += 5_000_000_000
    call(journal, agent="late")
    drain_once(NOW)
    clock.now -= 3_000_000_000
    other = Journal(journal_dir, clock=clock, tick=False)
    call(other, agent="early")
    other.close()
    drain_once(NOW)
    use = SecretUse.objects.get()
    assert (use.user_agent, use.calls, use.last_used_at.second) == ("late", 2, 5)


def test_a_live_journal_stays_and_a_dead_one_is_finished_and_kept(
    journal: Journal, journal_dir: Path
) -> None:
    call(journal)
    name = path_of(journal).name
    drain_once(NOW)
    assert undrained(journal_dir) == [name]
    assert Spool.objects.get().finished_at is None
    kill(journal)
    report = drain_once(NOW)
    assert report.segments_finished == 1
    assert undrained(journal_dir) == []
    assert kept(journal_dir) == [name]
    assert Spool.objects.get().finished_at == Segment.objects.get().finished_at == NOW
    assert totals() == {(2, "VALID"): (1, 1)}


def test_a_torn_tail_is_waited_for_while_its_owner_lives_and_kept_after(
    journal: Journal, journal_dir: Path
) -> None:
    call(journal)
    assert journal._segment is not None
    path = journal._segment.path
    write_behind(journal, b"\x47\0\0\0torn")
    drain_once(NOW)
    assert Segment.objects.get().finished_at is None
    kill(journal)
    report = drain_once(NOW)
    assert Segment.objects.get().ignored_bytes == 8
    assert undrained(journal_dir) == []
    assert kept(journal_dir) == [path.name + ".torn"]
    assert "8 bytes" in report.problems[0]
    assert drain_once(NOW).problems == []
    assert totals() == {(2, "VALID"): (1, 1)}


def test_segments_of_one_spool_are_read_in_order_and_leave_one_open(journal_dir: Path, clock: Clock) -> None:
    journal = Journal(journal_dir, clock=clock, tick=False, segment_bytes=500)
    for _ in range(20):
        call(journal)
    count = len(list(journal_dir.iterdir()))
    report = drain_once(NOW)
    assert report.problems == []
    assert report.segments_finished == count - 1 > 2
    assert Spool.objects.get().finished_at is None
    journal.close()
    drain_once(NOW)
    assert Spool.objects.get().finished_at == NOW
    assert totals() == {(2, "VALID"): (20, 20)}


def test_a_spool_is_not_finished_while_a_later_segment_waits(journal_dir: Path, clock: Clock) -> None:
    journal = Journal(journal_dir, clock=clock, tick=False, segment_bytes=500)
    for _ in range(20):
        call(journal)
    asked = iter([False, True, True, True])
    report = Drain().once(NOW, stop=lambda: next(asked))
    assert report.segments_finished == 1
    assert Spool.objects.get().finished_at is None
    journal.close()


def test_a_spool_that_comes_back_is_opened_again(journal: Journal) -> None:
    call(journal)
    journal.close()  # as after a full disk: no segment for a while, the process lives
    drain_once(NOW)
    assert Spool.objects.get().finished_at == NOW
    call(journal)
    assert drain_once(NOW).problems == []
    assert Spool.objects.get().finished_at is None
    assert totals() == {(2, "VALID"): (2, 2)}


def test_a_finished_file_that_could_not_be_moved_is_not_counted_again(
    journal: Journal, journal_dir: Path
) -> None:
    call(journal)
    assert journal._segment is not None
    path = journal._segment.path
    journal.close()
    content = path.read_bytes()
    drain_once(NOW)
    path.write_bytes(content)  # as if the kill had come between the commit and the move
    drain_once(NOW)
    assert not path.exists()
    assert kept(journal_dir) == [path.name]
    assert totals() == {(2, "VALID"): (1, 1)}


def test_bad_files_are_left_alone_and_the_others_pass(journal: Journal, journal_dir: Path) -> None:
    call(journal)
    garbage = journal_dir / "11111111111.000000.journal"
    garbage.write_bytes(os.urandom(500))
    assert journal._segment is not None
    renamed = journal_dir / "22222222222.000000.journal"
    renamed.write_bytes(journal._segment.path.read_bytes())
    (journal_dir / "notes.txt").write_text("not a journal")
    drain = Drain()
    report = drain.once(NOW)
    assert len(report.problems) == 2
    assert all("left alone" in problem for problem in report.problems)
    assert {garbage, renamed} <= set(journal_dir.iterdir())
    assert totals() == {(2, "VALID"): (1, 1)}


def test_records_of_a_later_version_wait_and_what_is_before_them_counts(
    journal: Journal, journal_dir: Path
) -> None:
    call(journal)
    assert journal._segment is not None
    path = journal._segment.path
    write_behind(journal, records.frame(records.HEAD.pack(2, records.CALL, 99, 0) + bytes(20)))
    kill(journal)
    for _ in range(2):
        assert "version 2" in drain_once(NOW).problems[0]
    assert path.exists()
    assert Segment.objects.get().finished_at is None
    assert totals() == {(2, "VALID"): (1, 1)}


def test_no_directory_is_nothing_to_do(tmp_path: Path) -> None:
    assert Drain(tmp_path / "none").once(NOW).records == 0


def test_texts_that_postgresql_refuses_are_drained(journal: Journal) -> None:
    call(journal, resource="a\0b", agent="\udcff\ud800")
    drain_once(NOW)
    assert Rollup.objects.get().resource == "a\ufffdb"
    assert SecretUse.objects.get().user_agent == "??"


def test_rows_are_written_in_the_order_of_their_keys(journal: Journal) -> None:
    for key in random.Random(1).sample(range(1, 400), 300):
        call(journal, key=key, resource=f"r{key % 5}")
    with CaptureQueriesContext(
        connection,
    ) as queries:
        drain_once(NOW)
    assert sum("INSERT INTO usage_rollup" in query["sql"] for query in queries) == 1
    statement = next(q["sql"] for q in queries if "INSERT INTO usage_secretuse" in q["sql"])
    array = re.search(r"'\{([\d,]+)\}'::", statement)  # PostgreSQL gets one a column, SQLite each row
    order = [int(part) for part in array[1].split(",")] if array else []
    order = order or [int(part) for part in re.findall(r"\((\d+), 1, '", statement)]
    assert len(order) == 300
    assert order == sorted(order)


def test_a_database_error_leaves_everything_for_the_next_pass(journal: Journal) -> None:
    call(journal)
    drain = Drain()
    with transaction.atomic(), connection.execute_wrapper(_refuse_rollups), pytest.raises(DatabaseError):
        drain.once(NOW)
    assert drain.once(NOW).calls == 1
    assert totals() == {(2, "VALID"): (1, 1)}


def _refuse_rollups(execute, sql, params, many, context):  # type: ignore[no-untyped-def]  # Django's own signature
    if "usage_rollup" in sql:
        raise DatabaseError("the database is away")
    return execute(sql, params, many, context)


def test_ticks_move_the_watermark_seldom_and_calls_at_once(journal: Journal, clock: Clock) -> None:
    call(journal)
    drain = Drain()
    drain.once(NOW)
    first = Spool.objects.get().watermark
    assert first is not None
    clock.now += 2_000_000_000
    journal.tick()
    drain.once(NOW)
    assert Spool.objects.get().watermark == first
    clock.now += 4_000_000_000
    journal.tick()
    drain.once(NOW)
    assert Spool.objects.get().watermark == first + dt.timedelta(seconds=6)
    assert complete_through() == first + dt.timedelta(seconds=6)


# --- more than one process -------------------------------------------------------------------------


def test_rows_are_made_in_one_order_so_that_two_drains_never_wait_in_a_circle(
    journal_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    journals = [Journal(journal_dir, clock=clock, tick=False) for _ in range(8)]
    for each in journals:
        call(each)
    made, register = [], watermark.register

    def noted(spool: str, host: str, pid: int, started_at: dt.datetime) -> Spool:
        made.append(spool)
        return register(spool, host, pid, started_at)

    monkeypatch.setattr(watermark, "register", noted)
    drain_once(NOW)
    for each in journals:
        each.close()

    assert made[:8] == sorted(each.spool for each in journals)


@pytest.mark.django_db(transaction=True)
def test_two_drains_at_once_count_once(journal_dir: Path) -> None:
    journals = [Journal(journal_dir, tick=False, segment_bytes=20_000) for _ in range(3)]
    rng = random.Random(5)
    for _ in range(3000):
        call(rng.choice(journals), key=rng.randrange(1, 40), agent=f"a{rng.randrange(9)}")
        rng.choice(journals).append_response(1, rng.randrange(1, 40), "", 2)
    for journal in journals:
        journal.close()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            Drain(batch=100).once(NOW)
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    Drain().once(NOW)
    assert failures == []
    assert sum(calls for calls, _ in totals().values()) == 3000
    assert sum(use.calls for use in SecretUse.objects.all()) == 3000
    assert sum(responses().values()) == 3000
    assert undrained(journal_dir) == []


DRAIN = """
import django; django.setup()
from django.utils import timezone
from usage.drain import Drain
print("ready", flush=True)
drain = Drain(batch=50)
while True:
    drain.once(timezone.now())
"""


@pytest.mark.django_db(transaction=True)
def test_a_killed_drain_repeats_and_loses_nothing(journal_dir: Path) -> None:
    journal = Journal(journal_dir, tick=False, segment_bytes=30_000)
    rng = random.Random(7)
    made = 0
    for _ in range(4):
        for _ in range(3000):
            call(journal, key=rng.randrange(1, 30), cost=2, agent=f"a{rng.randrange(99)}")
            journal.append_response(1, rng.randrange(1, 30), "", rng.randrange(2, 6))
            made += 1
        process = subprocess.Popen(
            [sys.executable, "-c", DRAIN], env=environment(), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        threading.Event().wait(rng.uniform(0.05, 0.8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    halfway = sum(calls for calls, _ in totals().values())
    assert halfway > 0
    journal.close()
    report = Drain().once(NOW)
    assert report.problems == []
    assert sum(calls for calls, _ in totals().values()) == made
    assert sum(quantity for _, quantity in totals().values()) == 2 * made
    assert sum(segment.sums["VALID/requests"][0] for segment in Segment.objects.all()) == made
    assert sum(responses().values()) == made
