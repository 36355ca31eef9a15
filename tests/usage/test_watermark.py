"""Until when everything is counted: never too late, never back, and on with it once a host is given up on."""

import datetime as dt
from pathlib import Path

import pytest

from tests.usage.journals import NOW, Clock, call
from usage.drain import Drain, complete_through, drain_once
from usage.journal import Journal
from usage.models import Spool

pytestmark = pytest.mark.django_db


def test_the_watermark_is_never_later_than_the_listing(journal: Journal, clock: Clock) -> None:
    call(journal)
    listed = dt.datetime(2026, 9, 30, 23, 59, 59, tzinfo=dt.UTC)
    drain_once(listed)
    assert Spool.objects.get().watermark == listed


def test_complete_through_waits_for_the_slowest_spool(
    journal: Journal, journal_dir: Path, clock: Clock
) -> None:
    assert complete_through() is None
    slow = Journal(journal_dir, clock=clock, tick=False)
    call(slow)
    clock.now += 60_000_000_000
    call(journal)
    drain_once(NOW)
    assert complete_through() == dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
    slow.close()
    drain_once(NOW)
    assert complete_through() == dt.datetime(2026, 10, 1, 0, 1, tzinfo=dt.UTC)
    journal.close()
    drain_once(NOW)
    assert complete_through() == NOW


def test_a_journal_whose_turn_has_not_come_holds_the_watermark_back(journal_dir: Path, clock: Clock) -> None:
    journals = sorted(
        (Journal(journal_dir, clock=clock, tick=False) for _ in range(2)), key=lambda j: j.spool
    )
    for journal in reversed(journals):  # the one that is read last has the earlier call
        call(journal)
        clock.now += 60_000_000_000
    seen: list[dt.datetime | None] = []
    Drain().once(NOW, progress=lambda size: seen.append(complete_through()))
    assert seen[0] is not None
    assert complete_through() == dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
    final = complete_through()
    assert all(moment is None or final is None or moment <= final for moment in seen)
    for journal in journals:
        journal.close()


def test_a_journal_that_cannot_be_read_stops_the_watermark(
    journal: Journal, journal_dir: Path, clock: Clock
) -> None:
    call(journal)
    drain_once(NOW)
    before = complete_through()
    (journal_dir / f"{'0' * 11}.000000.journal").write_bytes(b"of a later version, say")
    clock.now += 60_000_000_000
    call(journal)
    assert drain_once(NOW).calls == 1
    assert complete_through() == before
    (journal_dir / f"{'0' * 11}.000000.journal").unlink()
    clock.now += 60_000_000_000
    call(journal)
    drain_once(NOW)
    assert before is not None
    assert complete_through() == before + dt.timedelta(minutes=2)
