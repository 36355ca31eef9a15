"""A journal whose time is set by hand."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.usage.journals import Clock
from usage.journal import Journal


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(journal_dir: Path, clock: Clock) -> Iterator[Journal]:
    journal = Journal(journal_dir, clock=clock, tick=False)
    yield journal
    journal.close()
