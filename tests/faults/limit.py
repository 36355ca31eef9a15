"""Many calls at once with one key that has a limit: how many are allowed, and who says so.

`run` is for any number of workers; what is allowed in all is the limit only where windows are shared.
"""

import collections
import threading
import time
from dataclasses import dataclass, field

from tests.faults.load import Caller

HOUR = 3600


@dataclass
class Outcome:
    """`without_retry` are refusals by the limit that do not say when to come again, in whole seconds ≥ 1."""

    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    spools: set[str] = field(default_factory=set)
    without_retry: int = 0
    hours: set[int] = field(default_factory=set)  # in which it ran; two mean two windows of an hour's limit


def run(port: int, secret: str, *, calls: int = 1000, threads: int = 100) -> Outcome:
    """Make `calls` calls through `threads` connections, all begun together; threads divide calls."""
    assert calls % threads == 0
    outcome = Outcome()
    lock = threading.Lock()
    together = threading.Barrier(threads)
    failures: list[BaseException] = []

    def call() -> None:
        caller = Caller(port)
        answers = []
        try:
            together.wait(timeout=30)
            answers += [caller.ask(secret) for _ in range(calls // threads)]
        except BaseException as error:  # a thread's own would be lost
            failures.append(error)
        finally:
            caller.close()
        with lock:
            for answer in answers:
                outcome.statuses[answer.status] += 1
                outcome.spools.add(answer.spool)
                if answer.status == 429:
                    retry = answer.retry_after or ""
                    outcome.without_retry += not (retry.isdigit() and 1 <= int(retry) <= HOUR)

    outcome.hours.add(int(time.time()) // HOUR)
    everyone = [threading.Thread(target=call) for _ in range(threads)]
    for thread in everyone:
        thread.start()
    for thread in everyone:
        thread.join()
    outcome.hours.add(int(time.time()) // HOUR)
    if failures:
        raise failures[0]
    return outcome
