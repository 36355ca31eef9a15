"""Calls outlive the database for KEYS_STALE_SECONDS and not longer, and are all counted."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings

from tests.faults.postgres import Postgres
from tests.waiting import until

pytestmark = pytest.mark.skipif(
    "sqlite" in os.environ["DATABASE_URL"], reason="an embedded database cannot be stopped"
)


def test_while_the_database_is_away_memory_answers_until_it_is_stale_and_nothing_is_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.outage", "--rounds", "1"],
        cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}", end=" ")
    assert done.returncode == 0, done.stderr[-4000:]
    assert "calls answered 200" in done.stdout


def test_who_waits_for_a_lost_database_has_it_soon_after_it_is_back() -> None:
    from psycopg_pool import ConnectionPool  # here: not on SQLite

    options = {**settings.DATABASES["default"]["OPTIONS"]["pool"], "min_size": 0, "check": None}
    with Postgres() as postgres, ThreadPoolExecutor(max_workers=1) as waiting:
        postgres.stop()
        with ConnectionPool(postgres.conninfo, open=True, **options) as pool:
            connection = waiting.submit(pool.getconn)
            # After a second try in vain a pool gives up.
            until(lambda: connection.done() or pool.get_stats().get("connections_errors", 0) >= 2, 60)
            postgres.start()
            back = time.monotonic()
            pool.putconn(connection.result())
            assert time.monotonic() - back < 8  # it would wait for ten
