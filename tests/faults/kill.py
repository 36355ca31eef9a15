"""Kill -9 of everything that `serve` started, again and again, under load: nothing answered may be lost.

`python -m tests.faults.kill --rounds N` is the long form, on a database of its own; `test_kill.py` runs a few
rounds. What a client saw answered is compared with what the roll-ups hold. Ctrl-C ends it after this round.
"""

import argparse
import collections
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import alone
from tests.faults.load import AUTHORIZE, Caller, NoAnswer, NoServer
from tests.faults.server import Server, free_port

COST = 3
THREADS = 4
PATIENCE = 120.0  # seconds that a busy machine may take to serve


@dataclass
class Tally:
    """What the clients saw. A call is in doubt when it was sent and its answer never came."""

    rounds: int = 0
    answered: collections.Counter[str] = field(default_factory=collections.Counter)  # by spool
    requests: set[str] = field(default_factory=set)
    repeated: int = 0
    in_doubt: int = 0
    refused: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def total(self) -> int:
        return sum(self.answered.values())

    def add(self, status: int, request: str) -> None:
        with self.lock:
            if status != 200:
                self.refused += 1
                return
            self.repeated += request in self.requests
            self.requests.add(request)
            self.answered[request.partition("-")[0]] += 1

    def doubt(self) -> None:
        with self.lock:
            self.in_doubt += 1


def _load(port: int, secret: str, tally: Tally, stop: threading.Event) -> None:
    """Call until told to stop or the server is gone."""
    caller = Caller(port)
    while not stop.is_set():
        try:
            answer = caller.ask(secret, f"{AUTHORIZE}?cost={COST}")
        except NoServer:
            return
        except NoAnswer:
            tally.doubt()
            continue
        tally.add(answer.status, answer.request)
    caller.close()


def run(
    rounds: int,
    secret: str,
    environment: Mapping[str, str],
    log: Path,
    *,
    workers: int = 2,
    seed: int = 1,
    enough: threading.Event | None = None,
) -> Tally:
    """Serve, call, kill; `rounds` times; then once more, but end in peace, so that all is drained."""
    tally = Tally()

    def load(port: int, stop: threading.Event) -> None:
        _load(port, secret, tally, stop)

    tally.rounds = kill_under(load, rounds, environment, log, workers=workers, seed=seed, enough=enough)
    return tally


def kill_under(
    load: Callable[[int, threading.Event], None],
    rounds: int,
    environment: Mapping[str, str],
    log: Path,
    *,
    workers: int,
    seed: int,
    longest: float = 1.5,
    enough: threading.Event | None = None,
) -> int:
    """Serve on some port, have several threads load it, kill, `rounds` times or until it is `enough`; then
    once more, in peace. Returns how many were killed."""
    chance, kills, ends = random.Random(seed), 0, False
    while not ends:
        ends = kills == rounds or (enough is not None and enough.is_set())
        stop = threading.Event()
        waiting = Server(environment, "--workers", str(workers), log=log, port=free_port())
        waiting.ready_seconds = PATIENCE
        with waiting as server:
            threads = [threading.Thread(target=load, args=(server.port, stop)) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.2, longest))
            if ends:
                assert server.stop() == 0
            else:
                server.kill()
                kills += 1
            stop.set()
            for thread in threads:
                thread.join()
    return kills


def figures(tally: Tally, counted: int) -> str:
    return (
        f"{tally.rounds} kills: {tally.total} calls answered 200, {counted} counted, "
        f"{tally.in_doubt} in doubt, {tally.refused} refused, {tally.repeated} ids given twice"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2, help="that serve, and are all killed in each round")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with alone.portal(os.environ.get("DATABASE_URL", "")) as (environment, folder):
        from django.db import connections
        from django.db.models import Sum
        from django.utils import timezone

        from tests import builders
        from usage.drain import drain_once
        from usage.models import Rollup

        secret = builders.key(builders.organization(f"kill-{options.seed}")).plaintext
        before = Rollup.objects.filter(outcome="VALID").aggregate(calls=Sum("calls"))["calls"] or 0
        connections.close_all()
        enough = threading.Event()
        signal.signal(signal.SIGINT, lambda *_: enough.set())
        chosen = {"workers": options.workers, "seed": options.seed, "enough": enough}
        tally = run(options.rounds, secret, environment, folder / "log", **chosen)
        for problem in drain_once(timezone.now()).problems:  # what `serve` had no time for at its end
            print(problem)
        after = Rollup.objects.filter(outcome="VALID").aggregate(calls=Sum("calls"))["calls"] or 0
        counted = after - before
        print(figures(tally, counted), f"({options.workers} workers each; seed {options.seed})")
        if tally.repeated or not tally.total <= counted <= tally.total + tally.in_doubt:
            sys.exit("Lost or repeated.")


if __name__ == "__main__":
    main()
