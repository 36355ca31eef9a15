"""The clock that the journal dates calls by: believed only as far as other clocks bear it out.

Somebody may set a machine's clock, and a call must not land in another hour or month by that. Between two
looks it may not run ahead of what a look allows; at each look it must have moved as the monotonic clock did;
and what the database says of it is the last word. It never sets anything right itself.
"""

import time
from collections.abc import Callable
from typing import Final

TOLERANCE: Final = 2_000_000  # µs that a clock may leap, be ahead of the last look, or off the database's
# After a leap, until the database's word is believed: it may be HEALTHY_SECONDS old (`keys.directory`).
_DOUBT: Final = 2_500_000  # µs


class Clock:
    """`wall` gives ns since the epoch, `monotonic` ns since anything.

    `agrees` is the database's word on the clock: None while it cannot be asked, and where nobody has one.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.agrees: Callable[[], bool | None] = lambda: None
        self._wall, self._monotonic = wall, monotonic
        self._trusted = True
        self._doubted_at = 0  # by the monotonic clock
        self._seen = self._read()
        self.until = self._seen[0] + TOLERANCE  # µs; a later time is not to be believed, 0: none is

    def _read(self) -> tuple[int, int]:
        return self._wall() // 1000, self._monotonic() // 1000

    def look(self) -> None:
        """Compare; call it at least twice in TOLERANCE."""
        seen = self._read()
        leapt = abs((seen[0] - self._seen[0]) - (seen[1] - self._seen[1])) > TOLERANCE
        self._seen = seen
        agrees = self.agrees()
        if leapt or agrees is False:
            self._trusted, self._doubted_at = False, seen[1]
        elif agrees and seen[1] - self._doubted_at >= _DOUBT:
            self._trusted = True
        self.until = seen[0] + TOLERANCE if self._trusted else 0
