"""Directories whose clock a test moves, and what they say of a credential."""

import datetime as dt

from keys import lifecycle
from keys.directory import Directory
from keys.models import Feed
from keys.verdicts import Code
from keys.verification import verify

COMMAND = lifecycle.command_actor()
NOW = dt.datetime.now(dt.UTC)  # what is kept in memory depends on the real time


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def code(directory: Directory, credential: str) -> Code:
    return verify(credential, directory=directory, now=NOW.timestamp()).code


def head() -> int:
    """The number of the last event in the feed."""
    return Feed.objects.get().number
