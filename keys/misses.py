"""How often one process asks the database about keys that its memory misses.

Whoever floods it with well-formed keys costs the database, and the calls with known keys, no more than this.
It asks nothing itself; that is `keys.directory`'s.
"""

import threading
from collections.abc import Callable
from typing import Final

# Questions a second: while there may be live keys that are not in memory; while only brand-new and dead ones
# can be missed; and once the last 20 found nothing, for that is a flood, and each costs as much as 100 calls.
PER_SECOND: Final = 100
WHEN_COMPLETE: Final = 20
IN_VAIN: Final = 2
AT_ONCE: Final = 4  # calls that wait for such answers; the server's other threads are for known keys


class Budget:
    """A token bucket that holds a second's questions, and the places of those who wait for an answer.
    Thread-safe; `monotonic` gives seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._mutex = threading.Lock()  # guards every change to what follows; `is_spent` takes no lock
        self._left = float(PER_SECOND)
        self.asked_at = monotonic()  # the last time that somebody would ask
        self._spent_until = float("-inf")  # monotonic; until then there is no question left
        self._asking = 0
        self._in_vain = 0  # the last so many questions found nothing

    def is_spent(self) -> bool:
        """Would `take` find nothing left, or enough calls waiting? A flood comes to this."""
        return self._asking >= AT_ONCE or self._monotonic() < self._spent_until

    def take(self, *, complete: bool) -> bool:
        """Take a question, if one is left, and a place among those who wait, which `leave` gives back.
        `complete`: is every live key in memory?"""
        with self._mutex:
            now = self._monotonic()
            most = a_second = WHEN_COMPLETE if complete else PER_SECOND
            if complete and self._in_vain >= most:
                a_second = IN_VAIN
            self._left = min(float(most), self._left + (now - self.asked_at) * a_second)
            self.asked_at = now
            if self._left < 1:
                self._spent_until = now + (1 - self._left) / a_second
                return False
            if self._asking >= AT_ONCE:
                return False
            self._left -= 1
            self._asking += 1
            return True

    def leave(self) -> None:
        """Give the place back; what was asked stays spent."""
        with self._mutex:
            self._asking -= 1

    def note(self, *, found: bool) -> None:
        """What a question came to: whether it is a flood is seen by that."""
        with self._mutex:
            self._in_vain = 0 if found else self._in_vain + 1
