"""Two hosts with a disk each, one database and one Valkey: what is counted when, and if one never returns."""

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Sum

from keys.models import Process
from tests import valkey
from tests.builders import environment, key, organization
from tests.faults.server import Server, on_host
from tests.waiting import until
from usage import watermark
from usage.drain import Drain, complete_through
from usage.models import Finding, Rollup, Spool

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="a machine has one name only"),
]


def namespaces_are_allowed() -> bool:
    command = [*on_host("east"), "/bin/true"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def counted(outcome: str) -> int:
    calls: int | None = Rollup.objects.filter(outcome=outcome).aggregate(calls=Sum("calls"))["calls"]
    return calls or 0


def retire(host: str) -> None:
    call_command("retire_spool", host, "--reason", "its disk burnt")


def test_counting_waits_for_a_host_until_it_is_given_up_on_and_takes_its_journal_all_the_same(
    journal_dir: Path, tmp_path: Path
) -> None:
    if not namespaces_are_allowed():
        pytest.skip("no namespaces may be made here")
    issued = key(organization("acme"), rates=["30/hour"])
    with valkey.running(tmp_path) as shared:
        common = {"VALKEY_URL": shared.url, "KEYS_STALE_SECONDS": "2"}

        def ask(server: Server) -> int:
            return server.get("/gateway/authorize", X_API_Key=issued.plaintext).status

        def on(host: str) -> dict[str, str]:
            return environment(USAGE_JOURNAL_DIR=str(tmp_path / host), **common)

        east = Server(on("east"), "--no-worker", log=tmp_path / "east.log", host="east")
        west = Server(on("west"), log=tmp_path / "west.log", host="west")
        with west, east:
            statuses = []
            for _ in range(20):
                statuses += [ask(server) for server in (east, west)]
            assert (statuses.count(200), statuses.count(429)) == (30, 10)  # one window for both
            until(lambda: counted("VALID") == 15)
            assert counted("RATE_LIMITED") == 5
            # East has no worker: its calls are in its journal, and nothing is complete beyond its start.
            process = Process.objects.get(host="east")
            held = watermark.holder()
            assert held is not None
            assert (held.host, held.since) == ("east", process.started_at)
            assert complete_through() is not None
            assert complete_through() <= process.started_at  # type: ignore[operator]  # as above
            with pytest.raises(CommandError, match="east is alive"):
                retire("east")
        # Both are killed. West's journal waits for a worker there; east will never come back.
        west_worker = Drain(tmp_path / "west")  # the kernel may take a moment to free a killed process's lock

        def is_finished() -> bool:
            west_worker.once(dt.datetime.now(dt.UTC))
            return Spool.objects.get(host="west").finished_at is not None

        until(is_finished)
        until(lambda: watermark._alive("east", list(Process.objects.filter(host="east"))) is None)
        retire("east")
        after = complete_through()
        assert after is not None
        assert after > process.started_at
        assert Spool.objects.get(host="east").retired_reason == "its disk burnt"
        assert counted("VALID") == 15
        # Its disk is found after all.
        Drain(tmp_path / "east").once(dt.datetime.now(dt.UTC))
        assert (counted("VALID"), counted("RATE_LIMITED")) == (30, 10)
        assert Finding.objects.get().kind == Finding.Kind.LATE
        now = complete_through()
        assert now is not None
        assert now >= after
