"""Revocations under load, and with the database gone right after: none is ever undone by a late answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from tests import builders
from tests.faults import revocations

ON_SQLITE = "sqlite" in os.environ["DATABASE_URL"]


@pytest.mark.django_db(transaction=True)
def test_no_call_that_begins_after_a_confirmed_revocation_is_allowed(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets, bystanders = revocations.make_targets(200)
    tally = revocations.run(targets, bystanders, builders.environment(), tmp_path / "log")
    with capsys.disabled():
        print(f"\n{revocations.figures(tally)}", end=" ")
    assert revocations.complaints(tally, workers=2) == []
    assert len(tally.revoked) == 200
    assert tally.late["REVOKED"] > 400  # each key at each worker at least once


@pytest.mark.skipif(ON_SQLITE, reason="an embedded database cannot be stopped")
def test_a_database_that_goes_right_after_a_confirmed_revocation_changes_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.revocations", "--stop-postgres", "--keys", "2", "--seed", "1"],
        cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}", end=" ")
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith("2 keys revoked at 2 workers, the database taken away 2 times: ")
