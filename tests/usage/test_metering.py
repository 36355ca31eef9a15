"""`authorize`: verify, limit, record; and the commands that count what it recorded."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from keys import lifecycle
from keys.directory import Directory
from keys.verdicts import Code
from tests.builders import environment, key, organization
from tests.waiting import until
from usage import metering
from usage.drain import Drain
from usage.models import Rollup, Segment

pytestmark = pytest.mark.django_db


def test_an_allowed_call_is_recorded_before_it_is_answered(directory: Directory, journal_dir: Path) -> None:
    issued = key(organization("acme"))
    directory.refresh()
    decision = metering.authorize(issued.plaintext, cost=4, address="192.0.2.1", now=time.time())
    assert decision.verdict.allowed
    metering.stop()
    Drain().once(timezone.now())
    row = Rollup.objects.get()
    assert (row.key_id, row.organization_id, row.outcome) == (
        issued.key.pk,
        issued.key.organization_id,
        "VALID",
    )
    assert (row.calls, row.quantity) == (1, 4)
    assert Segment.objects.get().spool_id == decision.request.partition("-")[0]


def test_every_request_has_an_id_of_its_own(directory: Directory) -> None:
    issued = key(organization("acme"))
    directory.refresh()
    ids = {metering.authorize(issued.plaintext, now=time.time()).request for _ in range(50)}
    assert len(ids) == 50


def test_a_refused_call_spends_nothing_of_a_limit(directory: Directory) -> None:
    issued = key(organization("acme"), rates=["1/hour"])
    directory.refresh()
    now = time.time()
    refused = metering.authorize(issued.plaintext, scopes=("orders:read",), now=now)
    assert (refused.verdict.code, refused.standing) == (Code.INSUFFICIENT_SCOPE, None)
    assert metering.authorize(issued.plaintext, now=now).verdict.allowed
    limited = metering.authorize(issued.plaintext, now=now)
    assert limited.verdict.code is Code.RATE_LIMITED
    assert limited.standing is not None
    assert f"try again in {limited.standing.reset} s" in limited.verdict.detail
    assert metering.authorize(issued.plaintext, now=now + limited.standing.reset).verdict.allowed


def test_a_policys_rate_is_shared_by_an_organizations_keys(directory: Directory) -> None:
    actor, now = lifecycle.command_actor(), timezone.now()
    policy = lifecycle.create_policy(actor, slug="small", name="Small", rates=["2/hour"], now=now)
    acme = organization("acme", policy=policy)
    first, second = key(acme, name="one"), key(acme, name="two")
    directory.refresh()
    codes = [
        metering.authorize(each.plaintext, now=time.time()).verdict.code for each in (first, second, first)
    ]
    assert codes == [Code.VALID, Code.VALID, Code.RATE_LIMITED]


def test_drain_usage_counts_once_and_says_what(
    directory: Directory, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = key(organization("acme"))
    directory.refresh()
    metering.authorize(issued.plaintext, now=time.time())
    call_command("drain_usage", "--once")
    call_command("drain_usage", "--once")
    said = capsys.readouterr()
    assert said.out == ""
    assert "Drained 1 calls" in said.err
    assert Rollup.objects.get().calls == 1


@pytest.mark.django_db(transaction=True)
def test_the_worker_outlives_a_database_that_is_away(directory: Directory, tmp_path: Path) -> None:
    issued = key(organization("acme"))
    directory.refresh()
    metering.authorize(issued.plaintext, now=time.time())
    _rename("usage_spool", "usage_spool_away")
    log = tmp_path / "log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, str(django_settings.BASE_DIR / "manage.py"), "worker"],
            env=environment(),
            stderr=out,
        )
    try:
        try:
            # A process starts slowly beside other tests.
            until(lambda: b"The worker waits" in log.read_bytes(), 60, why=log.read_text)
        finally:
            _rename("usage_spool_away", "usage_spool")
        until(Rollup.objects.exists, 60, why=log.read_text)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
    finally:
        worker.kill()
        worker.wait()
    assert log.read_bytes().count(b"The worker waits") == 1
    assert Rollup.objects.get().calls == 1


def _rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")
