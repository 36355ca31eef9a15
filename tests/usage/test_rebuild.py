"""`rebuild_usage`: finds any difference between counters and journals, and claims nothing about the rest."""

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import F
from django.utils import timezone
from pytest_django import Settings

from keys import lifecycle
from tests import builders
from usage import events, rebuild, records
from usage.drain import Drain, drain_once
from usage.event_format import parse
from usage.journal import Event, Journal
from usage.kept import FOLDER
from usage.models import Finding, OrganizationRollup, Rollup, Segment
from usage.rebuild import Result
from usage.records import HELD

pytestmark = pytest.mark.django_db

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)


class Clock:
    """Begins yesterday at noon; the command looks at the real time."""

    def __init__(self) -> None:
        midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
        self.now = midnight - DAY / 2

    def __call__(self) -> int:
        return int(self.now.timestamp()) * 1_000_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def issued() -> lifecycle.Issued:
    return builders.key(builders.organization("acme"))


def call(journal: Journal, of: lifecycle.Issued, cost: int = 1, code: int = 1, kind: int = 2) -> str:
    labels = "requests", "chat", "192.0.2.1", "curl"
    key = of.key
    return journal.request_id(
        journal.append(Event(key.organization_id, key.pk, of.secret.pk, code, cost, labels, kind=kind))
    )


def compare(clock: Clock, journal_dir: Path, **options: Any) -> Result:
    return rebuild.compare(journal_dir, clock.now - 2 * DAY, clock.now + DAY, **options)


def test_what_was_recorded_is_what_is_counted(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued
) -> None:
    """A finished journal, a live one half drained, refusals, events and a settled call."""
    for cost in range(5):
        call(journal, issued, cost)
    journal.close()
    drain_once(clock.now)
    clock.now += HOUR
    held = call(journal, issued, 50, kind=HELD)
    call(journal, issued, code=2)
    drain_once(clock.now)
    reported = [
        parse({"id": "1", "key": issued.key.public_id, "meter": "requests", "value": "7"}, "us"),
        parse({"id": "2", "settles": held, "value": "20"}, "us"),
    ]
    assert events.report(reported, clock.now + 2 * HOUR).accepted == 2
    call(journal, issued)  # not drained
    result = compare(clock, journal_dir)
    assert (result.differences, result.groups) == ([], 4)
    assert [gap.why for gap in result.gaps] == ["no journal is so old"]


@pytest.mark.parametrize("change", [{"calls": F("calls") + 1}, {"quantity": F("quantity") - 1}])
def test_a_counter_that_was_changed_is_found(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued, change: dict[str, Any]
) -> None:
    call(journal, issued)
    drain_once(clock.now)
    Rollup.objects.update(**change)
    (difference,) = compare(clock, journal_dir).differences
    assert difference.recorded == (1, 1)
    assert difference.group[1] == clock.now


def test_a_row_that_is_gone_and_one_too_many_are_found(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued
) -> None:
    call(journal, issued)
    drain_once(clock.now)
    Rollup.objects.update(resource="other")
    found = {each.group[4]: (each.counted, each.recorded) for each in compare(clock, journal_dir).differences}
    assert found == {"chat": ((0, 0), (1, 1)), "other": ((1, 1), (0, 0))}
    nobody = compare(clock, journal_dir, organization=issued.key.organization_id + 1)
    assert nobody.differences == []


def test_hours_of_a_journal_that_is_not_kept_are_not_compared(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued
) -> None:
    call(journal, issued)
    journal.close()
    drain_once(clock.now)
    for path in (journal_dir / FOLDER).iterdir():
        path.unlink()
    clock.now += 3 * HOUR
    call(journal, issued)
    drain_once(clock.now)
    result = compare(clock, journal_dir)
    assert result.differences == []
    assert "is not kept" in result.gaps[-1].why
    assert (result.gaps[-1].start, result.gaps[-1].end) == (clock.now - 3 * HOUR, clock.now + HOUR)
    clock.now += 2 * HOUR
    call(journal, issued)
    drain_once(clock.now)
    Rollup.objects.update(calls=9)
    assert [each.group[1] for each in compare(clock, journal_dir).differences] == [clock.now]


def test_a_journal_that_was_changed_proves_nothing(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued
) -> None:
    call(journal, issued)
    drain_once(clock.now)
    Segment.objects.update(chain="0" * 64)
    result = compare(clock, journal_dir)
    assert "SHA-256" in result.gaps[-1].why
    assert result.differences == []


def test_a_torn_journal_is_read_up_to_its_end(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued
) -> None:
    call(journal, issued)
    assert journal._segment is not None
    path, size = journal._segment.path, journal._segment.size
    with path.open("r+b") as file:
        file.seek(size)
        file.write(b"torn")
    journal._segment.let_go()
    journal._segment = None
    Drain().once(clock.now)
    assert (journal_dir / FOLDER / f"{path.name}.torn").exists()
    result = compare(clock, journal_dir)
    assert (result.groups, result.differences) == (1, [])


def test_the_command_ends_with_0_or_the_list_and_1(
    journal: Journal,
    clock: Clock,
    journal_dir: Path,
    issued: lifecycle.Issued,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(journal, issued, 3)
    drain_once(clock.now)
    call_command("rebuild_usage")
    assert "No difference: 1 groups in" in capsys.readouterr().out
    Rollup.objects.update(quantity=4)
    with pytest.raises(CommandError) as raised:
        call_command("rebuild_usage", "--organization", "acme")
    assert raised.value.returncode == 1
    assert capsys.readouterr().out.splitlines() == [
        f"acme {clock.now:%Y-%m-%dT%H:00Z} {issued.key.public_id} requests chat VALID: counted 1 calls, "
        "quantity 4; recorded 1 calls, quantity 3",
        f"Sums without keys of {clock.now:%Y-%m-%d}: not what the roll-ups add up to.",
    ]
    call_command("rebuild_usage", "--from", f"{clock.now + DAY:%Y-%m-%d}")


def test_the_command_finds_sums_without_keys_that_are_wrong_and_makes_them_anew_when_told_to(
    journal: Journal,
    clock: Clock,
    journal_dir: Path,
    issued: lifecycle.Issued,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(journal, issued, 3)
    drain_once(clock.now)
    OrganizationRollup.objects.update(calls=2)
    with pytest.raises(CommandError, match="--mend-sums makes them anew") as raised:
        call_command("rebuild_usage")
    assert raised.value.returncode == 1
    assert OrganizationRollup.objects.get().calls == 2  # nothing is changed unasked
    capsys.readouterr()
    call_command("rebuild_usage", "--mend-sums")
    assert capsys.readouterr().out.splitlines()[0] == f"Sums without keys of {clock.now:%Y-%m-%d}: made anew."
    assert OrganizationRollup.objects.get().calls == 1
    call_command("rebuild_usage")
    # Sums need no events, so that those of any day can be compared; days before the first are not looked at.
    stray, long_ago = OrganizationRollup.objects.get(), clock.now - 100 * DAY
    stray.hour = long_ago
    stray.save(force_insert=True)
    call_command("rebuild_usage", "--from", "0001-01-01", "--mend-sums")
    assert OrganizationRollup.objects.get().hour != long_ago


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--from", "yesterday"], 2),
        (["--to", "2026-02-30"], 2),
        (["--from", "2020-01-01", "--to", "2020-01-02"], 2),
        (["--organization", "nobody"], 2),
        ([], 1),  # nothing was ever recorded
    ],
)
def test_the_command_refuses_what_it_cannot_compare(
    journal_dir: Path, arguments: list[str], status: int
) -> None:
    with pytest.raises(CommandError) as raised:
        call_command("rebuild_usage", *arguments)
    assert raised.value.returncode == status or "not a day" in str(raised.value)


def test_what_is_in_quarantine_is_not_recorded_either(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued
) -> None:
    call(journal, issued)
    assert journal._segment is not None
    strange = records.HEAD.pack(1, 15, journal._sequence + 1, clock() // 1000)  # of a kind that nobody knows
    with journal._lock:
        journal._segment.put(records.frame(strange))
        journal._sequence += 1
    call(journal, issued)
    journal.close()
    drain_once(clock.now)
    poison = Finding.objects.get()
    assert poison.kind == Finding.Kind.POISON
    result = compare(clock, journal_dir)
    assert (result.groups, result.differences) == (1, [])
    # One that only the database refused is well-formed, and is told by its finding alone.
    found = list(records.read_records(next((journal_dir / FOLDER).iterdir()).read_bytes()))
    last = max(number for number, record in enumerate(found) if record.kind == records.CALL)
    Finding.objects.filter(pk=poison.pk).update(offset=found[last - 1].end)
    (difference,) = compare(clock, journal_dir).differences
    assert (difference.counted, difference.recorded) == ((2, 2), (1, 1))


def test_resources_that_are_booked_as_other_are_compared_together(
    journal: Journal, clock: Clock, journal_dir: Path, issued: lifecycle.Issued, settings: Settings
) -> None:
    settings.USAGE_RESOURCES = 2
    for resource in ("a", "b", "c", "d"):
        labels = "requests", resource, "192.0.2.1", "curl"
        journal.append(Event(issued.key.organization_id, issued.key.pk, issued.secret.pk, 1, 1, labels))
    journal.close()
    drain_once(clock.now)
    assert Rollup.objects.filter(resource="other").exists()
    result = compare(clock, journal_dir)
    assert (result.groups, result.differences) == (1, [])
    Rollup.objects.filter(resource="other").update(calls=9)
    assert len(compare(clock, journal_dir).differences) == 1
