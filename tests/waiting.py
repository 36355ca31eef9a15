"""Waiting for what another thread or process does: asked again and again, for a time only."""

import time
from collections.abc import Callable


def until[T](
    what: Callable[[], T | None],
    seconds: float = 20,
    *,
    why: Callable[[], object] | str = "it did not happen",
    pause: float = 0.02,
) -> T:
    """Ask until the answer is true, and return it. Fails with `why` once so many seconds have passed."""
    deadline = time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, why() if callable(why) else why
        time.sleep(pause)
    return answer
