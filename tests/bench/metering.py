"""What counting costs: the journal, the drain with few and many roll-ups there, and the usage page's queries.

`python -m tests.bench.metering [DATABASE_URL] [--large N]` prints it as JSON, on SQLite or on the empty
database that is named. The journal's time is this thread's own; the drain's is this process's and its
database's own; the page's is what passes by the clock within its queries.
"""

import argparse
import datetime as dt
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.inprocess import microseconds
from tests.bench.load import cpu_seconds
from tests.faults import alone

SMALL = 10_000  # roll-ups
ORGANIZATIONS, KEYS = 100, 10  # of each
ROUNDS = 5
_COLUMNS = "organization_id, hour, key_id, meter, resource, outcome, booked_period, calls, quantity"


def _rollups(first: int, last: int, organizations: list[int], keys: list[list[int]]) -> Iterator[Any]:
    """Rows of the table: the organizations' keys hour by hour, back from this one."""
    newest = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    each = ORGANIZATIONS * KEYS
    for number in range(first, last):
        hour = newest - dt.timedelta(hours=number // each + 1)
        owner = number % ORGANIZATIONS
        key = keys[owner][number // ORGANIZATIONS % KEYS]
        period = hour.date().replace(day=1)
        yield organizations[owner], hour, key, "requests", "orders", "VALID", period, 100, 100


def fill(rows: Iterator[Any]) -> None:
    """Write roll-ups straight into their table, and sum them up without their keys."""
    from django.db import connection
    from django.db.models import Max, Min

    from usage import organization_rollups
    from usage.models import Rollup

    connection.ensure_connection()
    (_copy if connection.vendor == "postgresql" else _insert)(connection, rows)
    found = Rollup.objects.aggregate(first=Min("hour"), last=Max("hour"))
    first, last = (found[each].replace(hour=0) for each in ("first", "last"))
    organization_rollups.mend(first, last + dt.timedelta(days=1))
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE usage_rollup, usage_organizationrollup")


def _copy(connection: Any, rows: Iterator[Any]) -> None:
    with (
        connection.connection.cursor() as cursor,
        cursor.copy(f"COPY usage_rollup ({_COLUMNS}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row(row)


def _insert(connection: Any, rows: Iterator[Any]) -> None:
    adapt = connection.ops.adapt_datetimefield_value
    places = ", ".join(["?"] * 9)
    connection.connection.executemany(
        f"INSERT INTO usage_rollup ({_COLUMNS}) VALUES ({places})",
        ((row[0], adapt(row[1]), *row[2:6], str(row[6]), *row[7:]) for row in rows),
    )
    if not connection.in_atomic_block:  # a test takes it all back
        connection.connection.commit()


class Meter:
    """Processor time of this process and of the server of its database connection, in seconds; and memory."""

    def __init__(self) -> None:
        from django.db import connection

        self._server = 0
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                self._server = cursor.fetchone()[0]
        self.peak = 0.0  # MiB of memory of this process's own, the largest that was seen

    def seconds(self) -> float:
        return time.process_time() + (cpu_seconds([self._server]) if self._server else 0.0)

    def look(self, _: int) -> None:
        text = Path("/proc/self/status").read_text()
        kib = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("RssAnon"))
        self.peak = max(self.peak, kib / 1024)


def drained(
    folder: Path, organizations: list[int], keys: list[list[int]], records: int
) -> tuple[float, float]:
    """Write a journal and drain it; µs for a record, and the largest memory meanwhile (MiB)."""
    from django.utils import timezone

    from usage.drain import Drain
    from usage.journal import Event, Journal

    chance = random.Random(1)
    journal = Journal(folder, tick=False)
    for _ in range(records):
        owner = chance.randrange(ORGANIZATIONS)
        labels = "requests", f"GET /{chance.randrange(5)}", f"192.0.2.{chance.randrange(50)}", "bench"
        journal.append(Event(organizations[owner], chance.choice(keys[owner]), 1, 1, 1, labels))
    journal.close()
    meter = Meter()
    began = meter.seconds()
    report = Drain(folder).once(timezone.now(), progress=meter.look)
    assert report.calls == records, report
    return (meter.seconds() - began) / records * 1e6, meter.peak


def page_milliseconds(organization: int) -> float:
    """The database's time for everything that the usage page of an organization asks."""
    from django.db import connection
    from django.http import QueryDict
    from django.utils import timezone

    from keys.models import Organization
    from portal import usage_pages

    spent = 0.0

    def timed(execute: Callable[..., Any], *arguments: Any) -> Any:  # as Django's execute wrappers
        nonlocal spent
        began = time.perf_counter()
        try:
            return execute(*arguments)
        finally:
            spent += time.perf_counter() - began

    owner = Organization.objects.get(pk=organization)
    with connection.execute_wrapper(timed):
        usage_pages.explore(owner, QueryDict(), timezone.now())
    return spent * 1000


def figures(folder: Path, large: int, records: int) -> dict[str, float]:
    from tests import builders
    from usage.journal import Event, Journal

    owners = [builders.organization(f"customer-{n}") for n in range(ORGANIZATIONS)]
    keys = [[builders.key(each, name=f"Key {n}").key.pk for n in range(KEYS)] for each in owners]
    organizations = [each.pk for each in owners]
    found: dict[str, float] = {}
    journal = Journal(folder / "bench", tick=False)
    event = Event(1, 2, 3, 1, 1, ("requests", "orders", "192.0.2.1", "bench"))  # as the gateway, made once
    found["journal, a call"] = microseconds(lambda: journal.append(event))
    journal.close()
    before = 0
    for name, rows in (("10 k", SMALL), ("1 M", large)):
        fill(_rollups(before, rows, organizations, keys))
        before = rows
        rounds = [drained(folder / "drain", organizations, keys, records) for _ in range(ROUNDS + 1)]
        found[f"drain, a record, {name} roll-ups"] = statistics.median(cost for cost, _ in rounds[1:])
        pages = [page_milliseconds(organizations[n]) for n in range(1, ROUNDS + 2)]
        found[f"usage page, ms, {name} roll-ups"] = statistics.median(pages[1:])
    _, most = drained(folder / "drain", organizations, keys, records * 10)
    found["drain, MiB more for ten times the records"] = most - max(peak for _, peak in rounds)
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=100_000, help="drained in a round")
    options = parser.parse_args()
    with alone.portal(options.url) as (_, folder):
        print(json.dumps(figures(folder, options.large, options.records)))


if __name__ == "__main__":
    main()
