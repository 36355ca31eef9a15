"""Journals with many calls in them, and the check that the roll-ups hold each of them once."""

import collections
import random
from collections.abc import Iterator
from pathlib import Path

from usage.journal import Event, Journal
from usage.records import CALL, read_records

VALID, REFUSED = 1, 13  # numbers of codes
AGENTS = ("curl/8", "load/1", "load/2")

# (organization, key, hour in µs, resource, number of the code) → [calls, cost]
type Counts = dict[tuple[int, int, int, str, int], list[int]]


class Backlog:
    """Calls of some keys, written by as many processes' journals as it is told; `counts` is what was written.

    Some journals are left as a killed process leaves them, not sealed.
    """

    def __init__(self, directory: Path, organization: int, keys: list[int], *, seed: int) -> None:
        self.directory = directory
        self.calls = 0
        self._organization = organization
        self._keys = keys
        self._chance = random.Random(seed)
        self._counts: Counts = collections.defaultdict(lambda: [0, 0])

    def write(self, calls: int, *, segment_bytes: int = 200_000) -> None:
        """One more journal with so many calls."""
        journal = Journal(self.directory, tick=False, segment_bytes=segment_bytes)
        choose = self._chance.choice
        for _ in range(calls):
            labels = "requests", f"GET /{self._chance.randrange(20)}", "192.0.2.1", choose(AGENTS)
            code = VALID if self._chance.random() < 0.9 else REFUSED
            cost = self._chance.randrange(1, 5)
            journal.append(Event(self._organization, choose(self._keys), 0, code, cost, labels))
        if self._chance.random() < 0.5:
            journal.close()
        else:
            journal.forget()
        # From the files, not from what was asked for: whatever is whole there must be counted.
        for path in self.directory.glob(f"{journal.spool}.*.journal"):
            self._note(path)

    def _note(self, path: Path) -> None:
        for record in read_records(path.read_bytes()):
            if record.kind == CALL:
                hour = record.time - record.time % 3_600_000_000
                group = record.organization, record.key, hour, record.resource, record.code
                self._counts[group][0] += record.calls
                self._counts[group][1] += record.cost if record.code == VALID else 0
                self.calls += record.calls

    @property
    def is_drained(self) -> bool:
        return not any(self.directory.glob("*.journal"))

    def differences(self) -> Iterator[str]:
        """What the roll-ups of the organization have otherwise than the journals had it."""
        from usage.models import Rollup
        from usage.rollups import moment, outcome_name

        expected = {
            (key, moment(hour), resource, outcome_name(code)): (calls, quantity)
            for (_, key, hour, resource, code), (calls, quantity) in self._counts.items()
        }
        found = {
            (row.key_id, row.hour, row.resource, row.outcome): (row.calls, row.quantity)
            for row in Rollup.objects.filter(organization=self._organization)
        }
        for group in sorted(expected.keys() | found.keys()):
            if expected.get(group) != found.get(group):
                yield f"{group}: written {expected.get(group)}, counted {found.get(group)}"
