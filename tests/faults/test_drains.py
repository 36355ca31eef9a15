"""Drains that are killed, doubled and cut off in the middle: each call is counted once."""

import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection

from tests.builders import environment

pytestmark = pytest.mark.django_db(transaction=True)


def run(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.faults.drains", *options],
        cwd=settings.BASE_DIR,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert ", 0 groups counted wrong" in done.stdout
    return done.stdout.strip()


def test_killed_drains_count_each_call_once(capsys: pytest.CaptureFixture[str]) -> None:
    figures = run("--kills", "20")
    with capsys.disabled():
        print(f"\n{figures}", end=" ")


def test_a_commit_whose_answer_never_came_counts_once(capsys: pytest.CaptureFixture[str]) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connection to cut")
    figures = run("--cuts", "15")
    with capsys.disabled():
        print(f"\n{figures}", end=" ")
