"""The database goes away under load, stays away until memory may no longer be believed, and comes back.

`python -m tests.faults.outage --rounds N` is the long form: it is stopped, killed and frozen by turns;
`test_database_away.py` has one round. All the while a known key, a key that no worker has read yet, keys that
do not exist and /readyz are asked at every worker; in the end the roll-ups are compared with the answers.
"""

import argparse
import collections
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from django.db import connections

from tests.faults import alone
from tests.faults.load import AUTHORIZE, Answer, one_for_each_worker
from tests.faults.postgres import Postgres
from tests.faults.server import Server
from tests.waiting import until

WORKERS = 2
STALE = 7  # seconds
# A worker's own moment is that of its last read, and it notes one only every twelfth of the time.
SLACK = STALE / 12 + 1
LONGER = 1.5  # seconds away after memory has become too old
RECOVERY = 3  # seconds until all is well, once the database is back
WAIT = 30  # seconds for what has no limit of its own
WAYS: tuple[tuple[str, Callable[[Postgres], None], Callable[[Postgres], None]], ...] = (
    ("stopped", Postgres.stop, Postgres.start),
    ("killed", Postgres.kill, Postgres.start),
    ("frozen", Postgres.freeze, Postgres.thaw),
)


@dataclass
class Record:
    """Every answer, by what was asked: known, new, unknown or ready."""

    answers: dict[str, list[Answer]] = field(default_factory=lambda: collections.defaultdict(list))
    failures: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, answer: Answer) -> None:
        with self.lock:
            self.answers[kind].append(answer)

    def between(self, kind: str, start: float, end: float = float("inf")) -> collections.Counter[str]:
        """Statuses and codes of the calls of this kind that began in [start, end)."""
        with self.lock:
            return collections.Counter(
                f"{answer.status} {answer.code}".strip()
                for answer in self.answers[kind]
                if start <= answer.began < end
            )

    def allowed(self, kind: str) -> int:
        with self.lock:
            return sum(answer.status == 200 for answer in self.answers[kind])


class Clients:
    """They ask without a pause, each at every worker."""

    def __init__(self, port: int, dial: str, known: str, record: Record) -> None:
        self._port = port
        self._dial = dial
        self._known = known
        self._record = record
        self.new = ""  # asked once it is set
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(act,)) for act in (self._customer, self._stranger)
        ]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, act: Callable[[Callable[[str, str, str], None]], None]) -> None:
        try:
            callers = one_for_each_worker(self._port, self._dial, WORKERS).values()

            def ask(kind: str, secret: str, path: str = AUTHORIZE) -> None:
                for caller in callers:
                    self._record.add(kind, caller.ask(secret, path))

            while not self._stop.is_set():
                act(ask)
            for caller in callers:
                caller.close()
        except BaseException as error:  # a thread's own would be lost
            self._record.failures.append(repr(error))

    def _customer(self, ask: Callable[..., None]) -> None:
        ask("known", self._known)

    def _stranger(self, ask: Callable[..., None]) -> None:
        from keys import tokens

        ask("unknown", tokens.mint("lk", "live").plaintext)
        ask("ready", "", "/readyz")
        if new := self.new:
            ask("new", new)
        self._stop.wait(0.02)  # within the budget for keys that memory misses


def run(rounds: int, environment: Mapping[str, str], postgres: Postgres, log: Path) -> list[str]:
    """Returns what is wrong; prints what was seen."""
    from django.db.models import Sum

    from keys.models import Process
    from tests import builders
    from usage.models import Rollup

    organization = builders.organization("outage")
    dial, known = builders.key(organization), builders.key(organization)
    made = [known]
    record = Record()
    wrong: list[str] = []
    environment = {**environment, "KEYS_STALE_SECONDS": str(STALE)}
    with Server(environment, "--workers", str(WORKERS), log=log) as server:
        with Clients(server.port, dial.plaintext, known.plaintext, record) as clients:
            for number in range(rounds):
                clients.new = ""
                name, away, back = WAYS[number % len(WAYS)]
                healthy = time.monotonic()
                _wait_until_well(record, healthy)
                time.sleep(1)  # of health, under load
                pids = list(Process.objects.values_list("pid", flat=True))
                # Nobody reads the feed while the new key is made.
                gone = time.monotonic()
                _signal(pids, signal.SIGSTOP)
                new = builders.key(organization)
                connections.close_all()
                away(postgres)
                noticed = time.monotonic()
                _signal(pids, signal.SIGCONT)
                made.append(new)
                clients.new = new.plaintext
                time.sleep(noticed + STALE + LONGER - time.monotonic())
                returned = time.monotonic()
                back(postgres)
                again = time.monotonic()
                _wait_until_well(record, again, new=True)
                recovery = time.monotonic() - again
                time.sleep(1)
                well = again + recovery
                stages = {
                    "healthy": (healthy, gone),
                    "away": (noticed, gone + STALE - SLACK),
                    "too long": (noticed + STALE, returned),
                    "back": (well, time.monotonic()),
                }
                seen = {
                    stage: {kind: record.between(kind, *times) for kind in EXPECTED[stage]}
                    for stage, times in stages.items()
                }
                wrong += judge(seen, record, noticed, returned)
                if recovery > RECOVERY:
                    wrong.append(f"well again only {recovery:.1f} s after the database was back")
                for stage, kinds in seen.items():
                    print(f"{name}, {stage}: { ({kind: dict(count) for kind, count in kinds.items()}) }")
                print(f"{name}: well again {recovery:.2f} s after the database was back", flush=True)
        wrong += record.failures
        if server.stop() != 0:
            wrong.append("serve did not end in peace")
    answered = record.allowed("known") + record.allowed("new")
    counted = Rollup.objects.filter(key__in=[each.key for each in made], outcome="VALID").aggregate(
        calls=Sum("calls")
    )["calls"]
    print(f"{answered} calls answered 200, {counted} counted")
    if answered != counted:
        wrong.append(f"{answered} calls were answered 200, but {counted} are counted")
    return wrong


# Stage → what is asked → all that may be answered. The first of each must have been.
EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    # A key that does not exist costs a query, and a second's wait for it on a busy machine is 503.
    "healthy": {"known": ("200 VALID",), "unknown": ("401 UNKNOWN", "503 UNAVAILABLE"), "ready": ("200",)},
    "away": {
        "known": ("200 VALID",),
        "new": ("503 UNAVAILABLE",),
        "unknown": ("503 UNAVAILABLE",),
        "ready": ("200",),
    },
    "too long": {
        "known": ("503 UNAVAILABLE",),
        "new": ("503 UNAVAILABLE",),
        "unknown": ("503 UNAVAILABLE",),
        "ready": ("503",),
    },
    "back": {
        "known": ("200 VALID",),
        "new": ("200 VALID",),
        "unknown": ("401 UNKNOWN", "503 UNAVAILABLE"),
        "ready": ("200",),
    },
}


def judge(
    seen: Mapping[str, Mapping[str, collections.Counter[str]]],
    record: Record,
    noticed: float,
    returned: float,
) -> list[str]:
    """What differs from EXPECTED, stage by stage, and what must never be between the stages either."""
    wrong = []
    for stage, kinds in seen.items():
        for kind, count in kinds.items():
            expected = EXPECTED[stage][kind]
            if not count[expected[0]] or set(count) - set(expected):
                wrong.append(f"{stage}: {kind} got {dict(count)}, expected {' or '.join(expected)}")
    for kind in ("known", "new", "unknown"):
        whole = record.between(kind, noticed, returned)
        if strange := {each for each in whole if each not in ("200 VALID", "503 UNAVAILABLE")}:
            wrong.append(f"while the database was away {kind} got {sorted(strange)}")
    return wrong


def _is_well(record: Record, start: float, *, new: bool = False) -> bool:
    """Has every worker answered as it should since `start`, and nothing else lately?"""
    now = time.monotonic()
    window = max(start, now - 0.5)
    kinds = ["known", "ready"] + ["new"] * new
    counts = [record.between(kind, window) for kind in kinds]
    return all(
        count.total() >= 2 * WORKERS and all(status.startswith("200") for status in count) for count in counts
    ) and bool(record.between("unknown", window)["401 UNKNOWN"])


def _wait_until_well(record: Record, start: float, *, new: bool = False) -> None:
    until(
        lambda: record.failures or _is_well(record, start, new=new), WAIT, why="the portal does not get well"
    )
    assert not record.failures, record.failures


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=len(WAYS))
    options = parser.parse_args()
    with Postgres() as postgres, alone.portal(postgres.url) as (environment, folder):
        wrong = run(options.rounds, environment, postgres, folder / "log")
        if wrong:
            sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
