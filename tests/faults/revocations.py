"""Revocations under load: once one is confirmed, no call that begins later is allowed, at any worker.

`python -m tests.faults.revocations --keys N --workers W` is the long form, on a database of its own;
`--stop-postgres` takes the database away right after each confirmation, in three ways by turns.
`test_revocations.py` runs a few. Every key is seen allowed at every worker before it is revoked, and called
at every worker after it; nothing passes because nobody looked.
"""

import argparse
import collections
import contextlib
import io
import itertools
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from tqdm import tqdm

from tests.faults import alone
from tests.faults.load import Answer, one_for_each_worker
from tests.faults.postgres import Postgres
from tests.faults.server import Server
from tests.waiting import until

THREADS = 4
AT_ONCE = 8  # commands side by side
IN_A_ROW = 50  # acts after one another, with one wait for the last
BYSTANDERS = 5  # keys that nobody revokes
WAIT = 60  # seconds until a revocation must be confirmed, and each step be seen
# The command asks so often whether everyone has heard (seconds): a gap of milliseconds after that must show.
POLL_SECONDS = 0.002
LONGEST_AWAY = 3.0  # seconds; well within KEYS_STALE_SECONDS


class Target(NamedTuple):
    """A key for the clients: its public id and its secret."""

    id: str
    secret: str


@dataclass
class Seen:
    """What clients saw of one key. Times are monotonic seconds."""

    allowed_at: set[str] = field(default_factory=set)  # spools
    last_allowed: float = float("-inf")  # when the last call that was allowed began
    called_last: dict[str, float] = field(default_factory=dict)  # spool → when the last call there began
    confirmed: float = float("inf")  # the revocation had returned


@dataclass
class Tally:
    """All answers of one run, and how long each confirmation took."""

    codes: collections.Counter[str] = field(default_factory=collections.Counter)
    late: collections.Counter[str] = field(default_factory=collections.Counter)  # began after confirmation
    bystanders: collections.Counter[str] = field(default_factory=collections.Counter)
    spools: set[str] = field(default_factory=set)
    seen: dict[str, Seen] = field(default_factory=lambda: collections.defaultdict(Seen))
    took: list[float] = field(default_factory=list)  # seconds
    stops: int = 0
    failures: list[str] = field(default_factory=list)  # what a client could not make sense of
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def violations(self) -> int:
        """Keys with which a call was allowed that began after their revocation was confirmed."""
        return sum(seen.last_allowed > seen.confirmed for seen in self.seen.values())

    @property
    def never_allowed(self) -> int:
        """Revoked keys that were not seen to work at every worker before; these would prove nothing."""
        return sum(seen.allowed_at != self.spools for seen in self.revoked)

    @property
    def revoked(self) -> list[Seen]:
        return [seen for seen in self.seen.values() if seen.confirmed < float("inf")]

    def add(self, target: Target, answer: Answer) -> None:
        with self.lock:
            seen = self.seen[target.id]
            self.codes[answer.code] += 1
            self.spools.add(answer.spool)
            if answer.status == 200:
                seen.allowed_at.add(answer.spool)
                seen.last_allowed = max(seen.last_allowed, answer.began)
            if answer.began > seen.confirmed:
                self.late[answer.code] += 1
            seen.called_last[answer.spool] = max(answer.began, seen.called_last.get(answer.spool, 0))

    def add_bystander(self, answer: Answer) -> None:
        with self.lock:
            self.codes[answer.code] += 1
            self.bystanders[answer.code] += 1

    def works(self, target: Target, workers: int) -> bool:
        return len(self.seen[target.id].allowed_at) == workers

    def was_called_since(self, target: Target, moment: float, workers: int) -> bool:
        """Has every worker answered a call with this key that began after `moment`?"""
        with self.lock:
            last = list(self.seen[target.id].called_last.values())
        return len(last) == workers and min(last) > moment


class Clients:
    """They call without a pause, each at every worker: the keys in `hot`, some older ones, a bystander."""

    def __init__(
        self, port: int, bystanders: Sequence[Target], workers: int, tally: Tally, seed: int
    ) -> None:
        self._port = port
        self._bystanders = bystanders
        self._workers = workers
        self._tally = tally
        self._seed = seed
        self.hot: list[Target] = []  # replaced, never changed
        self.older: list[Target] = []  # grows
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(THREADS)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        try:
            self._call(random.Random(f"{self._seed} {number}"))
        except BaseException as error:  # a thread's own would be lost
            self._tally.failures.append(repr(error))

    def _call(self, chance: random.Random) -> None:
        callers = one_for_each_worker(self._port, self._bystanders[0].secret, self._workers)
        try:
            while not self._stop.is_set():
                hot = list(self.hot)
                chance.shuffle(hot)
                if older := self.older:
                    hot.append(older[chance.randrange(len(older))])
                for target in hot:
                    for caller in callers.values():
                        self._tally.add(target, caller.ask(target.secret))
                bystander = chance.choice(self._bystanders)
                for caller in callers.values():
                    self._tally.add_bystander(caller.ask(bystander.secret))
        finally:
            for caller in callers.values():
                caller.close()


def _revoke(target: Target, wait: float = WAIT) -> bool:
    """The command, in this process; it ends as a process does. Is the key revoked everywhere?"""
    try:
        call_command("revoke_key", target.id, wait=wait, stdout=io.StringIO(), stderr=io.StringIO())
    except CommandError as error:
        if "is revoked, but not yet confirmed" not in str(error):
            raise
        return False
    finally:
        connections.close_all()
    return True


def _wait_for(condition: Callable[[], bool], tally: Tally, why: str) -> None:
    until(lambda: tally.failures or condition(), WAIT, why=why, pause=0.002)
    assert not tally.failures, tally.failures


def _confirmed(targets: Sequence[Target], began: float, tally: Tally) -> None:
    """Note that the revocation of these keys, which began then, has returned just now."""
    now = time.monotonic()
    with tally.lock:
        tally.took.append(now - began)
        for target in targets:
            tally.seen[target.id].confirmed = now


def _one(target: Target, tally: Tally) -> None:
    began = time.monotonic()
    assert _revoke(target), f"{target.id} was not confirmed within {WAIT} s"
    _confirmed([target], began, tally)


def _in_a_row(targets: Sequence[Target], tally: Tally) -> None:
    """The feed has one order: when the last act is known everywhere, so are those before it."""
    for target in targets[:-1]:
        _revoke(target, wait=0)
    began = time.monotonic()
    assert _revoke(targets[-1]), f"{targets[-1].id} was not confirmed within {WAIT} s"
    _confirmed(targets, began, tally)


def _at_once(targets: Sequence[Target], tally: Tally) -> None:
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for each in [pool.submit(_one, target, tally) for target in targets]:
            each.result()


def _batches(targets: Sequence[Target], chance: random.Random) -> Iterator[Sequence[Target]]:
    """One, a few or many, in any order; each of the three at least once if there are enough."""
    sizes = itertools.chain((1, AT_ONCE, IN_A_ROW), iter(lambda: chance.choice((1, AT_ONCE, IN_A_ROW)), 0))
    start = 0
    while start < len(targets):
        size = next(sizes)
        yield targets[start : start + size]
        start += size


def run(
    targets: Sequence[Target],
    bystanders: Sequence[Target],
    environment: Mapping[str, str],
    log: Path,
    *,
    workers: int = 2,
    seed: int = 1,
    postgres: Postgres | None = None,
) -> Tally:
    """Revoke every target while clients call.

    With `postgres`, the database of `environment`, one after another, and it is away after each.
    """
    from keys import presence  # here: alone, Django must be set up first

    chance = random.Random(seed)
    tally = Tally()
    batches = list(_batches(targets, chance)) if postgres is None else [[target] for target in targets]
    with (
        pytest.MonkeyPatch.context() as patch,
        Server(environment, "--workers", str(workers), "--no-worker", log=log) as server,
        Clients(server.port, bystanders, workers, tally, seed) as clients,
        tqdm(total=len(targets), disable=None, desc="revoked", leave=False) as progress,
    ):
        patch.setattr(presence, "POLL_SECONDS", POLL_SECONDS)
        for batch in batches:
            clients.hot = list(batch)
            _wait_for(lambda: all(tally.works(each, workers) for each in clients.hot), tally, "no key works")
            if len(batch) == 1:
                _one(batch[0], tally)
            elif len(batch) <= AT_ONCE:
                _at_once(batch, tally)
            else:
                _in_a_row(batch, tally)
            if postgres is not None:
                _take_away(postgres, batch[0], tally, workers, chance)
            moment = time.monotonic()
            _wait_for(
                lambda moment=moment: all(  # type: ignore[misc]  # the default binds this round's
                    tally.was_called_since(each, moment, workers) for each in clients.hot
                ),
                tally,
                "nobody called after the revocation",
            )
            clients.older += batch
            progress.update(len(batch))
    return tally


def _take_away(postgres: Postgres, target: Target, tally: Tally, workers: int, chance: random.Random) -> None:
    """The database is gone at once after a confirmation, for a while in which the key is called."""
    away, back = (
        (postgres.stop, postgres.start),
        (postgres.kill, postgres.start),
        (postgres.freeze, postgres.thaw),
    )[tally.stops % 3]
    away()
    moment = time.monotonic()
    tally.stops += 1
    try:
        _wait_for(
            lambda: tally.was_called_since(target, moment, workers), tally, "nobody called while it was away"
        )
        time.sleep(chance.uniform(0, LONGEST_AWAY))
    finally:
        back()


def figures(tally: Tally) -> str:
    after = ", ".join(f"{count} {code}" for code, count in tally.late.most_common())
    stops = f", the database taken away {tally.stops} times" if tally.stops else ""
    return (
        f"{len(tally.revoked)} keys revoked at {len(tally.spools)} workers{stops}: "
        f"{tally.codes.total()} calls, {tally.codes['VALID']} allowed; "
        f"{tally.late.total()} began after the confirmation ({after}); "
        f"{tally.violations} keys were allowed after it; confirmed in {statistics.median(tally.took):.2f} s "
        f"(median), {max(tally.took):.2f} s (longest)"
    )


def complaints(tally: Tally, workers: int) -> list[str]:
    """What is wrong with a run; empty when it proves what it is for."""
    found = list(tally.failures)
    if tally.violations:
        found.append(f"{tally.violations} keys were allowed after their revocation was confirmed")
    if tally.never_allowed:
        found.append(f"{tally.never_allowed} keys were not seen to work at every worker before")
    if len(tally.spools) != workers:
        found.append(f"{len(tally.spools)} of {workers} workers answered")
    if set(tally.bystanders) != {"VALID"}:
        found.append(f"keys that nobody revoked got {dict(tally.bystanders)}")
    if unknown := set(tally.late) - {"VALID", "REVOKED", "UNAVAILABLE"}:
        found.append(f"revoked keys got {sorted(unknown)}")
    return found


def make_targets(count: int) -> tuple[list[Target], list[Target]]:
    """So many new keys of one customer to revoke, and the bystanders."""
    from tests import builders  # here: alone, Django must be set up first

    organization = builders.organization(f"revocations-{os.urandom(4).hex()}")
    issued = [
        builders.key(organization, name=f"Key {number}")
        for number in tqdm(range(count + BYSTANDERS), disable=None, desc="keys", leave=False)
    ]
    targets = [Target(each.key.public_id, each.plaintext) for each in issued]
    return targets[:count], targets[count:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keys", type=int, help="default: 10000, or 50 with --stop-postgres")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--stop-postgres", action="store_true")
    parser.add_argument("--db", choices=["postgres", "sqlite"], default="postgres")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    if options.stop_postgres and options.db == "sqlite":
        parser.error("--stop-postgres needs --db postgres")
    keys = options.keys or (50 if options.stop_postgres else 10_000)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(Postgres()) if options.db == "postgres" else None
        environment, folder = stack.enter_context(alone.portal(postgres.url if postgres else ""))
        targets, bystanders = make_targets(keys)
        tally = run(
            targets,
            bystanders,
            environment,
            folder / "log",
            workers=options.workers,
            seed=options.seed,
            postgres=postgres if options.stop_postgres else None,
        )
        print(figures(tally), f"(seed {options.seed})")
        if found := complaints(tally, options.workers):
            sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
