"""Months closed by several who are killed, while usage comes late: one statement each, all is billed once."""

import subprocess
import sys

import pytest
from django.conf import settings

from tests.builders import environment


@pytest.mark.django_db(transaction=True)
def test_killed_closings_leave_one_statement_each(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.faults.closing", "--kills", "12"],
        cwd=settings.BASE_DIR,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert "; 0 wrong" in done.stdout
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}", end=" ")
