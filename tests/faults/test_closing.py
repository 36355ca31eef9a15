"""Months closed by several who are killed, while usage comes late: one statement each, all is billed once."""

import pytest

from tests.faults import short


@pytest.mark.django_db(transaction=True)
def test_killed_closings_leave_one_statement_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert "; 0 wrong" in short.run(capsys, "closing", "--kills", "12")
