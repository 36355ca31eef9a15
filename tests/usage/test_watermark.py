"""Until when everything is counted: never too late, never back, and on with it once a host is given up on."""

import datetime as dt
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from keys import presence
from keys.models import AuditEvent, Policy, Process
from tests.usage.journals import BEGIN, NOW, SECOND, Clock, call, kill, path_of, totals
from usage import watermark
from usage.drain import Drain, drain_once
from usage.journal import Journal
from usage.models import Finding, Spool

MINUTE = dt.timedelta(minutes=1)

pytestmark = pytest.mark.django_db


def complete_through() -> dt.datetime | None:
    """The moment, which is the same where a page reads it beside a row of its own."""
    found = watermark.complete_through()
    assert watermark.told(*Policy.objects.values_list(*watermark.columns())[0]) == found
    return found


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


def test_a_clock_that_was_set_back_does_not_move_it_back(journal_dir: Path, clock: Clock) -> None:
    first = Journal(journal_dir, clock=clock, tick=False)
    clock.now += 3600 * SECOND
    call(first)
    first.close()
    drain_once(NOW)
    before = complete_through()
    assert before == NOW
    clock.now -= 1800 * SECOND
    again = Journal(journal_dir, clock=clock, tick=False)
    call(again)
    drain_once(NOW)
    assert complete_through() == before
    again.close()
    process("elsewhere", started=BEGIN)
    assert complete_through() == before


def test_a_spool_that_comes_back_is_waited_for_from_when_it_came(journal: Journal, clock: Clock) -> None:
    """Its disk was full: no segment for an hour, though the process lives. What it writes then is waited for
    before anything of it is read, and its old watermark does not hold everybody back for that hour."""
    call(journal)
    journal.close()
    drain_once(BEGIN + MINUTE)
    clock.now += 3600 * SECOND
    call(journal)
    clock.now += 60 * SECOND
    other = Journal(journal.directory, clock=clock, tick=False)
    other.spool = "0" * 11  # its turn comes first
    call(other)
    seen: list[dt.datetime | None] = []
    Drain().once(NOW, progress=lambda size: seen.append(complete_through()))
    assert max(at for at in seen if at is not None) == BEGIN + 60 * MINUTE
    assert complete_through() == BEGIN + 60 * MINUTE
    assert totals() == {(2, "VALID"): (3, 3)}
    other.close()


# --- processes that have no journal yet ------------------------------------------------------------


def process(id: str, *, host: str = "east", started: dt.datetime, serves: dt.timedelta = MINUTE) -> Process:
    return Process.objects.create(
        id=id, host=host, pid=7, lock_path=f"/nowhere/{id}.lock", started_at=started, feed_number=0,
        serves_until=timezone.now() + serves,
    )  # fmt: skip


def test_a_serving_process_whose_journal_nobody_has_seen_counts_from_its_start(journal: Journal) -> None:
    call(journal)
    started = BEGIN - dt.timedelta(hours=1)
    other = process("bbbbbbbbbbb", started=started)
    drain_once(NOW)
    assert complete_through() == started
    assert watermark.holder() == watermark.Holder("east", 7, started)
    Spool.objects.create(id=other.pk, host="east", pid=7, started_at=started, watermark=NOW)
    assert complete_through() == BEGIN


def test_a_process_that_nothing_else_tells_of_is_not_forgotten(journal_dir: Path) -> None:
    silent = -dt.timedelta(days=3)
    process("bbbbbbbbbbb", started=BEGIN, serves=silent)
    drained = process("ccccccccccc", started=BEGIN, serves=silent)
    Spool.objects.create(id=drained.pk, host="east", pid=7, started_at=BEGIN, finished_at=NOW)
    presence.forget_the_dead(spare=watermark.unannounced())
    assert set(Process.objects.values_list("pk", flat=True)) == {"bbbbbbbbbbb"}


@pytest.mark.parametrize(("journals", "left"), [(1, 1), (0, 0)])
def test_a_dead_process_of_this_host_stays_while_its_journal_waits(
    journal_dir: Path, journals: int, left: int
) -> None:
    lock = journal_dir / "bbbbbbbbbbb.lock"
    lock.touch()
    dead = process("bbbbbbbbbbb", host=watermark.this_host(), started=BEGIN)
    Process.objects.filter(pk=dead.pk).update(lock_path=str(lock))
    for number in range(journals):
        (journal_dir / f"bbbbbbbbbbb.{number:06d}.journal").touch()
    presence.forget_the_dead(spare=watermark.unannounced())
    assert Process.objects.count() == left


def test_a_journal_is_announced_with_its_true_start(journal: Journal, clock: Clock) -> None:
    watermark.announce(journal)
    assert not Spool.objects.exists()  # it was never opened
    call(journal)
    clock.now += 3600 * SECOND
    for _ in range(2):
        watermark.announce(journal)
    spool = Spool.objects.get()
    assert (spool.pk, spool.host, spool.started_at) == (journal.spool, watermark.this_host(), BEGIN)
    assert complete_through() == BEGIN


# --- giving up on a host ---------------------------------------------------------------------------


def lost(id: str = "bbbbbbbbbbb", host: str = "east", reached: dt.datetime | None = BEGIN) -> Spool:
    return Spool.objects.create(id=id, host=host, pid=7, started_at=BEGIN - MINUTE, watermark=reached)


def retire(*arguments: str) -> str:
    said = io.StringIO()
    call_command("retire_spool", *arguments, stderr=said)
    return said.getvalue()


def test_a_host_is_given_up_on_by_name_and_counting_goes_on(journal: Journal, clock: Clock) -> None:
    lost()
    process("ccccccccccc", started=BEGIN - 2 * MINUTE, serves=-MINUTE)  # with no journal that anybody saw
    clock.now += 3600 * SECOND
    call(journal)
    drain_once(NOW)
    assert complete_through() == BEGIN - 2 * MINUTE
    said = retire("east", "--reason", "its disk burnt")
    assert "bbbbbbbbbbb of east: counted until 2026-10-01 00:00:00 UTC" in said
    assert "counted until 2026-10-01 01:00:00 UTC" in said
    assert complete_through() == BEGIN + 60 * MINUTE
    given_up = Spool.objects.exclude(retired_at=None)
    assert set(given_up.values_list("pk", "retired_reason")) == {
        ("bbbbbbbbbbb", "its disk burnt"),
        ("ccccccccccc", "its disk burnt"),
    }
    assert not Process.objects.exists()
    event = AuditEvent.objects.get(act="spool.retired")
    assert event.actor_kind == "command"
    assert event.data == {
        "host": "east",
        "spools": ["ccccccccccc", "bbbbbbbbbbb"],
        "since": "2026-09-30T23:58:00+00:00",
        "reason": "its disk burnt",
    }


def test_a_dry_run_says_the_same_and_does_nothing() -> None:
    lost(reached=None)
    assert "Would give up on bbbbbbbbbbb of east: nothing of it is counted" in retire(
        "east", "--reason", "gone", "--dry-run"
    )
    assert Spool.objects.get().retired_at is None
    assert not AuditEvent.objects.filter(act="spool.retired").exists()


def test_what_cannot_be_given_up_on_is_refused_in_one_sentence(journal: Journal) -> None:
    call(journal)
    drain_once(NOW)
    lost("ddddddddddd", "done")
    Spool.objects.filter(pk="ddddddddddd").update(finished_at=NOW)
    lost("eeeeeeeeeee", "alive")
    process("eeeeeeeeeee", host="alive", started=BEGIN)
    refusals = {
        "nobody": "Nobody knows a host 'nobody'",
        "done": "nothing to give up",
        "alive": "alive is alive",
        watermark.this_host(): "are here",
    }
    for host, sentence in refusals.items():
        with pytest.raises(CommandError, match=sentence) as refused:
            retire(host, "--reason", "gone")
        assert refused.value.returncode == 1
    assert not Spool.objects.exclude(retired_at=None).exists()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("", "gone"),
        ("a\0b", "gone"),
        ("\ud800", "gone"),
        ("h" * 1_000_000, "gone"),
        ("east", ""),
        ("east", "a\0"),
        ("east", "r" * 1_000_000),
        ("east", "lk_live_" + "a" * 38),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_bad_arguments_are_refused_and_change_nothing(host: str, reason: str, more: tuple[str, ...]) -> None:
    lost()
    with pytest.raises(CommandError) as refused:
        retire(host, "--reason", reason, *more)
    assert refused.value.returncode in (1, 2)
    assert Spool.objects.get().retired_at is None


def test_a_journal_that_was_given_up_on_counts_when_it_comes_and_a_finding_says_so(
    journal: Journal, journal_dir: Path, tmp_path: Path
) -> None:
    call(journal)
    drain_once(NOW)
    call(journal)
    away = tmp_path / path_of(journal).name
    path_of(journal).rename(away)
    Spool.objects.update(host="east")
    retire("east", "--reason", "lost at sea")
    kill(journal)
    away.rename(journal_dir / away.name)
    for _ in range(2):
        drain_once(NOW)
    assert totals() == {(2, "VALID"): (2, 2)}
    finding = Finding.objects.get()
    assert finding.kind == Finding.Kind.LATE
    assert "lost at sea" in finding.text
    assert complete_through() == NOW


def test_a_journal_that_was_opened_before_its_process_was_on_the_list_does_not_move_it_back(
    journal: Journal, clock: Clock
) -> None:
    journal.start()
    process(journal.spool, started=BEGIN + dt.timedelta(milliseconds=4))
    before = complete_through()
    assert before == BEGIN + dt.timedelta(milliseconds=4)
    drain_once(NOW)
    after = complete_through()
    assert after is not None
    assert after >= before
