"""PostgreSQL killed while a worker drains, and away while calls go on: each call is counted once.

`python -m tests.faults.crashes --kills 50 --away 1000000` is the long form, on a PostgreSQL of its own;
`test_crashes.py` runs a short one. It prints how fast the worker took up what had gathered meanwhile.
"""

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.faults import alone
from tests.faults.postgres import Postgres
from tests.faults.server import ROOT, wait_until_gone
from tests.waiting import until

RECORDS = 20_000  # written between two kills
SECONDS = 300.0  # for a backlog to drain


@contextlib.contextmanager
def _worker(environment: Mapping[str, str], log: Path) -> Iterator[int]:
    """A `worker` of its own; yields its process id."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "manage.py"), "worker"],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            yield process.pid
        finally:
            process.kill()
            process.wait()
            wait_until_gone([process.pid], 5)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _wait_until_drained(backlog: Any, log: Path) -> None:  # a Backlog, whose module needs Django
    until(lambda: backlog.is_drained, SECONDS, why=lambda: log.read_text()[-4000:])


def run(
    postgres: Postgres,
    backlog: Any,  # as above
    environment: Mapping[str, str],
    log: Path,
    *,
    kills: int,
    away: int,
    chance: random.Random,
) -> tuple[float, float]:
    """Kill PostgreSQL so often, then let `away` calls gather without it; returns the seconds until they were
    counted, and the worker's own in them."""
    with _worker(environment, log) as pid:
        for _ in range(kills):
            backlog.write(RECORDS)
            time.sleep(chance.uniform(0.2, 1.5))
            postgres.kill()
            postgres.start()
        _wait_until_drained(backlog, log)
        postgres.kill()
        backlog.write(away, segment_bytes=64 * 1024 * 1024)
        before = _cpu_seconds(pid)
        postgres.start()
        began = time.monotonic()
        _wait_until_drained(backlog, log)
        return time.monotonic() - began, _cpu_seconds(pid) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--away", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with Postgres() as postgres, alone.portal(postgres.url) as (environment, folder):
        from portal.serving import release_database
        from tests import builders
        from tests.faults.backlog import Backlog

        organization = builders.organization("crashes")
        keys = [builders.key(organization, name=f"key {n}").key.pk for n in range(10)]
        journals = Path(environment["USAGE_JOURNAL_DIR"])
        backlog = Backlog(journals, organization.pk, keys, seed=options.seed)
        release_database()
        seconds, worked = run(
            postgres,
            backlog,
            environment,
            folder / "log",
            kills=options.kills,
            away=options.away,
            chance=random.Random(options.seed),
        )
        wrong = list(backlog.differences())
        print(
            f"PostgreSQL killed {options.kills} times, then away: {backlog.calls} calls, {len(wrong)} groups "
            f"counted wrong. The {options.away} that had gathered took {seconds:.1f} s, {worked:.1f} s of "
            f"the worker's processor: {options.away / max(worked, 0.01):,.0f}/s of it (seed {options.seed})"
        )
        if wrong:
            sys.exit("\n".join(wrong[:10]))


if __name__ == "__main__":
    main()
