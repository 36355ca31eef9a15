"""Workers that are killed while they write and send mails: each is queued once, and none is lost."""

import subprocess
import sys

import pytest
from django.conf import settings

from tests.builders import environment

pytestmark = pytest.mark.django_db(transaction=True)


def test_killed_workers_lose_no_mail(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.faults.mails", "--kills", "16"],
        cwd=settings.BASE_DIR,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    assert ", 0 wrong" in done.stdout
    with capsys.disabled():
        print(f"\n{done.stdout.strip()}", end=" ")
