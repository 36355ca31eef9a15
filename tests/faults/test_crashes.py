"""PostgreSQL killed while a worker drains, and away meanwhile: each call is counted once."""

import subprocess
import sys

import pytest
from django.conf import settings
from django.db import connection


def test_each_call_is_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("it is about PostgreSQL")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.crashes", "--kills", "2", "--away", "50000"],
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}", end=" ")
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert ", 0 groups counted wrong" in done.stdout
