"""How long a month takes to be closed and exported, and how much memory, with few and many roll-ups.

`python -m tests.bench.billing [DATABASE_URL] [--keys N] [--rows N]` prints it as JSON, on the empty
PostgreSQL that is named or on one of its own: first with a tenth of the rows, in the month before, then with
all. The commands run as processes of their own; their time is the clock's, with what the database takes.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults import alone
from tests.faults.postgres import Postgres

if TYPE_CHECKING:
    from usage.billing import Period

ORGANIZATIONS = 1000
METERS = ("requests", "tokens", "gigabytes")
TIERS: list[dict[str, Any]] = [
    {"up_to": 10_000, "unit_price": "0.002"},
    {"up_to": 100_000, "unit_price": "0.0015"},
    {"up_to": None, "unit_price": "0.00123"},
]
PRICES: dict[str, dict[str, Any]] = {
    "requests": {"model": "graduated", "tiers": TIERS, "included": 1000},
    "tokens": {"unit_price": "0.000013", "included": 50_000},
    "gigabytes": {"model": "package", "package": 1000, "unit_price": "0.25"},
}

# Hours of the month, as many for each key and meter as make up the rows.
_USE = """
INSERT INTO usage_rollup
  (organization_id, hour, key_id, meter, resource, outcome, booked_period, calls, quantity)
SELECT key.organization_id, %(start)s::timestamptz + hour * interval '1 hour', key.id, meter, '', 'VALID',
  %(period)s, 10, 1 + (key.id * 7 + hour * 13) %% 100
FROM keys_key AS key, unnest(%(meters)s::text[]) AS meter, generate_series(0, %(hours)s - 1) AS hour
ORDER BY key.organization_id, 2, key.id, meter
"""


def prepare(keys: int, since: "Period") -> None:
    """Organizations with their keys, subscribed from that month on."""
    from django.db import connection
    from django.utils import timezone

    from keys.models import Key, Organization
    from tests import builders
    from usage.models import Subscription

    for name in METERS[1:]:
        builders.meter(name)
    version = builders.version("bench", currency="USD", fee=4900, **PRICES)
    first = builders.organization("customer-0000")
    policy, now = first.policy, timezone.now()
    Organization.objects.bulk_create(
        Organization(slug=f"customer-{n:04}", name=f"Customer {n}", policy=policy, created_at=now)
        for n in range(1, ORGANIZATIONS)
    )
    owners = list(Organization.objects.order_by("slug"))
    Subscription.objects.bulk_create(
        Subscription(organization=each, version=version, start=since.start, created_at=now) for each in owners
    )
    with connection.connection.cursor() as cursor:
        with cursor.copy(
            f"COPY {Key._meta.db_table} (public_id, organization_id, environment, name, networks, rates,"
            " quotas, metadata, revoked_reason, created_at) FROM STDIN"
        ) as copy:
            for n in range(keys):
                owner = owners[n % ORGANIZATIONS]
                copy.write_row(
                    (f"key_{n:016d}", owner.pk, "live", f"Backend {n}", "[]", "[]", "[]", "{}", "", now)
                )
        cursor.execute("ANALYZE")


def use(period: "Period", hours: int) -> int:
    """Roll-ups of every key and meter in so many hours of the month; how many."""
    from django.db import connection

    with connection.connection.cursor() as cursor:
        cursor.execute(
            _USE,
            {"start": period.start, "period": period.first_day, "meters": list(METERS), "hours": hours},
        )
        rows = int(cursor.rowcount)
        cursor.execute("VACUUM ANALYZE usage_rollup")
    return rows


def run(environment: Mapping[str, str], *argv: str) -> tuple[float, float]:
    """A command's seconds, and the most memory that it had, in MiB."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "manage.py", *argv], env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, argv
    return time.perf_counter() - began, used.ru_maxrss / 1024


def figures(environment: Mapping[str, str], folder: Path, keys: int, rows: int) -> dict[str, float]:
    from django.utils import timezone

    from usage.billing import Period

    large = Period.of(timezone.now()).previous.previous
    hours = max(rows // (keys * len(METERS)), 1)
    prepare(keys, large.previous)
    found: dict[str, float] = {}
    for name, period, each in (("a tenth", large.previous, max(hours // 10, 1)), ("all", large, hours)):
        found[f"rows, {name}"] = use(period, each)
        closing, closing_memory = run(environment, "close_period", str(period))
        file = str(folder / f"{period}.csv")
        export, export_memory = run(environment, "export_billing", "--period", str(period), "--output", file)
        verify, verify_memory = run(environment, "verify_billing", str(period), "--no-journals")
        found |= {
            f"close, s, {name}": closing,
            f"export, s, {name}": export,
            f"verify, s, {name}": verify,
            f"close, MiB, {name}": closing_memory,
            f"export, MiB, {name}": export_memory,
            f"verify, MiB, {name}": verify_memory,
        }
    return {name: round(value, 2) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(Postgres()).url
        environment, folder = stack.enter_context(alone.portal(url))
        print(json.dumps(figures(environment, folder, options.keys, options.rows)))


if __name__ == "__main__":
    main()
