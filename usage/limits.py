"""Rate windows of keys and their organizations: all checked, and only then all spent.

Windows are fixed (aligned to the epoch). Those of this module are this process's own; `usage.valkey` has
those that processes share. They hold a number each and forget what has ended; they never look at the clock or
the database themselves.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from keys.rates import UNITS, Rate
from keys.records import KeyRecord

_UNIT_NAMES = {seconds: unit for unit, seconds in UNITS.items()}
_SWEEP_AT = 10_000  # windows (or plans) in memory before the first look for those that have ended


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
    policy: str  # all the windows, as the header RateLimit-Policy lists them


# As in `metering`: the tuple without the named tuple's slow constructor.
_new_standing: Callable[[tuple[bool, str, Rate, int, int, str]], Standing] = partial(tuple.__new__, Standing)


class Window:
    """What one owner has left until `end` (epoch seconds), when it begins anew."""

    __slots__ = ("end", "left", "limit", "name", "owner", "rate", "seconds")

    def __init__(self, owner: str, number: int, rate: Rate, end: int = 0, spent: int = 0) -> None:
        self.owner = owner, number  # ("key" or "organization", its id)
        self.name = f"{owner}-{_UNIT_NAMES[rate.seconds]}"
        self.rate = rate
        self.limit, self.seconds = rate
        self.end = end
        self.left = self.limit - spent


class Plan:
    """The windows that one key's calls spend from; it holds for these very rates of key and organization."""

    __slots__ = ("own", "policy", "shared", "windows")

    def __init__(self, key: KeyRecord) -> None:
        self.own, self.shared = key.rates, key.organization.rates
        # One window for a rate that stands there twice.
        windows = [Window("key", key.id, rate) for rate in dict.fromkeys(self.own)]
        windows += [Window("organization", key.organization.id, rate) for rate in dict.fromkeys(self.shared)]
        self.windows = windows
        self.policy = ", ".join(f'"{each.name}";q={each.limit};w={each.seconds}' for each in windows)


class WindowsAway(Exception):
    """The windows cannot be asked, and none may take their place. The caller says 503, never 429."""


class RateWindows(Protocol):
    """What `metering` spends from."""

    def spend(self, key: KeyRecord, cost: int, now: float) -> Standing | None:
        """Spend `cost` in every window of the key and its organization, or in none.

        `now` is epoch seconds. A cost of 0 always passes. None: no limit applies. Raises WindowsAway.
        """

    def explain(self) -> tuple[str, bool]:
        """What is not as it should be (empty when all is well), and whether calls are refused for it."""


class Windows:
    """This process's own windows. Thread-safe: one `spend` is one decision under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._plans: dict[int, Plan] = {}  # by key
        self._windows: dict[tuple[tuple[str, int], Rate], Window] = {}  # each stands in many keys' plans
        self._sweep_at = _SWEEP_AT

    def __len__(self) -> int:
        return len(self._windows)

    def explain(self) -> tuple[str, bool]:
        """As `RateWindows.explain`: memory is always there."""
        return "", False

    def spend(self, key: KeyRecord, cost: int, now: float) -> Standing | None:
        """As `RateWindows.spend`; a clock that went back stays in the later window."""
        second = int(now)
        self._lock.acquire()  # not `with`, as in the journal
        try:
            plan = self._plans.get(key.id)
            if plan is None or plan.own is not key.rates or plan.shared is not key.organization.rates:
                plan = self._plan(key, second)
            return judge(plan, plan.windows, cost, second) if plan.windows else None
        finally:
            self._lock.release()

    def _plan(self, key: KeyRecord, second: int) -> Plan:
        if max(len(self._windows), len(self._plans)) >= self._sweep_at:
            self._sweep(second)
        plan = self._plans[key.id] = Plan(key)
        plan.windows = [self._windows.setdefault((each.owner, each.rate), each) for each in plan.windows]
        return plan

    def _sweep(self, second: int) -> None:
        """Forget windows that have ended; what is left are keys in use, and the next look waits for twice
        as many."""
        self._plans.clear()  # they hold the windows, and are quickly made again
        self._windows = {name: window for name, window in self._windows.items() if window.end > second}
        self._sweep_at = max(_SWEEP_AT, 2 * len(self._windows))


def window_end(second: int, seconds: int) -> int:
    """The end of the window of so many seconds that `second` is in; both since the epoch."""
    return (second // seconds + 1) * seconds


def judge(plan: Plan, windows: Sequence[Window], cost: int, second: int) -> Standing:
    """Does `cost` fit into every window? Then it is spent in all, else in none; they are held by nobody else
    meanwhile."""
    tightest, least = None, 0
    for window in windows:
        if second >= window.end:
            window.end, window.left = window_end(second, window.seconds), window.limit
        left = window.left
        if left < cost and cost:
            return _refusal(plan, windows, cost, second)
        if tightest is None or left < least or (left == least and window.end > tightest.end):
            tightest, least = window, left
    assert tightest is not None
    for window in windows:
        window.left -= cost
    remaining = least - cost if least > cost else 0
    return _new_standing((True, tightest.name, tightest.rate, remaining, tightest.end - second, plan.policy))


def _refusal(plan: Plan, windows: Sequence[Window], cost: int, second: int) -> Standing:
    """Of the windows without room, the one that ends last; of several, the one with least left."""
    # Those that have ended have room again, unless the cost is above their limit.
    left = {each: each.limit if second >= each.end else each.left for each in windows}
    end = {each: max(each.end, window_end(second, each.seconds)) for each in windows}
    last = max((each for each in windows if left[each] < cost), key=lambda each: (end[each], -left[each]))
    remaining, reset = max(left[last], 0), end[last] - second
    return _new_standing((False, last.name, last.rate, remaining, reset, plan.policy))


def headers(standing: Standing) -> tuple[tuple[str, str], tuple[str, str]]:
    """`RateLimit-Policy` and `RateLimit` (IETF draft-ietf-httpapi-ratelimit-headers-10)."""
    _, name, _, remaining, reset, policy = standing
    return ("RateLimit-Policy", policy), ("RateLimit", f'"{name}";r={remaining};t={reset}')
