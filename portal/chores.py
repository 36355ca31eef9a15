"""What a worker does again and again, each for itself: one that fails holds up no other.

A chore that fails is logged once, waits longer each time, and says when it works again. What is done is not
known here.
"""

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from django.db import connections

logger = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 15.0  # seconds; or the chore's own, if that is longer
_SHOWN: Final = 200  # characters of an error


class Chore:
    """Something to be done every `seconds`; `name` begins the sentence that says that it fails."""

    def __init__(self, name: str, seconds: float, act: Callable[[], object]) -> None:
        self.name = name
        self._seconds = seconds
        self._act = act
        self._due = float("-inf")  # by the monotonic clock
        self.trouble: Exception | None = None  # what it failed of, while it does
        self._failures = 0
        self._complained = False

    def turn(self, besides: Exception | None = None, *, clock: Callable[[], float] = monotonic) -> None:
        """Do it if it is time. What fails in the way of `besides`, which was logged, is not logged."""
        if clock() < self._due:
            return
        try:
            self._act()
        except Exception as error:  # whatever it was, the others go on
            self._failed(error, besides)
            pause = min(2.0 ** min(self._failures, 10), max(self._seconds, LONGEST_PAUSE))
        else:
            pause = self._seconds
            if self._complained:
                logger.info("%s works again.", self.name)
            self.trouble, self._failures, self._complained = None, 0, False
        self._due = clock() + pause

    def _failed(self, error: Exception, besides: Exception | None) -> None:
        connections.close_all()  # what it left half done is nobody else's
        self.trouble = error
        self._failures += 1
        if not self._complained and type(error) is not type(besides):
            line = str(error).strip().partition("\n")[0][:_SHOWN]
            logger.error("%s waits: %s: %s", self.name, type(error).__name__, line)
            self._complained = True
