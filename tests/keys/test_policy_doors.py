"""No edit by any door takes a key outside its policy: the short form of `python -m tests.faults.policies`."""

from pathlib import Path

import pytest

from tests.keys import doors

pytestmark = pytest.mark.django_db


def test_no_edit_by_any_door_takes_a_key_outside_its_policy(journal_dir: Path) -> None:
    assert doors.run(journal_dir, edits=300)["changed"]
