"""`revoke_key` says "everywhere" only when it is true: real servers, one of them cut off."""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, connections
from django.utils import timezone
from pytest_django import Settings

from keys.lifecycle import Issued
from keys.models import Process
from tests import builders
from tests.faults.blackhole import Door
from tests.faults.load import Watch
from tests.faults.server import Server, descendants
from tests.waiting import until

pytestmark = pytest.mark.django_db(transaction=True)
STALE = 8  # seconds


class Outcome(NamedTuple):
    returncode: int
    stderr: str


def revoke(issued: Issued, **options: float) -> Outcome:
    """The command, in this process: on a busy machine a new one may start later than STALE."""
    stderr = io.StringIO()
    try:
        call_command("revoke_key", issued.key.public_id, stderr=stderr, **options)
    except CommandError as error:
        return Outcome(error.returncode, str(error))
    finally:
        connections.close_all()  # as a process does at its end; it may be a thread's
    return Outcome(0, stderr.getvalue())


def wait_for_processes(count: int) -> None:
    """Until so many are on the list of those that answer, and not as those who are about to."""
    until(lambda: Process.objects.filter(feed_number__gt=0).count() >= count)


def status(server: Server, issued: Issued) -> int:
    return server.get("/gateway/authorize", authorization=f"Bearer {issued.plaintext}").status


@pytest.fixture
def issued(journal_dir: Path, settings: Settings) -> Issued:
    settings.KEYS_STALE_SECONDS = STALE
    return builders.key(builders.organization("acme"))


def test_revoked_everywhere_means_that_every_worker_refuses(issued: Issued, tmp_path: Path) -> None:
    environment = builders.environment(KEYS_STALE_SECONDS=str(STALE))
    with Server(environment, "--workers", "2", "--no-worker", log=tmp_path / "log") as server:
        wait_for_processes(2)
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
        wait_for_processes(2)
        cut_off = Process.objects.get(pid__in=descendants(far.process.pid))
        with Watch(near.port, issued.plaintext) as at_near, Watch(far.port, issued.plaintext) as at_far:
            assert (at_near.since(0), at_far.since(0)) == ({200}, {200})
            door.shut()
            began = time.monotonic()
            waiting = revoke(issued)
            assert time.monotonic() - began >= 5  # what it waits for by default
            assert waiting.returncode == 1
            assert "is revoked, but not yet confirmed by" in waiting.stderr
            (named,) = re.findall(r"\S+/(\d+) \(until ", waiting.stderr)
            assert int(named) == cut_off.pid
            assert at_near.last_allowed() < began + 2
            # It cannot know yet; that is what was said.
            assert at_far.since(time.monotonic()) == {200}
            cut_off.refresh_from_db()
            left = cut_off.serves_until - timezone.now()
            end = time.monotonic() + left.total_seconds()
            assert revoke(issued, wait=STALE).returncode == 0
            confirmed = time.monotonic()
            assert confirmed >= end
            assert at_far.since(confirmed) == {503}
            assert at_near.since(confirmed) == {401}
        assert at_far.last_allowed() < end
        assert at_near.last_allowed() < began + 2


def test_a_worker_that_is_killed_while_it_is_waited_for_is_waited_for_no_longer(
    issued: Issued, tmp_path: Path
) -> None:
    environment = builders.environment(KEYS_STALE_SECONDS="60")
    with (
        Server(environment, "--workers", "2", "--no-worker", log=tmp_path / "log") as server,
        ThreadPoolExecutor(max_workers=1) as command,
    ):
        wait_for_processes(2)
        assert {status(server, issued) for _ in range(20)} == {200}
        pid, other = Process.objects.values_list("pid", flat=True)
        os.kill(pid, signal.SIGSTOP)  # it cannot acknowledge
        running = command.submit(revoke, issued, wait=50)
        while (waiting := revoke(issued, wait=0)).stderr.count(" (until ") != 1:  # the other has heard
            assert waiting.returncode == 1
            assert not running.done()
            time.sleep(0.05)
        assert f"/{pid} (until " in waiting.stderr
        assert f"/{other} " not in waiting.stderr
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        assert running.result().returncode == 0
        assert time.monotonic() - killed < 10  # one that starts in its place may have to read first
        wait_for_processes(3)  # with the dead one's row
        assert {status(server, issued) for _ in range(20)} == {401}
