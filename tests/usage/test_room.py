"""The bound on what journals hold: an alarm before it, a refusal at it, and on with the work below it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from keys.verdicts import Code
from tests.usage.journals import NOW, call
from tests.waiting import until
from usage import journal as journals
from usage import metering, room
from usage.drain import drain_once
from usage.journal import Journal, JournalError
from usage.records import CALL, SEAL, read_records
from usage.segment import RESERVE_BYTES

MIB = 1024**2
BOUND = 4 * MIB


@pytest.fixture
def bounded(journal_dir: Path) -> Iterator[Journal]:
    journal = Journal(journal_dir, tick=False, max_bytes=BOUND)
    yield journal
    journal.close()


def ballast(folder: Path, size: int) -> Path:
    """Another process's journal of this size, on the disk."""
    path = folder / "00000000000.000000.journal"
    path.write_bytes(b"\xff" * size)
    return path


def fill(journal: Journal, most: int = 100_000) -> int:
    """Call until it is refused; the number of calls that were not."""
    for number in range(most):
        try:
            call(journal, resource=f"r{number}")
        except JournalError:
            return number
    raise AssertionError("never refused")


def test_at_the_bound_events_are_refused_and_no_answered_one_is_lost(
    bounded: Journal,
) -> None:
    answered = fill(bounded)
    assert answered > 10_000
    with pytest.raises(JournalError, match="USAGE_JOURNAL_MAX_BYTES"):
        call(bounded)
    found = [record for path in bounded.directory.iterdir() for record in read_records(path.read_bytes())]
    assert sum(record.kind == CALL for record in found) == answered
    assert found[-1].kind == SEAL  # a drain can take it away
    assert room.held_bytes(bounded.directory) <= BOUND + RESERVE_BYTES


def test_what_other_processes_hold_counts_too(bounded: Journal, journal_dir: Path) -> None:
    call(bounded)
    path = ballast(journal_dir, BOUND)
    bounded.tick()
    assert fill(bounded) < MIB // 80  # what was set aside already may be used
    path.unlink()
    bounded.tick()
    call(bounded)


def test_drained_and_foreign_files_do_not_count(bounded: Journal, journal_dir: Path) -> None:
    (journal_dir / "drained").mkdir()
    ballast(journal_dir / "drained", BOUND)
    (journal_dir / "notes.txt").write_bytes(bytes(BOUND))
    assert room.held_bytes(journal_dir) == 0
    call(bounded)


@pytest.mark.django_db
def test_a_drain_makes_room_and_the_work_goes_on_within_seconds(journal_dir: Path) -> None:
    journal = Journal(journal_dir, max_bytes=BOUND)
    fill(journal)
    drain_once(NOW)
    until(lambda: not journal.room.is_full, 5, why=lambda: journal.room.sentence)
    call(journal)
    journal.close()


def test_the_alarm_is_said_once_when_it_begins_and_once_when_it_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    measured = room.Room(tmp_path, BOUND)
    said = []
    with caplog.at_level(logging.INFO, "usage.room"):
        for share in (79, 81, 95, 78, 76, 74, 10, 85):
            ballast(tmp_path, BOUND * share // 100)
            measured.measure()
            said.append((measured.alarm, len(caplog.records)))
    assert said == [(False, 0), (True, 1), (True, 1), (True, 1), (True, 1), (False, 2), (False, 2), (True, 3)]
    assert "is a worker draining them?" in caplog.text


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    measured = room.Room(tmp_path / "none", BOUND)
    measured.measure()
    assert not measured.is_full


def test_without_a_bound_nothing_is_measured(tmp_path: Path) -> None:
    ballast(tmp_path, BOUND)
    assert not room.Room(tmp_path, 0).is_full


@pytest.fixture
def process(settings: Settings, journal_dir: Path, transactional_db: None) -> Iterator[Journal]:
    """What this process decides with, under a small bound; stopped while there is a database to sign off."""
    settings.USAGE_JOURNAL_MAX_BYTES = BOUND
    yield journals.current()
    metering.stop()


def test_readyz_warns_from_the_alarm_on_and_says_no_at_the_bound(process: Journal, journal_dir: Path) -> None:
    assert metering.readiness().warnings == []
    path = ballast(journal_dir, 5 * MIB // 2)
    process.tick()
    assert ["USAGE_JOURNAL_MAX_BYTES" in warning for warning in metering.readiness().warnings] == [True]
    path.unlink()
    ballast(journal_dir, BOUND)
    process.tick()
    reasons = metering.readiness().reasons
    assert any(reason.startswith("the journal: the journals here hold") for reason in reasons)


def test_at_the_bound_a_call_is_unavailable_and_never_allowed_uncounted(
    process: Journal, journal_dir: Path
) -> None:
    ballast(journal_dir, BOUND)
    decision = metering.refuse(Code.MALFORMED)
    assert decision.code is Code.UNAVAILABLE
    assert decision.request == ""
