"""The journal's clock: what is believed, from when on not any more, and what makes it believed again."""

import pytest

from usage.clock import TOLERANCE, Clock

SECOND = 1_000_000_000  # ns


class Clocks:
    """A wall clock and a monotonic one, moved by hand; `word` is the database's."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_800_000_000 * SECOND, 5 * SECOND
        self.word: bool | None = None
        self.clock = Clock(lambda: self.wall, lambda: self.monotonic)
        self.clock.agrees = lambda: self.word

    def pass_by(self, looks: int = 1) -> None:
        for _ in range(looks):
            self.wall += SECOND // 2
            self.monotonic += SECOND // 2
            self.clock.look()

    @property
    def is_believed(self) -> bool:
        return self.wall // 1000 <= self.clock.until


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_a_clock_that_runs_is_believed(clocks: Clocks) -> None:
    for _ in range(100):
        clocks.pass_by()
        assert clocks.is_believed
    # A clock that is set right slowly, as NTP does, stays within that.
    for _ in range(10_000):
        clocks.wall += SECOND // 2000
        clocks.pass_by()
        assert clocks.is_believed


@pytest.mark.parametrize("leap", [3, 3600, 86_400])
def test_a_leap_forward_is_not_believed_even_before_the_next_look(clocks: Clocks, leap: int) -> None:
    clocks.pass_by()
    clocks.wall += leap * SECOND
    assert not clocks.is_believed
    clocks.pass_by(10)
    assert not clocks.is_believed


@pytest.mark.parametrize("leap", [3, 3600, 86_400])
def test_a_leap_back_is_not_believed_from_the_next_look_on(clocks: Clocks, leap: int) -> None:
    clocks.pass_by()
    clocks.wall -= leap * SECOND
    clocks.pass_by()
    assert clocks.clock.until == 0


def test_after_a_leap_the_databases_word_must_be_newer_than_it(clocks: Clocks) -> None:
    clocks.word = True
    clocks.wall += 3600 * SECOND
    clocks.pass_by()
    for _ in range(100):  # calls look, too
        clocks.clock.look()
        assert not clocks.is_believed
    clocks.pass_by(4)  # two seconds; so long is the word kept
    assert not clocks.is_believed
    clocks.pass_by()
    assert clocks.is_believed


def test_what_the_database_denies_is_not_believed(clocks: Clocks) -> None:
    clocks.word = False
    clocks.pass_by()
    assert not clocks.is_believed
    clocks.word = None  # it is away: nobody has taken it back
    clocks.pass_by(10)
    assert not clocks.is_believed


def test_without_a_look_it_is_not_believed_for_long(clocks: Clocks) -> None:
    clocks.wall += (TOLERANCE + 1) * 1000
    clocks.monotonic += (TOLERANCE + 1) * 1000
    assert not clocks.is_believed
    clocks.pass_by()  # the process stood still; both clocks say so
    assert clocks.is_believed
