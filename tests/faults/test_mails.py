"""Workers that are killed while they write and send mails: each is queued once, and none is lost."""

import pytest

from tests.faults import short


@pytest.mark.django_db(transaction=True)
def test_killed_workers_lose_no_mail(capsys: pytest.CaptureFixture[str]) -> None:
    assert ", 0 wrong" in short.run(capsys, "mails", "--kills", "16")
