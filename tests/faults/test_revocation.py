"""`revoke_key` says "everywhere" only when it is true: real servers, one of them cut off."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from pytest_django import Settings

from keys.lifecycle import Issued
from keys.models import Process
from tests import builders
from tests.faults.blackhole import Door
from tests.faults.server import Server

pytestmark = pytest.mark.django_db(transaction=True)
STALE = 8  # seconds


class Outcome(NamedTuple):
    returncode: int
    stderr: str


def revoke(issued: Issued, *, wait: int) -> Outcome:
    """The command, in this process: on a busy machine a new one may start later than STALE."""
    stderr = io.StringIO()
    try:
        call_command("revoke_key", issued.key.public_id, wait=wait, stderr=stderr)
    except CommandError as error:
        return Outcome(error.returncode, str(error))
    return Outcome(0, stderr.getvalue())


def status(server: Server, issued: Issued) -> int:
    return server.get("/gateway/authorize", authorization=f"Bearer {issued.plaintext}").status


@pytest.fixture
def issued(journal_dir: Path, settings: Settings) -> Issued:
    settings.KEYS_STALE_SECONDS = STALE
    return builders.key(builders.organization("acme"))


def test_revoked_everywhere_means_that_every_worker_refuses(issued: Issued, tmp_path: Path) -> None:
    environment = builders.environment(KEYS_STALE_SECONDS=str(STALE))
    with Server(environment, "--workers", "2", "--no-worker", log=tmp_path / "log") as server:
        deadline = time.monotonic() + 20
        while Process.objects.count() < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert Process.objects.count() == 2
        assert {status(server, issued) for _ in range(20)} == {200}
        done = subprocess.run(
            [sys.executable, "manage.py", "revoke_key", issued.key.public_id],
            cwd=settings.BASE_DIR, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "")
        assert "everywhere" in done.stderr
        assert {status(server, issued) for _ in range(40)} == {401}


def test_a_stopped_worker_is_named_with_the_time_until_it_may_answer(issued: Issued, tmp_path: Path) -> None:
    environment = builders.environment(KEYS_STALE_SECONDS=str(STALE))
    with Server(environment, "--workers", "1", "--no-worker", log=tmp_path / "log") as server:
        assert status(server, issued) == 200
        pid = Process.objects.get().pid
        os.kill(pid, signal.SIGSTOP)
        try:
            waiting = revoke(issued, wait=1)
            assert waiting.returncode == 1
            assert f"/{pid} (until " in waiting.stderr
            # It may not answer from memory any longer than that, stopped or not.
            assert revoke(issued, wait=STALE).returncode == 0
        finally:
            os.kill(pid, signal.SIGCONT)
        assert status(server, issued) in (401, 503)


@pytest.mark.skipif(
    "sqlite" in os.environ["DATABASE_URL"], reason="an embedded database has no network to be cut off from"
)
def test_a_worker_cut_off_from_the_database_is_waited_for_until_it_refuses(
    issued: Issued, tmp_path: Path
) -> None:
    behind = Path(connection.settings_dict["OPTIONS"]["host"])
    direct = builders.environment(KEYS_STALE_SECONDS=str(STALE))
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        Door(Path(folder), behind) as door,
        Server(direct, "--workers", "1", "--no-worker", log=tmp_path / "near") as near,
        Server(
            {**direct, "DATABASE_URL": direct["DATABASE_URL"].replace(str(behind), folder)},
            *("--workers", "1", "--no-worker"),
            log=tmp_path / "far",
        ) as far,
    ):
        assert (status(near, issued), status(far, issued)) == (200, 200)
        assert Process.objects.count() == 2
        door.shut()
        waiting = revoke(issued, wait=1)
        assert waiting.returncode == 1, waiting.stderr
        assert "not yet confirmed" in waiting.stderr
        assert status(near, issued) == 401
        assert status(far, issued) == 200  # it cannot know yet; that is what was said
        assert revoke(issued, wait=STALE).returncode == 0
        assert status(far, issued) == 503
