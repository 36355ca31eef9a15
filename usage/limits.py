"""Rate windows of keys and their organizations: all checked, and only then all spent.

Windows are fixed (aligned to the epoch) and this process's own. They hold a number each and forget what has
ended; they never look at the clock or the database themselves.
"""

import math
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

from keys.rates import UNITS, Rate
from keys.records import KeyRecord

_UNIT_NAMES = {seconds: unit for unit, seconds in UNITS.items()}
_SWEEP_AT = 10_000  # windows in memory before the first look for those that have ended


class Standing(NamedTuple):
    """The tightest window after a call: what is left in it, and in how many seconds it begins anew.

    For a refused call it is the window to wait for longest: after `reset` seconds the same call, alone,
    passes, unless its cost is above a limit: then it never does.
    """

    allowed: bool
    name: str  # e.g. `key-second`, as in the RateLimit headers
    rate: Rate
    remaining: int
    reset: int


# As in `metering`: the tuple without the named tuple's slow constructor.
_new_standing: Callable[[tuple[bool, str, Rate, int, int]], Standing] = partial(tuple.__new__, Standing)

# (name, (owner, rate), limit, seconds); owners are key ids, and organization ids negated.
_Limit = tuple[str, tuple[int, Rate], int, int]


@lru_cache(maxsize=16_384)
def _plan(
    key: int, rates: tuple[Rate, ...], organization: int, shared: tuple[Rate, ...]
) -> tuple[_Limit, ...]:
    """The windows of a key; one window for a rate that stands there twice."""
    owners = [("key", key, rate) for rate in dict.fromkeys(rates)]
    owners += [("organization", -organization, rate) for rate in dict.fromkeys(shared)]
    return tuple(
        (f"{label}-{_UNIT_NAMES[rate.seconds]}", (owner, rate), rate.limit, rate.seconds)
        for label, owner, rate in owners
    )


class Windows:
    """Thread-safe. One `spend` is one decision under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # (owner, rate) → [number of the window, spent]
        self._windows: dict[tuple[int, Rate], list[int]] = {}
        self._sweep_at = _SWEEP_AT

    def __len__(self) -> int:
        return len(self._windows)

    def spend(self, key: KeyRecord, cost: int, now: float) -> Standing | None:
        """Spend `cost` in every window of the key and its organization, or in none.

        `now` is epoch seconds; a clock that went back stays in the later window. A cost of 0 always passes.
        None: no limit applies.
        """
        organization = key.organization
        plan = _plan(key.id, key.rates, organization.id, organization.rates)
        if not plan:
            return None
        with self._lock:
            windows = [self._current(limit, now) for limit in plan]
            # (order of preference, limit, left, number of the window) of the window to report
            worst: tuple[tuple[float, float], _Limit, int, int] | None = None
            allowed = True
            for limit, (number, spent) in zip(plan, windows, strict=True):
                left = limit[2] - spent
                if left < cost and cost:
                    if allowed:
                        worst, allowed = None, False
                elif not allowed:
                    continue
                end = (number + 1) * limit[3]
                # Allowed: the least that is left. Refused: the longest wait.
                order = (left, -end) if allowed else (-end, left)
                if worst is None or order < worst[0]:
                    worst = order, limit, left, number
            assert worst is not None
            _, (name, (_, rate), _, seconds), left, number = worst
            if allowed:
                for window in windows:
                    window[1] += cost
                left -= cost
        reset = max(1, math.ceil((number + 1) * seconds - now))
        return _new_standing((allowed, name, rate, max(left, 0), reset))

    def _current(self, limit: "_Limit", now: float) -> list[int]:
        number = int(now // limit[3])
        window = self._windows.get(limit[1])
        if window is None:
            if len(self._windows) >= self._sweep_at:
                self._sweep(now)
            window = self._windows[limit[1]] = [number, 0]
        elif number > window[0]:
            window[0], window[1] = number, 0
        return window

    def _sweep(self, now: float) -> None:
        """Forget windows that have ended; what is left are keys in use, and the next look waits for twice
        as many."""
        self._windows = {
            (owner, rate): window
            for (owner, rate), window in self._windows.items()
            if window[0] >= int(now // rate.seconds)
        }
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._windows))


@lru_cache(maxsize=4096)
def _policy(key: tuple[Rate, ...], organization: tuple[Rate, ...]) -> str:
    named = [("key", rate) for rate in key] + [("organization", rate) for rate in organization]
    return ", ".join(
        f'"{label}-{_UNIT_NAMES[rate.seconds]}";q={rate.limit};w={rate.seconds}' for label, rate in named
    )


def headers(key: KeyRecord, standing: Standing) -> list[tuple[str, str]]:
    """`RateLimit-Policy` and `RateLimit` (IETF draft-ietf-httpapi-ratelimit-headers-10)."""
    return [
        ("RateLimit-Policy", _policy(key.rates, key.organization.rates)),
        ("RateLimit", f'"{standing.name}";r={standing.remaining};t={standing.reset}'),
    ]
