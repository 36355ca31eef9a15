"""What customers' pages cost at 1,000 keys and a million roll-ups: queries, time, and what a browser loads.

`python -m tests.bench.pages [DATABASE_URL] [--keys N] [--rows N]` asks every page in this process, on the
empty PostgreSQL that is named or on one of its own, prints a table and writes it into the README beside it.
All keys and rows are one customer's, spread over the days for which usage is kept by the hour.
"""

import argparse
import contextlib
import datetime as dt
import gzip
import re
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench import report
from tests.bench.metering import fill
from tests.faults import alone
from tests.faults.postgres import Postgres

if TYPE_CHECKING:
    from django.test import Client

    from keys.models import Key, Organization

ROUNDS = 11
DAYS = 400  # the default of USAGE_DETAIL_DAYS
MUST_QUERIES, MUST_MS, MUST_KB = 12, 60, 100
PAGES = {
    "overview": "",
    "keys": "keys/",
    "keys, by calls": "keys/?sort=-calls",
    "keys, searched": "keys/?q=77",
    "a key": "keys/KEY/",
    "create a key": "keys/new/",
    "edit a key": "keys/KEY/edit/",
    "try a key": "keys/KEY/try/?tried=1&rates=10/minute",
    "rotate a key": "keys/KEY/rotate/",
    "revoke a key": "keys/KEY/revoke/",
    "a key's leaks": "keys/KEY/leaks/",
    "attention": "attention/",
    "usage": "usage/",
    "usage, by key": "usage/?by=key",
    "usage, compared": "usage/?range=month&compare=on",
    "usage of a key": "usage/?key=KEY",
    "refusals": "refusals/",
    "refusals of a key": "refusals/?key=KEY",
    "billing": "billing/",
    "billing, by key": "billing/?by=key",
    "a statement": "billing/MONTH/",
    "team": "team/",
    "activity": "activity/",
}
_ASSET = re.compile(r'(?:href|src)="/static/([^"]+\.(?:css|js))"')


class Cost(NamedTuple):
    """What a page costs: queries, their milliseconds, all of the server's, and KB of the first load."""

    queries: int
    database: float
    server: float
    kilobytes: float


def prepare(keys: int, rows: int) -> tuple["Client", "Organization", "Key", str]:
    """The customer, a browser of its owner, one of its keys, and a month that is closed."""
    from django.db import connection
    from django.test import Client
    from django.utils import timezone

    from keys import lifecycle
    from keys.models import Key, Secret
    from tests import builders
    from usage import watch
    from usage.billing import Period
    from usage.models import QuotaUse, Refusal, SecretUse, Spool

    now = timezone.now()
    owner = builders.user("alice")
    acme = builders.organization("acme", owner)
    scopes = ("orders:read", "orders:write", "invoices:read")
    first = builders.key(acme, scopes=scopes, expires_at=now + dt.timedelta(days=9))
    closed = builders.closed_month(acme, first.key)
    plan = builders.version("standard", fee=4900, requests={"unit_price": "0.0001", "included": 1000})
    builders.subscription(acme, plan, Period.of(now).previous.start)
    actor = lifecycle.command_actor()
    lifecycle.edit_policy(actor, acme.policy, quotas=["1000000000/month"], now=now)
    builders.alert(acme)
    month = Period.of(now).start
    QuotaUse.objects.create(organization=acme, key_id=0, meter="requests", unit="month", start=month, spent=9)
    Spool.objects.create(id="aaaaaaaaaaa", host="bench", pid=7, started_at=now, watermark=now)
    Key.objects.bulk_create(
        Key(organization=acme, name=f"Backend {n}", created_at=now, metadata={"team": str(n % 7)})
        for n in range(1, keys)
    )
    found = list(acme.keys.select_related("organization__policy", "created_by").order_by("pk"))
    Secret.objects.bulk_create(
        Secret(
            key=key, digest=key.pk.to_bytes(32, "big"), prefix="lk", hint=f"{key.pk:04}"[-4:], created_at=now
        )
        for key in found[1:]
    )
    SecretUse.objects.bulk_create(
        SecretUse(secret_id=pk, calls=9, last_used_at=now, address="203.0.113.9")
        for pk in Secret.objects.values_list("pk", flat=True)
    )
    through = Key.scopes.through
    scope = builders.scope(scopes[0])
    through.objects.bulk_create(through(key=key, scope=scope) for key in found[1:])
    fill(_rollups(acme.pk, [key.pk for key in found], rows))
    Refusal.objects.bulk_create(
        Refusal(
            spool="aaaaaaaaaaa",
            sequence=n + 1,
            at=now - dt.timedelta(minutes=n),
            organization=acme,
            key=found[n % keys],
            outcome="RATE_LIMITED",
            address="203.0.113.9",
        )
        for n in range(10_000)
    )
    for some in range(0, keys, 200):
        watch.refresh(found[some : some + 200], timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")  # of all that is new, as autovacuum would before long
    return builders.signed_in(Client(SERVER_NAME="localhost"), owner), acme, first.key, str(closed)


def _rollups(organization: int, keys: list[int], rows: int) -> Iterator[Any]:
    """Rows of the table, as many in each hour of `DAYS`, the keys in turn; every tenth was refused."""
    newest = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0)
    for number in range(rows):
        hour = newest - dt.timedelta(hours=number * DAYS * 24 // rows)
        outcome = "RATE_LIMITED" if number % 10 == 0 else "VALID"
        quantity = 0 if number % 10 == 0 else 100
        key = keys[number % len(keys)]
        period = hour.date().replace(day=1)
        yield organization, hour, key, "requests", "orders", outcome, period, 100, quantity


def path(name: str, organization: "Organization", key: "Key", month: str) -> str:
    """The address of one of `PAGES`."""
    return f"/o/{organization.slug}/" + PAGES[name].replace("KEY", key.public_id).replace("MONTH", month)


def costs(browser: "Client", paths: Mapping[str, str], rounds: int) -> dict[str, Cost]:
    """By name of a page the medians of some rounds. All pages are asked in turn, round after round, so that a
    slow moment of the machine is everyone's; each twice, once to warm up."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with connection.cursor() as cursor:
        cursor.execute("SET max_parallel_workers_per_gather = 0")  # whose time would be nobody's
        cursor.execute("SELECT pg_backend_pid()")
        database = int(cursor.fetchone()[0])
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in paths}
    for _ in range(rounds):
        for name, path in paths.items():
            browser.get(path)
            began = time.thread_time(), _seconds_of(database)
            response = browser.get(path)
            ended = time.thread_time(), _seconds_of(database)
            taken[name].append((ended[0] - began[0], ended[1] - began[1]))
            assert response.status_code == 200, (path, response.status_code)
    found = {}
    for name, path in paths.items():
        own, its = (statistics.median(each) * 1000 for each in zip(*taken[name], strict=True))
        with CaptureQueriesContext(connection) as captured:
            response = browser.get(path)
        found[name] = Cost(len(captured), its, own + its, first_load(response.content) / 1000)
    return found


def _seconds_of(pid: int) -> float:
    """Processor time of a process that waits, so far; the clock would tell of what else runs here."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def first_load(page: bytes) -> int:
    """Bytes of a page with its styles and scripts, all compressed."""
    from django.contrib.staticfiles import finders

    found = {match.decode() for match in re.findall(_ASSET.pattern.encode(), page)}
    files = [Path(str(finders.find(name))).read_bytes() for name in sorted(found)]
    return sum(len(gzip.compress(each, 9)) for each in (page, *files))


def table(found: Mapping[str, Cost], keys: int, rows: int) -> str:
    """The figures in Markdown, each page's worst ratio to its limit at the end."""
    lines = [
        f"| {keys:,} keys, {rows:,} roll-ups | queries (≤ {MUST_QUERIES}) | their ms "
        f"| server ms (≤ {MUST_MS}) | first load, KB (≤ {MUST_KB}) | of its limit |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        ratio = max(each.queries / MUST_QUERIES, each.server / MUST_MS, each.kilobytes / MUST_KB)
        shown = f"{ratio:.2f}" if ratio <= 1 else f"**{ratio:.2f}**"
        lines.append(
            f"| {name} | {each.queries} | {each.database:.1f} | {each.server:.1f} | {each.kilobytes:.0f} "
            f"| {shown} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", nargs="*", default=list(PAGES), help="names of pages; nothing is written")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(Postgres()).url
        stack.enter_context(alone.portal(url))
        browser, acme, key, month = prepare(options.keys, options.rows)
        paths = {name: path(name, acme, key, month) for name in options.only}
        found = table(costs(browser, paths, options.rounds), options.keys, options.rows)
    print(found)
    if options.only == list(PAGES):
        report.replace("pages", found)


if __name__ == "__main__":
    main()
