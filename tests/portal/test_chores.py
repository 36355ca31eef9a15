"""The worker's chores: each fails for itself, is logged once, and waits longer each time."""

import logging

import pytest
from django.db import connections

from portal.chores import LONGEST_PAUSE, Chore


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Act:
    """Counts how often it was tried; fails as long as it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.tries = 0
        self.error = error

    def __call__(self) -> None:
        self.tries += 1
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def _keeps_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "close_all", lambda: None)


def test_it_is_done_at_once_and_then_every_so_often() -> None:
    act, clock = Act(), Clock()
    chore = Chore("Sweeping", 60.0, act)
    for clock.now in (0.0, 59.0, 60.0, 61.0, 120.0):
        chore.turn(clock=clock)
    assert act.tries == 3


def test_one_that_fails_waits_for_itself_longer_each_time() -> None:
    broken, works, clock = Act(ValueError("no")), Act(), Clock()
    chores = [Chore("Sweeping", 5.0, broken), Chore("Ringing", 1.0, works)]
    tried = []
    for second in range(100):
        clock.now = float(second)
        before = broken.tries
        for chore in chores:
            chore.turn(clock=clock)
        tried += [second] if broken.tries > before else []
    assert works.tries == 100
    assert tried[:5] == [0, 2, 6, 14, 14 + int(LONGEST_PAUSE)]


def test_the_longest_wait_is_some_minutes() -> None:
    broken, clock = Act(ValueError("no")), Clock()
    chore = Chore("Sweeping", 3600.0, broken)
    for second in range(0, 7200, 2):
        clock.now = float(second)
        chore.turn(clock=clock)
    assert broken.tries == 16  # after 2, 4, 8, … 1024 s, and then every 1024 s


def test_it_is_logged_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="portal.chores")
    act, clock = Act(ValueError("no\nmore")), Clock()
    chore = Chore("Sweeping", 1.0, act)
    for step in range(6):
        clock.now = step * 100.0
        act.error = None if step in (2, 3) else ValueError("no\nmore")
        chore.turn(clock=clock)
    assert [record.getMessage() for record in caplog.records] == [
        "Sweeping waits: ValueError: no",
        "Sweeping works again.",
        "Sweeping waits: ValueError: no",
    ]


def test_what_fails_as_the_drain_does_is_logged_when_the_drain_works(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    chore = Chore("Sweeping", 1.0, Act(OSError("away")))
    chore.turn(OSError("away"), clock=clock)
    assert not caplog.records
    clock.now = 100.0
    chore.turn(None, clock=clock)
    assert len(caplog.records) == 1
