"""Journals for tests of what is done with them: written at a time set by hand, killed, damaged, drained."""

import datetime as dt
from pathlib import Path

from keys.models import Key
from keys.verdicts import Code
from usage.journal import Event, Journal
from usage.models import ResponseRollup, Rollup
from usage.records import HELD

START = 1_790_812_800 * 1_000_000_000  # 2026-10-01 00:00 UTC, in ns
SECOND = 1_000_000_000
BEGIN = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 10, 1, 12, tzinfo=dt.UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def call(
    journal: Journal,
    *,
    key: int = 2,
    code: Code = Code.VALID,
    cost: int = 1,
    organization: int = 1,
    resource: str = "",
    agent: str = "curl",
) -> None:
    labels = "requests", resource, "192.0.2.1", agent
    journal.append(Event(organization, key, key * 10, code.number, cost, labels))


def hold(
    journal: Journal, key: Key, cost: int = 10, *, kind: int = HELD, code: int = 1, meter: str = "requests"
) -> str:
    """The request id of a call that was held."""
    labels = meter, "chat", "192.0.2.1", "curl"
    sequence = journal.append(Event(key.organization_id, key.pk, 1, code, cost, labels, kind=kind))
    return journal.request_id(sequence)


def path_of(journal: Journal) -> Path:
    """The segment that it writes to."""
    assert journal._segment is not None
    return journal._segment.path


def kill(journal: Journal) -> None:
    """Let go of the file as a killed process does: no seal, the lock free."""
    assert journal._segment is not None
    journal._segment.let_go()
    journal._segment = None


def write_behind(journal: Journal, data: bytes) -> None:
    """Bytes behind the last record, as a kill in the middle of one leaves them."""
    assert journal._segment is not None
    with journal._segment.path.open("r+b") as file:
        file.seek(journal._segment.size)
        file.write(data)


def undrained(folder: Path) -> list[str]:
    """The names of what lies in the folder, without what is kept."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def kept(folder: Path) -> list[str]:
    """The names of the drained journals that are kept."""
    return sorted(path.name for path in (folder / "drained").glob("*"))


def totals() -> dict[tuple[int, str], tuple[int, int]]:
    """(key, outcome) → calls and quantity."""
    found: dict[tuple[int, str], tuple[int, int]] = {}
    for row in Rollup.objects.all():
        calls, quantity = found.get((row.key_id, row.outcome), (0, 0))
        found[row.key_id, row.outcome] = calls + row.calls, quantity + row.quantity
    return found


def responses() -> dict[tuple[int, int], int]:
    """(key, class of the status) → responses."""
    found: dict[tuple[int, int], int] = {}
    for row in ResponseRollup.objects.all():
        found[row.key_id, row.status_class] = found.get((row.key_id, row.status_class), 0) + row.responses
    return found
