"""Who the tests of keys are about, and a directory of them."""

from pathlib import Path

import pytest

from keys.directory import Directory
from keys.models import Organization
from tests import builders
from tests.keys.directories import Clock


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", builders.user("alice"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path, clock: Clock) -> Directory:
    """A picture that a test refreshes by hand; it has no thread, and no time passes but by `clock`."""
    return Directory(process_id="test", lock_dir=tmp_path, monotonic=clock)
