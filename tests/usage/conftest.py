"""A journal whose time is set by hand; a directory that is read by hand, and a key in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from keys import lifecycle
from keys.directory import Directory
from tests.builders import key, organization
from tests.usage.journals import Clock
from usage import metering, meters
from usage.journal import Journal


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(journal_dir: Path, clock: Clock) -> Iterator[Journal]:
    # A drain looks through all of a journal that was not sealed: in 64 MB that takes longer than most tests.
    journal = Journal(journal_dir, clock=clock, tick=False, segment_bytes=1024**2)
    yield journal
    journal.close()


@pytest.fixture
def directory(journal_dir: Path) -> Iterator[Directory]:
    """This process's directory, refreshed by hand."""
    directory = Directory(process_id="test", lock_dir=journal_dir, followers=[("meter.", meters.reload)])
    meters.follow()
    directory.refresh()
    metering.start(directory)
    yield directory
    metering.stop()


@pytest.fixture
def issued(directory: Directory) -> lifecycle.Issued:
    """A key that reads and writes orders."""
    made = key(organization("acme"), scopes=("orders:read", "orders:write"))
    directory.refresh()
    return made
