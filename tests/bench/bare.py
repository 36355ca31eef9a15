"""What everything is compared with: the same server with as little as possible behind it.

The spinning ones are controls: a figure counts when it lies between the two whose work it claims to do.
"""

import time
from collections.abc import Callable
from typing import Any

StartResponse = Callable[[str, list[tuple[str, str]]], object]


def application(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    """200 and nothing else."""
    start_response("200 OK", [])
    return []


def _spin(microseconds: int) -> Callable[[dict[str, Any], StartResponse], list[bytes]]:
    def spinning(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
        end = time.perf_counter_ns() + microseconds * 1000
        while time.perf_counter_ns() < end:
            pass
        start_response("200 OK", [])
        return []

    return spinning


spin_2, spin_5, spin_10 = _spin(2), _spin(5), _spin(10)
