"""A hard quota holds exactly, whoever is killed."""

import tempfile
import threading
import time
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import Sum

from tests import builders
from tests.faults import quota
from tests.faults.blackhole import Door
from tests.faults.load import Caller
from tests.faults.server import Server
from usage.models import QuotaLease, QuotaUse, Rollup


@pytest.mark.django_db(transaction=True)
def test_killed_workers_neither_exceed_a_quota_nor_keep_any_of_it(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = builders.key(builders.organization("acme"), quotas=[f"{quota.LIMIT}/month"])
    tally = quota.run(3, issued, builders.environment(), tmp_path / "log")
    valid = Rollup.objects.filter(key=issued.key, outcome="VALID")
    counted = valid.aggregate(sum=Sum("quantity"))["sum"]
    with capsys.disabled():
        print(f"\n{quota.figures(3, tally, counted)}", end=" ")
    assert quota.judge(tally, counted) == []
    assert QuotaUse.objects.get().spent == quota.LIMIT
    assert not QuotaLease.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_with_a_silent_database_a_lease_is_spent_and_the_rest_is_503_without_a_crowd_of_waiters(
    journal_dir: Path, tmp_path: Path
) -> None:
    if connection.vendor == "sqlite":
        pytest.skip("an embedded database is never silent")
    limited = builders.key(builders.organization("acme"), quotas=["100000/month"])
    free = builders.key(builders.organization("globex"))
    behind = Path(connection.settings_dict["OPTIONS"]["host"])
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, Door(Path(folder), behind) as door:
        url = builders.database_url().replace(str(behind), folder)
        with Server(builders.environment(DATABASE_URL=url), "--no-worker", log=tmp_path / "log") as server:
            for _ in range(20):
                assert _status(server, limited.plaintext) == 200
            door.shut()
            statuses: list[int] = []
            began = time.monotonic()
            while time.monotonic() < began + 5:
                statuses.append(_status(server, limited.plaintext))
            assert set(statuses) == {200, 503}
            assert statuses[-1] == 503
            # Half the threads may wait for the database; keys without a quota are served by the others.
            crowd = [threading.Thread(target=_status, args=(server, limited.plaintext)) for _ in range(40)]
            for each in crowd:
                each.start()
            asked = time.monotonic()
            assert _status(server, free.plaintext) == 200
            assert time.monotonic() - asked < 1
            for each in crowd:
                each.join()
            assert b"quotas cannot be asked about" in server.get("/readyz").body


def _status(server: Server, secret: str) -> int:
    caller = Caller(server.port)
    try:
        return caller.ask(secret).status
    finally:
        caller.close()
