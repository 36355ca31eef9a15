"""SIGHUP under load: the new code and settings take over, and no call notices."""

from pathlib import Path

import pytest
from django.db.models import Sum
from django.utils import timezone

from tests.builders import environment, key, organization
from tests.faults import restarts
from tests.faults.server import Server, descendants, wait_until_gone
from tests.waiting import until
from usage.drain import drain_once
from usage.models import Rollup, Spool

pytestmark = pytest.mark.django_db(transaction=True)


def test_no_call_notices_a_restart(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = key(organization("acme"))
    tally = restarts.run(3, issued.plaintext, environment(), tmp_path / "log")
    drain_once(timezone.now())  # what `serve` had no time for at its end
    counted = Rollup.objects.filter(key=issued.key).aggregate(calls=Sum("calls"))["calls"]
    with capsys.disabled():
        print(f"\n{restarts.figures(tally, counted)}", end=" ")
    assert restarts.is_right(tally, counted), restarts.figures(tally, counted)
    assert not Spool.objects.filter(finished_at=None).exists()


def test_new_settings_count_and_the_process_stays(journal_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("PORTAL_NAME=Before\n")
    with Server(environment(ENV_FILE=str(file)), log=tmp_path / "log") as server:
        assert b"Before" in server.get("/").body
        file.write_text("PORTAL_NAME=After\n")
        restarts.restart(server)
        assert b"After" in server.get("/").body
        restarts.restart(server)  # and it can do so again
        assert len(descendants(server.process.pid)) == 2
        assert server.stop() == 0


def test_what_would_not_start_changes_nothing(journal_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "settings"
    file.write_text("")
    # Without the worker, which reads the file when it starts, and so may not.
    with Server(environment(ENV_FILE=str(file)), "--no-worker", log=tmp_path / "log") as server:
        before = descendants(server.process.pid)
        file.write_text("KEY_PREFIX=not_a_prefix_\n")
        server.hang_up()
        server.wait_for_log("goes on as it is")
        assert "portal.E" in server.log.read_text()
        assert set(before) <= set(descendants(server.process.pid))
        assert server.get("/readyz").status == 200


def test_a_signal_in_the_middle_ends_old_and_new(journal_dir: Path, tmp_path: Path) -> None:
    with Server(environment(), log=tmp_path / "log") as server:
        pids = set(descendants(server.process.pid))
        server.hang_up()
        server.wait_for_log("begins again")
        new = until(lambda: set(descendants(server.process.pid)) - pids, pause=0.01)
        server.stop(seconds=30)  # before it has handlers of its own the signal ends it
        wait_until_gone([*pids, *new], 15)


def test_a_signal_while_the_new_program_is_tried_ends_it(journal_dir: Path, tmp_path: Path) -> None:
    with Server(environment(), log=tmp_path / "log") as server:
        pids = set(descendants(server.process.pid))
        server.hang_up()
        until(lambda: set(descendants(server.process.pid)) - pids, pause=0.01)
        assert server.stop(seconds=30) == 0
        assert "begins again" not in server.log.read_text()
        wait_until_gone(list(pids), 15)
