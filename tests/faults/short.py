"""Runs a fault's command in its short form, for the tests that are in every run."""

import subprocess
import sys

import pytest
from django.conf import settings

from tests.builders import environment


def run(capsys: pytest.CaptureFixture[str], module: str, *arguments: str) -> str:
    """What `python -m tests.faults.MODULE` prints, shown in the output too. Its failure is the test's."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tests.faults.{module}", *arguments],
        cwd=settings.BASE_DIR,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}", end=" ")
    return done.stdout
