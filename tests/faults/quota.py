"""Workers are killed while they spend one hard quota: it is never exceeded, and all of it can be spent.

`python -m tests.faults.quota --kills N` is the long form, on a database of its own; `test_quota.py` has
a few. First calls come at a pace that leaves time for kills, then as fast as they can until nothing is left.
"""

import argparse
import collections
import math
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import alone
from tests.faults.load import Caller, NoAnswer, NoServer
from tests.faults.server import Server, is_running
from tests.waiting import until

if TYPE_CHECKING:
    from keys.lifecycle import Issued
    from keys.models import Key

LIMIT = 1000
THREADS = 8
PACED = 0.6  # of the limit, in all that while
KILL_SECONDS = 1.5  # from one kill to the next
SILENT_SECONDS = 1.0  # of refusals, once the ledger says that all is spent
PATIENCE = 60.0  # seconds without an allowed call, whatever the ledger says
WITHIN = 2.0  # seconds of hammering, which begins with the last kill, in which the limit must be reached


@dataclass
class Tally:
    """What the clients saw; times are monotonic."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    in_doubt: int = 0
    first_refused: float = float("inf")
    last_allowed: float = 0.0
    hammered_from: float = 0.0
    ways: set[str] = field(default_factory=set)  # codes of refusals
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def allowed(self) -> int:
        return self.statuses[200]


def _load(port: int, secret: str, tally: Tally, stop: threading.Event, pause: list[float]) -> None:
    caller = Caller(port)
    while not stop.wait(pause[0]):
        try:
            answer = caller.ask(secret)
        except NoServer:
            time.sleep(0.02)
            continue
        except NoAnswer:
            with tally.lock:
                tally.in_doubt += 1
            continue
        now = time.monotonic()
        with tally.lock:
            tally.statuses[answer.status] += 1
            if answer.status == 200:
                tally.last_allowed = now
            else:
                tally.ways.add(answer.code)
                if answer.status == 429:
                    tally.first_refused = min(tally.first_refused, now)
    caller.close()


def run(
    kills: int,
    issued: "Issued",
    environment: Mapping[str, str],
    log: Path,
    *,
    workers: int = 2,
    seed: int = 1,
) -> Tally:
    """Spend, kill a worker at a time, spend what is left, and end in peace, so that all is drained."""
    from django.db import connections

    chance, tally, stop = random.Random(seed), Tally(), threading.Event()
    pause = [THREADS * KILL_SECONDS * max(kills, 1) / (LIMIT * PACED)]
    with Server(environment, "--workers", str(workers), log=log) as server:
        threads = [
            threading.Thread(target=_load, args=(server.port, issued.plaintext, tally, stop, pause))
            for _ in range(THREADS)
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in range(kills):
                time.sleep(chance.uniform(0.7, 1.3) * KILL_SECONDS)
                os.kill(_oldest_worker(workers), signal.SIGKILL)
            tally.hammered_from = time.monotonic()
            pause[0] = 0.0
            silent = 0.0
            while silent < PATIENCE and not (silent > SILENT_SECONDS and _is_spent(issued.key)):
                time.sleep(0.1)
                silent = time.monotonic() - max(tally.last_allowed, tally.hammered_from)
            connections.close_all()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert server.stop() == 0
    return tally


def _oldest_worker(workers: int) -> int:
    """Its process id, once all serve. (Who kills the one that was started last ends the server.)"""
    from keys.models import Process

    def oldest() -> int | None:
        pids = Process.objects.order_by("started_at").values_list("pid", flat=True)
        running = [pid for pid in pids if is_running(pid)]
        return running[0] if len(running) >= workers else None

    return until(oldest, why="nobody serves any more", pause=0.05)


def _is_spent(key: "Key") -> bool:
    """Does the ledger hold all of the limit as used?"""
    from usage.models import QuotaUse

    return QuotaUse.objects.filter(key_id=key.pk, spent__gte=LIMIT).exists()


def judge(tally: Tally, counted: int, *, within: float = math.inf) -> list[str]:
    """What is wrong: `counted` is what the roll-ups hold in the end, `within` are seconds of hammering."""
    wrong = []
    if counted > LIMIT or tally.allowed > LIMIT:
        wrong.append(f"{max(counted, tally.allowed)} calls were allowed, {LIMIT} may be")
    if not tally.allowed <= counted <= tally.allowed + tally.in_doubt:
        wrong.append(f"{tally.allowed} calls were answered 200, {counted} are counted")
    if counted < LIMIT:
        wrong.append(f"only {counted} of {LIMIT} could be spent")
    if tally.last_allowed - tally.hammered_from > within:
        wrong.append(f"the last was allowed only after {tally.last_allowed - tally.hammered_from:.1f} s")
    if strange := tally.ways - {"QUOTA_EXCEEDED", "UNAVAILABLE"}:
        wrong.append(f"refused as {sorted(strange)}")
    return wrong


def figures(kills: int, tally: Tally, counted: int) -> str:
    reached = tally.last_allowed - tally.hammered_from
    return (
        f"{kills} kills: {tally.allowed} calls answered 200, {counted} counted of a quota of {LIMIT}, "
        f"{tally.in_doubt} in doubt, {tally.statuses[429]} refused, {tally.statuses[503]} unavailable; "
        f"the last allowed after {reached:.2f} s of hammering"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with alone.portal(os.environ.get("DATABASE_URL", "")) as (environment, folder):
        from django.db import connections
        from django.db.models import Sum

        from tests import builders
        from usage.models import Rollup

        wrong = []
        for number in range(options.rounds):
            organization = builders.organization(f"quota-{options.seed}-{number}")
            issued = builders.key(organization, quotas=[f"{LIMIT}/month"])
            connections.close_all()
            seed = options.seed + number
            tally = run(options.kills, issued, environment, folder / "log", seed=seed)
            valid = Rollup.objects.filter(key=issued.key, outcome="VALID")
            counted = valid.aggregate(sum=Sum("quantity"))["sum"] or 0
            print(figures(options.kills, tally, counted), f"(seed {seed})", flush=True)
            wrong += judge(tally, counted, within=WITHIN)
        if wrong:
            sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
