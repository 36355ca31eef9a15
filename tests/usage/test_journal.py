"""The journal: whole records or none, one writer, nothing answered that is not in a file."""

import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.waiting import until
from usage import records
from usage.journal import Event, Journal, JournalError, TooLate
from usage.records import (
    CALL,
    CHARGED_SHIFT,
    HEADER,
    HELD,
    RESPONSE,
    SEAL,
    TEXT,
    TICK,
    Record,
    Unreadable,
    read_records,
)

SECOND = 1_000_000_000


class Clock:
    """A clock that is set by hand, in ns."""

    def __init__(self, now: int = 1_700_000_000 * SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Journal]]:
    made = []

    def build(**options: object) -> Journal:
        options.setdefault("tick", False)
        made.append(Journal(tmp_path / "journal", **options))  # type: ignore[arg-type]  # options of Journal's own
        return made[-1]

    yield build
    for journal in made:
        journal.close()


def call(journal: Journal, number: int = 1, agent: str = "curl/8") -> int:
    return journal.append(Event(7, 8, number, 1, 5, ("requests", "GET /orders", "192.0.2.1", agent)))


def files(journal: Journal) -> list[Path]:
    return sorted(journal.directory.iterdir())


def everything(journal: Journal) -> list[Record]:
    return [record for path in files(journal) for record in read_records(path.read_bytes())]


def sequences(found: list[Record]) -> list[int]:
    """Of all but the seals, which repeat the one before."""
    return [record.sequence for record in found if record.kind != SEAL]


def calls(journal: Journal) -> list[Record]:
    return [record for record in everything(journal) if record.kind == CALL]


def test_an_event_is_in_the_file_when_append_returns(make: Callable[..., Journal]) -> None:
    journal = make(clock=Clock())
    sequence = call(journal, agent="tool/1")
    (record,) = calls(journal)
    assert record.sequence == sequence
    assert record[5:] == (7, 8, 1, 5, 1, 1, "requests", "GET /orders", "192.0.2.1", "tool/1", 0)
    assert record.time == 1_700_000_000_000_000
    assert journal.request_id(sequence) == f"{journal.spool}-{sequence}"


def test_a_call_may_be_held_and_names_the_quotas_it_was_charged_to(make: Callable[..., Journal]) -> None:
    journal = make(clock=Clock())
    labels = "requests", "", "", ""
    journal.append(Event(7, 8, 1, 1, 5, labels, kind=HELD | 0b1010 << CHARGED_SHIFT))
    (record,) = (record for record in everything(journal) if record.kind == HELD)
    assert (record.cost, record.charged) == (5, 0b1010)


@pytest.mark.parametrize("leap", [-86_400, -3600, 3600, 86_400])
def test_a_clock_that_was_set_dates_nothing_until_the_database_bears_it_out(
    make: Callable[..., Journal], leap: int
) -> None:
    clock, monotonic = Clock(), Clock()
    journal = make(clock=clock, monotonic=monotonic)
    sequence = call(journal)
    clock.now += leap * SECOND
    journal.tick()
    for _ in range(2):
        with pytest.raises(JournalError, match="clock was set"):
            call(journal)
    journal.clock.agrees = lambda: True  # it was wrong before, and is right now
    for each in clock, monotonic:
        each.now += 3 * SECOND
    journal.tick()
    assert call(journal) > sequence
    first, second = calls(journal)
    assert second.time == max(first.time, clock.now // 1000)


def test_an_event_that_comes_after_its_period_is_not_written(make: Callable[..., Journal]) -> None:
    clock = Clock()
    journal = make(clock=clock)
    labels = "requests", "", "", ""
    moment = clock.now // 1000
    sequence = journal.append(Event(7, 8, 1, 1, 5, labels), before=moment + 1)
    with pytest.raises(TooLate):
        journal.append(Event(7, 8, 1, 1, 5, labels), before=moment)
    assert journal.append(Event(7, 8, 1, 1, 5, labels)) == sequence + 1
    assert len(calls(journal)) == 2


def test_how_a_call_was_answered_is_a_record_of_its_own(make: Callable[..., Journal]) -> None:
    journal = make(clock=Clock())
    call(journal)
    journal.append_response(7, 8, "orders/<int:pk>/", 5)
    journal.append_response(7, 8, "GET /orders", 2)
    found = [record for record in everything(journal) if record.kind == RESPONSE]
    assert [(r.organization, r.key, r.resource, r.code, r.calls) for r in found] == [
        (7, 8, "orders/<int:pk>/", 5, 1),
        (7, 8, "GET /orders", 2, 1),
    ]
    assert sequences(everything(journal)) == list(range(1, len(everything(journal)) + 1))


def test_a_response_goes_on_in_the_next_segment_too(make: Callable[..., Journal]) -> None:
    journal = make(segment_bytes=60_000, segment_texts=10)
    call(journal)
    for number in range(40):
        journal.append_response(7, 8, f"r{number}", 2)
    found = [record for record in everything(journal) if record.kind == RESPONSE]
    assert [record.resource for record in found] == [f"r{number}" for number in range(40)]
    assert sequences(everything(journal)) == list(range(1, len(sequences(everything(journal))) + 1))
    assert len(files(journal)) > 3
    for path in files(journal):
        assert sum(record.kind == TEXT for record in read_records(path.read_bytes())) <= 10


def test_nothing_is_opened_before_the_first_event(make: Callable[..., Journal]) -> None:
    journal = make()
    assert not journal.directory.exists()
    call(journal)
    assert len(files(journal)) == 1


def test_only_the_owner_can_read_it_and_the_lock_is_held(make: Callable[..., Journal]) -> None:
    journal = make()
    call(journal)
    (path,) = files(journal)
    assert path.stat().st_mode & 0o777 == 0o600
    assert journal.directory.stat().st_mode & 0o777 == 0o700
    with path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    journal.close()
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_sequences_run_on_across_segments_and_each_defines_its_own_texts(
    make: Callable[..., Journal],
) -> None:
    journal = make(segment_bytes=600)
    for number in range(50):
        call(journal, number)
    journal.close()
    assert len(files(journal)) > 5
    found = everything(journal)
    assert sequences(found) == list(range(1, len(sequences(found)) + 1))
    assert [record.secret for record in found if record.kind == CALL] == list(range(50))
    for path in files(journal):
        kinds = [record.kind for record in read_records(path.read_bytes())]
        assert kinds[0] == HEADER
        assert kinds[-1] == SEAL


def test_a_segment_with_too_many_texts_is_left(make: Callable[..., Journal]) -> None:
    journal = make(segment_texts=10)
    for number in range(40):
        call(journal, number, agent=f"agent/{number}")
    assert [record.user_agent for record in calls(journal)] == [f"agent/{n}" for n in range(40)]
    assert len(files(journal)) > 3
    for path in files(journal):
        assert sum(record.kind == TEXT for record in read_records(path.read_bytes())) <= 10


def test_time_never_goes_back(make: Callable[..., Journal]) -> None:
    clock = Clock()
    journal = make(clock=clock, segment_bytes=600)
    for step in (0, 5, -3600, 2, -9, 7200):
        clock.now += step * SECOND
        call(journal)
    times = [record.time for record in everything(journal)]
    assert times == sorted(times)


def test_a_journal_that_somebody_deleted_is_left_within_a_tick(make: Callable[..., Journal]) -> None:
    journal = make(clock=Clock())
    call(journal)
    (first,) = files(journal)
    first.unlink()
    journal.tick()
    sequence = call(journal)
    (second,) = files(journal)
    assert second != first
    assert [record.sequence for record in calls(journal)] == [sequence]


def test_an_idle_journal_ticks_and_a_busy_one_does_not(make: Callable[..., Journal]) -> None:
    clock = Clock()
    journal = make(clock=clock)
    call(journal)
    clock.now += SECOND // 2
    journal.tick()
    assert everything(journal)[-1].kind == CALL
    clock.now += SECOND
    journal.tick()
    last = everything(journal)[-1]
    assert (last.kind, last.time) == (TICK, clock.now // 1000)


def test_a_thread_ticks_while_the_process_is_idle(make: Callable[..., Journal]) -> None:
    journal = make(tick=True)
    journal.start()
    until(lambda: everything(journal)[-1].kind == TICK, 5)


def test_texts_are_cut_and_cleaned(make: Callable[..., Journal]) -> None:
    journal = make()
    journal.append(Event(1, 1, 1, 1, 1, ("m" * 99, "r\0\ud800", "a" * 99, "u" * 9999)))
    (record,) = calls(journal)
    assert (len(record.meter), len(record.address), len(record.user_agent)) == (
        50,
        45,
        records.CONTEXT_LENGTH,
    )
    assert record.resource == "r\ufffd?"


def test_two_threads_lose_and_repeat_nothing(make: Callable[..., Journal]) -> None:
    journal = make(segment_bytes=20_000)
    answers: list[list[int]] = [[], []]

    def work(mine: list[int], base: int) -> None:
        mine.extend(call(journal, base + number, agent=f"a{number % 7}") for number in range(2000))

    threads = [threading.Thread(target=work, args=(answers[n], n * 10_000)) for n in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = everything(journal)
    assert sequences(found) == list(range(1, len(sequences(found)) + 1))
    by_sequence = {record.sequence: record.secret for record in found if record.kind == CALL}
    assert len(by_sequence) == 4000
    for n in (0, 1):
        assert [by_sequence[s] for s in answers[n]] == [n * 10_000 + k for k in range(2000)]


FULL_DISK = """
import json, subprocess, sys
from pathlib import Path
from usage.journal import Event, Journal, JournalError, TooLate
from usage.records import CALL, SEAL, read_records

disk = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], check=True)
journal = Journal(disk / "journal", tick=False)
answered, refused = [], 0

def call(number):
    global refused
    try:
        journal.append(Event(1, 1, number, 1, 1, ("requests", "", "192.0.2.1", "curl")))
        answered.append(number)
    except JournalError:
        refused += 1

call(0)
ballast = disk / "ballast"
try:
    ballast.write_bytes(bytes(4_000_000))
except OSError:
    pass
for number in range(1, 20_000):
    call(number)
while_full = refused
ballast.unlink()
for number in range(20_000, 21_000):
    call(number)
journal.close()
paths = sorted((disk / "journal").iterdir())
found = [record for path in paths for record in read_records(path.read_bytes())]
print(json.dumps({
    "answered": answered,
    "refused": [while_full, refused],
    "secrets": [record.secret for record in found if record.kind == CALL],
    "sequences": [record.sequence for record in found if record.kind != SEAL],
    "cut": [list(read_records(path.read_bytes()))[-1].end == path.stat().st_size for path in paths],
}))
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no small disk of one's own can be made")
def test_a_full_disk_refuses_and_the_journal_goes_on_once_there_is_room(tmp_path: Path) -> None:
    """A real file system of two megabytes, which something else fills."""
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", FULL_DISK, str(tmp_path)]
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "portal.settings"}
    done = subprocess.run(command, env=env, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout)
    while_full, refused = result["refused"]
    assert while_full > 1000
    assert refused == while_full
    assert len(result["answered"]) > 10_000
    assert result["secrets"] == result["answered"]
    assert result["sequences"] == list(range(1, len(result["sequences"]) + 1))
    assert all(result["cut"])


def test_a_killed_process_leaves_whole_records_and_zeros(make: Callable[..., Journal]) -> None:
    journal = make()
    call(journal)
    (path,) = files(journal)
    content = path.read_bytes()
    *_, last = read_records(content)
    assert last.kind == CALL
    assert len(content) > last.end
    assert content[last.end :].strip(b"\0") == b""


def test_a_journal_that_somebody_cut_off_is_left_within_a_tick(make: Callable[..., Journal]) -> None:
    journal = make(clock=Clock())
    call(journal)
    (first,) = files(journal)
    os.truncate(first, 4096)
    journal.tick()
    sequence = call(journal)
    assert len(files(journal)) == 2
    assert calls(journal)[-1].sequence == sequence


def test_a_journal_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError):
        call(Journal(tmp_path / "file", tick=False))


def test_a_child_process_starts_a_journal_of_its_own(settings: object, tmp_path: Path) -> None:
    from usage import journal

    settings.USAGE_JOURNAL_DIR = tmp_path  # type: ignore[attr-defined]  # pytest-django's fixture
    journal.reset()
    try:
        call(journal.current())
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            child = os.fork()
        if child == 0:  # pragma: no cover
            call(journal.current())
            os._exit(0)
        os.waitpid(child, 0)
        call(journal.current())
        found = [list(read_records(path.read_bytes())) for path in tmp_path.iterdir()]
        assert sorted(sum(r.kind == CALL for r in one) for one in found) == [1, 2]
    finally:
        journal.reset()


def test_power_durability_syncs_before_it_answers(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    real = os.fdatasync

    def sync(fd: int) -> None:
        real(fd)
        synced.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fdatasync", sync)
    journal = make(power=True)
    call(journal)
    (path,) = files(journal)
    assert synced == [path.stat().st_size]


def test_threads_that_wait_share_a_sync(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(power=True)
    syncs = []

    def slow(fd: int) -> None:
        """The first takes until all have written."""
        syncs.append(fd)
        until(lambda: len(calls(journal)) == 8)

    monkeypatch.setattr(os, "fdatasync", slow)
    threads = [threading.Thread(target=call, args=(journal,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls(journal)) == 8
    assert len(syncs) <= 2  # one for whoever came first, one for all who wrote meanwhile


def test_a_failed_sync_is_never_tried_again(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a broken disk fails fdatasync, so that one call is played."""
    journal = make(power=True)
    call(journal)
    attempts = []

    def broken(fd: int) -> None:
        attempts.append(fd)
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(JournalError):
            call(journal)
    assert len(attempts) == 1
    call(journal)
    assert len(files(journal)) == 2


@pytest.mark.parametrize("name", ["posix_fallocate", "ftruncate"])
def test_a_disk_that_gives_no_room_refuses_the_event_and_the_next_goes_on(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Refused at the next megabyte, and at a new segment; nothing else of the journal is touched."""
    journal = make(segment_bytes=3 * 1024**2)
    answered = []

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for number in range(60_000):
        with monkeypatch.context() as patch:
            if number % 1000 == 0:
                patch.setattr(os, name, fail)
            try:
                journal.append(Event(1, 1, number, 1, 1, ("requests", "", "192.0.2.1", "curl")))
                answered.append(number)
            except JournalError:
                continue
    assert len(answered) > 59_000
    assert [record.secret for record in calls(journal)] == answered
    assert sequences(everything(journal)) == list(range(1, len(sequences(everything(journal))) + 1))


def test_a_failed_segment_is_let_go_of_though_no_event_comes(
    make: Callable[..., Journal], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = make(power=True)
    call(journal)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(JournalError):
            call(journal)
    journal.tick()
    (path,) = files(journal)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


# --- reading ---------------------------------------------------------------------------------------


@cache
def segment() -> bytes:
    with TemporaryDirectory() as directory:
        journal = Journal(Path(directory), tick=False)
        for number in range(12):
            journal.append(Event(1, 2, number, 1, 1, ("requests", f"r{number % 3}", "192.0.2.1", "curl")))
            if number % 3:
                journal.append_response(1, 2, f"r{number % 5}", number % 5 + 1)
        journal.close()
        return files(journal)[0].read_bytes()


@cache
def whole() -> list[Record]:
    return list(read_records(segment()))


@given(st.integers(0, 3000), st.binary(max_size=40) | st.integers(0, 5000).map(bytes))
def test_a_torn_or_zero_filled_tail_yields_exactly_the_whole_records(cut: int, tail: bytes) -> None:
    cut = min(cut, len(segment()))
    if segment()[cut : cut + len(tail)] == tail:
        tail = b""
    before = [record for record in whole() if record.end <= cut]
    found = list(read_records(segment()[:cut] + tail))
    # A tail that happens to complete the record under the cut is that record.
    assert found[: len(before)] == before
    assert all(record in whole() for record in found)


def test_every_truncation_yields_exactly_the_whole_records() -> None:
    for cut in range(len(segment()) + 1):
        assert list(read_records(segment()[:cut])) == [r for r in whole() if r.end <= cut]
        zeroed = segment()[:cut] + bytes(4096)
        found = [record.sequence for record in read_records(zeroed)]
        # Where the lost bytes were zeros themselves, nothing is lost.
        assert found == [r.sequence for r in whole() if not segment()[cut : r.end].strip(b"\0")]


def test_every_flipped_bit_gives_no_phantom() -> None:
    """Only records that were written are read, in their order, and the damaged one is never among them."""
    for position in range(len(segment()) * 8):
        damaged = bytearray(segment())
        damaged[position // 8] ^= 1 << position % 8
        found = list(read_records(bytes(damaged)))
        assert found == whole()[: len(found)], position
        assert len(found) < len(whole()), position


@given(st.binary(max_size=300))
def test_garbage_is_no_journal(junk: bytes) -> None:
    assert list(read_records(junk)) == []


def test_a_reader_goes_on_where_it_stopped() -> None:
    reader, found = records.Reader(), []
    for cut in range(0, len(segment()) + 50, 50):
        part = segment()[:cut]
        found += list(reader.records(lambda size, offset, part=part: part[offset : offset + size]))  # type: ignore[misc]  # a bound default
    assert found == whole()


def test_a_record_of_a_later_version_stops_the_reader() -> None:
    later = records.frame(records.HEAD.pack(2, CALL, 99, 0) + bytes(20))
    with pytest.raises(Unreadable):
        list(read_records(segment() + later))


@pytest.mark.parametrize("kind", [RESPONSE, 7, 15])
def test_a_whole_record_of_a_shape_that_nobody_knows_is_poison_and_the_next_is_read(kind: int) -> None:
    strange = records.frame(records.HEAD.pack(1, kind, 99, 0) + bytes(9))
    tick = records.frame(records.HEAD.pack(1, TICK, 100, 0))
    *before, poison, after = read_records(segment() + strange + tick)
    assert before == whole()
    assert (poison.kind, poison.sequence, records.frame(poison.payload)) == (records.POISON, 99, strange)
    assert (after.kind, after.sequence) == (TICK, 100)


def test_a_file_that_begins_without_a_header_is_refused() -> None:
    with pytest.raises(Unreadable):
        list(read_records(segment()[whole()[0].end :]))


def test_the_records_keep_their_layout() -> None:
    """Version 1 is kept for ever: a change here needs a version 2."""
    assert records.CALL_BODY.size == 71
    assert struct.calcsize(records.CALL_BODY.format) == 71
    assert records.RESPONSE_BODY.size == struct.calcsize(records.RESPONSE_BODY.format) == 43
    assert (records.HEADER, CALL, TEXT, TICK, SEAL, RESPONSE) == (1, 2, 3, 4, 5, 6)
