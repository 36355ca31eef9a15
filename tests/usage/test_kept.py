"""Drained journals: kept whole under their names, and deleted once they are old enough."""

import datetime as dt
import os
from pathlib import Path

import pytest

from tests.usage.journals import NOW, call, kept, path_of, undrained
from usage.drain import drain_once
from usage.journal import Journal
from usage.kept import prune
from usage.models import Segment
from usage.records import read_records

DAY = dt.timedelta(days=1)


@pytest.mark.django_db
def test_what_was_counted_can_be_read_again(journal: Journal, journal_dir: Path) -> None:
    call(journal)
    path = path_of(journal)
    journal.close()
    content = path.read_bytes()
    drain_once(NOW)
    found = journal_dir / "drained" / path.name
    assert found.read_bytes() == content
    assert (found.parent.stat().st_mode & 0o777, found.stat().st_mode & 0o777) == (0o700, 0o600)
    assert len(list(read_records(content))) == Segment.objects.get().records


@pytest.mark.django_db
def test_a_drained_journal_goes_when_its_days_are_over(journal: Journal, journal_dir: Path) -> None:
    call(journal)
    name = path_of(journal).name
    journal.close()
    drain_once(NOW)
    assert prune(journal_dir, days=35, now=NOW + 35 * DAY - dt.timedelta(seconds=1)) == 0
    assert kept(journal_dir) == [name]
    assert prune(journal_dir, days=35, now=NOW + 35 * DAY) == 1
    assert kept(journal_dir) == []
    assert Segment.objects.get().sums == {"VALID/requests": [1, 1]}


@pytest.mark.django_db
def test_with_no_days_to_keep_it_goes_at_once(journal: Journal, journal_dir: Path) -> None:
    call(journal)
    journal.close()
    drain_once(NOW)
    assert prune(journal_dir, days=0, now=NOW) == 1


def test_a_bounded_number_goes_at_once_the_oldest_first_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "drained"
    folder.mkdir()
    names = [f"aaaaaaaaaaa.{number:06d}.journal" for number in range(6)] + ["aaaaaaaaaaa.000006.journal.torn"]
    for age, name in enumerate([*names, "notes.txt"]):
        (folder / name).touch()
        at = (NOW - 90 * DAY - age * DAY).timestamp()
        os.utime(folder / name, (at, at))
    assert prune(tmp_path, days=35, now=NOW, most=3) == 3
    assert kept(tmp_path) == [*names[:4], "notes.txt"]
    assert prune(tmp_path, days=35, now=NOW, most=9) == 4
    assert kept(tmp_path) == ["notes.txt"]


def test_where_nothing_was_drained_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert prune(tmp_path, days=35, now=NOW) == 0
    assert undrained(tmp_path) == []
