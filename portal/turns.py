"""Pages take turns: a call of the gateway then competes with one of them for the interpreter, not with six.

Only one thread of a process computes at a time anyway; those that want to are served in no order, and each
keeps the interpreter for milliseconds. It is a courtesy and no lock: who has waited for WAIT_SECONDS goes on
without a turn, for the page that has it may be waiting for a slow query or a mail server.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAIT_SECONDS = 0.25
_turn = threading.Lock()


@contextmanager
def one() -> Iterator[None]:
    """A turn, or after a while none."""
    has = _turn.acquire(timeout=WAIT_SECONDS)
    try:
        yield
    finally:
        if has:
            _turn.release()
