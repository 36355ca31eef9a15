"""Drains that are killed, two at once, or cut off in the middle: each call is counted once.

`python -m tests.faults.drains --kills 300` and `… --cuts 200` are the long forms; `test_drains.py` runs short
ones. A cut is a connection to PostgreSQL (`DATABASE_URL`, or one of its own) that ends after COMMIT was
carried out and before its answer came.
"""

import argparse
import contextlib
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.faults import alone
from tests.faults.postgres import Postgres

BATCH = 100  # records in one transaction, so that there are many
RECORDS = 2000  # written at once when there is little left to drain


def _drain_until_empty(directory: Path, inside: mmap.mmap) -> None:
    """In a child of its own: drain, and say in `inside` when a transaction is open."""
    from django.db import DatabaseError
    from django.utils import timezone

    from usage.drain import Drain

    class Watched(Drain):
        def _transaction(self, *arguments: Any, **options: Any) -> Any:  # as Drain's
            inside[0] = 1
            try:
                return super()._transaction(*arguments, **options)
            finally:
                inside[0] = 0

    drain = Watched(directory, batch=BATCH)
    while any(directory.glob("*.journal")):
        with contextlib.suppress(DatabaseError):  # SQLite, while the other one writes
            drain.once(timezone.now())


class _Child:
    """A drain in a process of its own, to be killed."""

    def __init__(self, directory: Path) -> None:
        self._inside = mmap.mmap(-1, 1)
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                _drain_until_empty(directory, self._inside)
                status = 0
            finally:
                os._exit(status)

    @property
    def is_inside(self) -> bool:
        return self._inside[0] == 1

    def has_ended(self) -> bool:
        return os.waitpid(self.pid, os.WNOHANG) != (0, 0)

    def kill(self) -> bool:
        """SIGKILL; was a transaction open?"""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        return self.is_inside


def kill(backlog: Any, kills: int, chance: random.Random) -> int:  # a Backlog, whose module needs Django
    """Two drains at once, each killed within a transaction, until there were so many kills; returns how many
    processes that took."""
    started = killed = 0
    children: list[_Child] = []
    while killed < kills:
        if len(list(backlog.directory.glob("*.journal"))) < 3:
            backlog.write(RECORDS)
        while len(children) < 2:
            children.append(_Child(backlog.directory))
            started += 1
        child = chance.choice(children)
        deadline = time.monotonic() + 5
        while not child.is_inside and time.monotonic() < deadline:
            if child.has_ended():
                break
        else:
            time.sleep(chance.uniform(0, 0.02))
            if not child.has_ended():
                killed += child.kill()
        children.remove(child)
    for child in children:
        os.waitpid(child.pid, 0)
    return started


def cut(backlog: Any, scissors: Any, cuts: int) -> int:  # as above; Scissors
    """Drain through a door that cuts connections behind their commits; returns the passes that failed."""
    from django.db import DatabaseError
    from django.utils import timezone

    from usage.drain import Drain

    failed = 0
    drain = Drain(backlog.directory, batch=BATCH)
    while scissors.cuts < cuts:
        if backlog.is_drained:
            backlog.write(RECORDS)
        try:
            drain.once(timezone.now())
        except DatabaseError:
            failed += 1
    return failed


def finish(backlog: Any) -> list[str]:  # as above
    """Drain what is left, in peace; returns what is counted wrong."""
    from django.db import DatabaseError
    from django.utils import timezone

    from usage.drain import Drain

    drain = Drain(backlog.directory)
    deadline = time.monotonic() + 120
    while not backlog.is_drained:
        assert time.monotonic() < deadline, "the journals are not drained"
        with contextlib.suppress(DatabaseError):
            drain.once(timezone.now())
    while True:
        try:
            return list(backlog.differences())
        except DatabaseError:  # a cut connection is noticed when it is used
            continue


@contextlib.contextmanager
def _database(needs_postgres: bool) -> Iterator[str]:
    """DATABASE_URL, or one of PostgreSQL's own if that is needed; empty: SQLite."""
    url = os.environ.get("DATABASE_URL", "")
    if needs_postgres and not url.startswith("postgres"):
        with Postgres() as postgres:
            yield postgres.url
    else:
        yield url


@contextlib.contextmanager
def _behind_scissors(url: str) -> Iterator[tuple[str, Any]]:
    """The URL of the same database through Scissors."""
    from tests.faults.scissors import Scissors

    host = parse_qs(urlsplit(url).query)["host"][0]
    with (
        tempfile.TemporaryDirectory(prefix="latchkey-cut-", dir="/tmp") as name,
        Scissors(Path(name), Path(host), share=0.0) as scissors,
    ):
        yield url.replace(host, name), scissors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kills", type=int, default=0)
    what.add_argument("--cuts", type=int, default=0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url, scissors = stack.enter_context(_database(options.cuts > 0)), None
        if options.cuts:
            url, scissors = stack.enter_context(_behind_scissors(url))
        _, folder = stack.enter_context(alone.portal(url))
        from portal.serving import release_database
        from tests import builders
        from tests.faults.backlog import Backlog

        organization = builders.organization(f"drains-{options.seed}")
        keys = [builders.key(organization, name=f"key {n}").key.pk for n in range(10)]
        backlog = Backlog(folder / "backlog", organization.pk, keys, seed=options.seed)
        release_database()  # before a fork
        if scissors is None:
            started = kill(backlog, options.kills, random.Random(options.seed))
            what_was_done = f"{options.kills} kills within a transaction, of {started} drains, two at once"
        else:
            scissors.share = 0.5
            failed = cut(backlog, scissors, options.cuts)
            scissors.share = 0.0
            what_was_done = f"{scissors.cuts} connections cut behind COMMIT, {failed} passes failed by it"
        wrong = finish(backlog)
        print(f"{what_was_done}: {backlog.calls} calls, {len(wrong)} groups counted wrong ({options.seed})")
        if wrong:
            sys.exit("\n".join(wrong[:10]))


if __name__ == "__main__":
    main()
