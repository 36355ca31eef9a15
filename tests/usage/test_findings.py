"""What is amiss in a journal: set aside once with its bytes, told to staff, and no loss to what is not."""

import datetime as dt
import os
from pathlib import Path

import pytest
from django.db import DataError, connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.models import AuditEvent
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
from usage import findings, records
from usage.drain import Drain, drain_once
from usage.journal import Journal
from usage.models import Finding, Segment, Spool

pytestmark = pytest.mark.django_db

AT = 1_790_812_800_000_000  # µs
LAST = 253_402_300_799_999_999  # the last µs that a datetime has


def frames(*payloads: bytes) -> bytes:
    return b"".join(records.frame(payload) for payload in payloads)


def a_call(sequence: int, *, text: int = 0, at: int = AT, **fields: int) -> bytes:
    """A call's payload, as nobody writes it."""
    body = {"organization": 1, "key": 2, "secret": 20, "cost": 1, "calls": 1, "code": 1} | fields
    kind = body.pop("kind", records.CALL)
    tail = records.CALL_TAIL.pack(*body.values(), text, 0, 0, 0)
    return records.HEAD.pack(1, kind, sequence, at) + tail


def a_response(sequence: int, organization: int = 1, text: int = 0) -> bytes:
    return records.RESPONSE_BODY.pack(1, records.RESPONSE, sequence, AT, organization, 2, 1, 2, text)


def a_head(kind: int, sequence: int, at: int = AT) -> bytes:
    return records.HEAD.pack(1, kind, sequence, at)


POISON = {
    "an unknown kind": lambda n: a_head(9, n) + bytes(20),
    "no kind": lambda n: a_head(0, n),
    "a call that is too short": lambda n: a_call(n)[:-1],
    "a call that is too long": lambda n: a_call(n) + b"\0",
    "a held call of a wrong size": lambda n: a_call(n, kind=records.HELD)[:-4],
    "a response of a wrong size": lambda n: a_response(n) + b"\0",
    "a tick of a wrong size": lambda n: a_head(records.TICK, n) + b"\0",
    "a seal of a wrong size": lambda n: a_head(records.SEAL, n) + b"\0",
    "a text without its number": lambda n: a_head(records.TEXT, n) + b"\0",
    "a second header": lambda n: a_head(records.HEADER, n) + bytes(40),
    "a text never defined": lambda n: a_call(n, text=77),
    "a response's text never defined": lambda n: a_response(n, text=77),
    "an organization below zero": lambda n: a_call(n, organization=-1),
    "a key below zero": lambda n: a_call(n, key=-(2**63)),
    "a secret below zero": lambda n: a_call(n, secret=-5),
    "a cost below zero": lambda n: a_call(n, cost=-1),
    "a response's organization below zero": lambda n: a_response(n, organization=-1),
    "a time after the year 9999": lambda n: a_call(n, at=LAST + 1),
    "a time before 1970": lambda n: a_call(n, at=-1),
    "a tick after the year 9999": lambda n: a_head(records.TICK, n, at=2**63 - 1),
}  # fmt: skip


def last_sequence(journal: Journal) -> int:
    return journal._sequence


@pytest.mark.parametrize("name", POISON)
def test_a_poison_record_is_set_aside_and_the_others_pass(journal: Journal, name: str) -> None:
    call(journal)
    sequence = last_sequence(journal) + 1
    poison = POISON[name](sequence)
    write_behind(journal, frames(poison, a_call(sequence + 1, cost=5), a_head(records.TICK, sequence + 2)))
    assert journal._segment is not None
    offset = journal._segment.size
    path = path_of(journal)
    kill(journal)
    report = drain_once(NOW)
    finding = Finding.objects.get()
    assert (finding.kind, finding.spool, finding.segment) == (Finding.Kind.POISON, journal.spool, 0)
    assert (finding.offset, finding.first_sequence, finding.last_sequence) == (offset, sequence, sequence)
    assert bytes.fromhex(finding.payload) == poison
    assert (finding.found_at, finding.seen_at) == (NOW, None)
    assert report.problems == [f"{path.name}: {finding.text}"]
    assert totals() == {(2, "VALID"): (2, 6)}
    assert drain_once(NOW).problems == []
    assert Finding.objects.count() == 1


def test_it_is_set_aside_once_whatever_dies_and_repeats(journal: Journal, journal_dir: Path) -> None:
    """The finding moves with the offset: a pass that is rolled back has found nothing."""
    call(journal)
    write_behind(journal, frames(a_call(last_sequence(journal) + 1, cost=-1)))
    path = path_of(journal)
    kill(journal)
    content = path.read_bytes()
    drain = Drain()
    with transaction.atomic():
        drain.once(NOW)
        transaction.set_rollback(True)
    assert not Finding.objects.exists()
    path.write_bytes(content)
    for again in (drain, Drain()):
        again.once(NOW)
        path.write_bytes(content)  # as if the kill had come between the commit and the move
    assert Finding.objects.count() == 1
    assert totals() == {(2, "VALID"): (1, 1)}


def test_a_poison_sequence_is_believed_only_where_it_is_the_next(journal: Journal) -> None:
    call(journal)
    wild, following = a_call(10**15, cost=-1), a_call(last_sequence(journal) + 1)
    write_behind(journal, frames(wild, following))
    kill(journal)
    drain_once(NOW)
    assert Finding.objects.get().first_sequence == 10**15
    assert totals() == {(2, "VALID"): (2, 2)}


def test_a_header_that_no_column_can_take_is_left_alone_and_the_others_pass(
    journal: Journal, journal_dir: Path
) -> None:
    call(journal)
    for number, (pid, started) in enumerate([(2**32 - 1, AT), (1, 2**63 - 1), (1, -1)]):
        spool = f"{number:011}"
        body = records.HEADER_BODY.pack(records.MAGIC, spool.encode(), pid, 0, started) + b"host"
        (journal_dir / f"{spool}.000000.journal").write_bytes(frames(a_head(records.HEADER, 1) + body))
    assert len(drain_once(NOW).problems) == 3
    assert set(Finding.objects.values_list("kind", flat=True)) == {Finding.Kind.UNREADABLE}
    assert totals() == {(2, "VALID"): (1, 1)}


# --- what the database refuses ---------------------------------------------------------------------


def _refuse(execute, sql, params, many, context):  # type: ignore[no-untyped-def]  # Django's own signature
    if params and "not wanted" in params:
        raise DataError("value of no use")
    return execute(sql, params, many, context)


@pytest.mark.parametrize("count", [1, 2, 3, 17])
@pytest.mark.parametrize("batch", [1, 4, 50_000])
def test_what_the_database_refuses_is_found_by_halves(journal: Journal, count: int, batch: int) -> None:
    for number in range(count):
        call(journal, cost=number)
        if number in (0, count // 2):
            call(journal, resource="not wanted", cost=100)
    journal.close()
    with connection.execute_wrapper(_refuse):
        report = Drain(batch=batch).once(NOW)
    found = Finding.objects.order_by("offset")
    assert [finding.kind for finding in found] == [Finding.Kind.POISON] * len({0, count // 2})
    assert all("the database refuses it: value of no use" in finding.text for finding in found)
    assert len(report.problems) == len(found)
    assert totals() == {(2, "VALID"): (count, sum(range(count)))}
    assert Spool.objects.get().finished_at == NOW


def test_a_refusal_that_is_no_records_fault_stops_the_pass_and_loses_nothing(journal: Journal) -> None:
    def refuse_all(execute, sql, params, many, context):  # type: ignore[no-untyped-def]  # as above
        if "usage_segment" in sql and sql.startswith("UPDATE"):
            raise DataError("nothing is good enough")
        return execute(sql, params, many, context)

    call(journal)
    drain = Drain()
    with connection.execute_wrapper(refuse_all), pytest.raises(DataError):
        drain.once(NOW)
    assert not Finding.objects.exists()
    assert drain.once(NOW).calls == 1


def test_postgresql_refuses_a_nul_and_a_text_that_is_too_long(journal: Journal) -> None:
    """Written by nobody; each call that names such a text is one finding, the others count."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite takes any text")
    call(journal)
    sequence = last_sequence(journal)
    texts = [
        a_head(records.TEXT, sequence + 1) + records.TEXT_ID.pack(50) + b"a\0b",
        a_head(records.TEXT, sequence + 2) + records.TEXT_ID.pack(51) + b"m" * 51,
    ]
    calls = [a_call(sequence + 3, text=50), a_call(sequence + 4), a_call(sequence + 5, text=51)]
    write_behind(journal, frames(*texts, *calls))
    kill(journal)
    drain_once(NOW)
    assert list(Finding.objects.order_by("offset").values_list("kind", "first_sequence")) == [
        (Finding.Kind.POISON, sequence + 3),
        (Finding.Kind.POISON, sequence + 5),
    ]
    assert totals() == {(2, "VALID"): (2, 2)}


# --- any records, and any poison at any place ------------------------------------------------------

ITEMS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(1, 3), st.integers(0, 9)),
        st.tuples(st.just("response"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("tick"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


def a_journal(folder: Path, clock: Clock, payloads: list[bytes]) -> None:
    """A finished one, with these records behind its header."""
    journal = Journal(folder, clock=clock, tick=False, segment_bytes=1024**2)
    journal.start()
    write_behind(journal, frames(*payloads))
    kill(journal)


def sums(folder: Path, payloads: list[bytes], batch: int) -> tuple[object, ...]:
    a_journal(folder, Clock(), payloads)
    report = Drain(folder, batch=batch).once(NOW)
    return totals(), responses(), report.calls, Segment.objects.get().sums


@settings(max_examples=30)
@given(
    items=ITEMS,
    name=st.sampled_from(sorted(POISON)),
    place=st.integers(0, 12),
    beside=st.booleans(),
    batch=st.integers(1, 20),
)
def test_any_poison_at_any_place_is_one_finding_and_changes_no_sum(
    tmp_path_factory: pytest.TempPathFactory,
    items: list[tuple[str, int, int]],
    name: str,
    place: int,
    beside: bool,
    batch: int,
) -> None:
    """The poison takes the next sequence, or stands `beside` the others with one that was used."""

    def payload(sequence: int, item: tuple[str, int, int]) -> bytes:
        kind, key, cost = item
        if kind == "call":
            return a_call(sequence, key=key, secret=key, cost=cost)
        return a_response(sequence) if kind == "response" else a_head(records.TICK, sequence)

    place = min(place, len(items))
    clean = [payload(number, item) for number, item in enumerate(items, 2)]
    shift = 0 if beside else 1
    poisoned = [
        payload(number + (shift if number - 2 >= place else 0), item) for number, item in enumerate(items, 2)
    ]
    poisoned.insert(place, POISON[name](place + 1 + shift))
    results = []
    for payloads in (clean, poisoned):
        with transaction.atomic():
            results.append(sums(tmp_path_factory.mktemp("journal"), payloads, batch))
            count = Finding.objects.count()
            transaction.set_rollback(True)
    assert results[0] == results[1]
    assert count == 1


# --- everything else that is found -----------------------------------------------------------------


def test_missing_records_are_a_finding_with_their_numbers(journal_dir: Path, clock: Clock) -> None:
    journal = Journal(journal_dir, clock=clock, tick=False, segment_bytes=300)
    for _ in range(12):
        call(journal)
    journal.close()
    gone = sorted(journal_dir.iterdir())[1]
    lost = [record.sequence for record in records.read_records(gone.read_bytes())]
    gone.unlink()
    report = drain_once(NOW)
    assert len(report.problems) == 1
    assert f"records {lost[0]} to {lost[-1]} are missing" in report.problems[0]
    drain_once(NOW)
    finding = Finding.objects.get()
    assert (finding.kind, finding.segment) == (Finding.Kind.MISSING, 2)
    assert (finding.first_sequence, finding.last_sequence) == (lost[0], lost[-1])


def test_records_that_came_again_are_one_finding_and_not_counted(journal: Journal) -> None:
    call(journal)
    sequence = last_sequence(journal)
    again = [a_call(number) for number in range(sequence - 2, sequence + 1)]
    write_behind(journal, frames(*again, a_call(sequence + 1)))
    kill(journal)
    drain_once(NOW)
    finding = Finding.objects.get()
    assert (finding.kind, finding.first_sequence, finding.last_sequence) == (
        Finding.Kind.REPEATED,
        sequence - 2,
        sequence,
    )
    assert totals() == {(2, "VALID"): (2, 2)}


def test_a_torn_tail_is_a_finding_with_its_bytes(journal: Journal, journal_dir: Path) -> None:
    call(journal)
    write_behind(journal, b"\x47\0\0\0torn")
    path = path_of(journal)
    kill(journal)
    for _ in range(2):
        drain_once(NOW)
    finding = Finding.objects.get()
    assert finding.kind == Finding.Kind.TORN
    assert bytes.fromhex(finding.payload) == b"\x47\0\0\0torn"
    assert kept(journal_dir) == [f"{path.name}.torn"]


def test_a_file_that_is_no_journal_is_one_finding_however_many_passes(
    journal: Journal, journal_dir: Path
) -> None:
    (journal_dir / "11111111111.000003.journal").write_bytes(os.urandom(500))
    drain = Drain()
    for each in (drain, drain, Drain()):
        assert len(each.once(NOW).problems) == 1
    finding = Finding.objects.get()
    assert (finding.kind, finding.spool, finding.segment) == (Finding.Kind.UNREADABLE, "11111111111", 3)


def test_a_record_of_a_later_version_is_a_finding_and_waits(journal: Journal) -> None:
    call(journal)
    write_behind(journal, frames(records.HEAD.pack(2, records.CALL, 99, 0) + bytes(20)))
    path = path_of(journal)
    kill(journal)
    for _ in range(2):
        drain_once(NOW)
    assert "version 2" in Finding.objects.get().text
    assert path.exists()


# --- seen ------------------------------------------------------------------------------------------


def test_a_finding_is_seen_once_and_the_audit_says_by_whom() -> None:
    finding = findings.missing(3, 5, 100)
    findings.store([finding], "aaaaaaaaaaa", 1, NOW)
    finding = Finding.objects.get()
    assert findings.unseen() == 1
    actor = lifecycle.command_actor()
    findings.see(finding, actor, now=NOW + dt.timedelta(hours=1))
    with pytest.raises(lifecycle.Conflict):
        findings.see(finding, actor, now=NOW)
    finding.refresh_from_db()
    assert (finding.seen_at, finding.seen_by) == (NOW + dt.timedelta(hours=1), "manage.py")
    assert findings.unseen() == 0
    event = AuditEvent.objects.get(act="finding.seen")
    assert event.data["journal"] == "aaaaaaaaaaa.000001: records 3 to 5 are missing"


def test_what_a_power_cut_took_after_it_was_counted_stays_counted_once(
    journal: Journal, journal_dir: Path
) -> None:
    for _ in range(5):
        call(journal)
    drain_once(NOW)
    path = path_of(journal)
    kill(journal)
    whole = path.read_bytes()
    path.write_bytes(whole[: list(records.read_records(whole))[5].end] + bytes(4096))
    report = drain_once(NOW)
    assert report.segments_finished == 1
    assert totals() == {(2, "VALID"): (5, 5)}
    finding = Finding.objects.get(kind=Finding.Kind.LOST)
    assert "were counted are gone" in finding.text
    assert Spool.objects.get().finished_at is not None
    assert undrained(journal_dir) == []


def test_a_live_journal_that_lost_what_was_counted_is_left_alone(journal: Journal, journal_dir: Path) -> None:
    call(journal)
    drain_once(NOW)
    path = path_of(journal)
    with path.open("r+b") as file:
        file.seek(200)
        file.write(bytes(4096))
    drain = Drain(journal_dir)
    assert drain.once(NOW).problems != []
    assert not Finding.objects.filter(kind=Finding.Kind.LOST).exists()
    assert path.exists()


@pytest.mark.parametrize("content", [b"", bytes(100_000)])
def test_a_dead_journal_of_which_nothing_reached_the_disk_holds_nothing_back(
    journal: Journal, journal_dir: Path, content: bytes
) -> None:
    call(journal)
    drain_once(NOW)
    path = path_of(journal)
    kill(journal)
    path.write_bytes(content)
    stranger = journal_dir / f"{'0' * 11}.000000.journal"
    stranger.write_bytes(content)
    drain_once(NOW)
    drain_once(NOW)
    assert undrained(journal_dir) == []
    assert Finding.objects.filter(kind=Finding.Kind.LOST).count() == 2
    assert not Spool.objects.filter(finished_at=None).exists()
    assert totals() == {(2, "VALID"): (1, 1)}
