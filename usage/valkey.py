"""Rate windows that processes and hosts share, on Valkey: one script call checks all and then spends all.

Valkey's clock alone decides which window it is, and a window is a number that expires when the window ends.
Without Valkey the answer is what `VALKEY_AWAY` says: this process's own windows, or `WindowsAway`. It never
allows because of an error, and no call waits for Valkey while it is known to be away.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import redis
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as TimedOut

from keys.records import KeyRecord
from usage.limits import Plan, Standing, Window, Windows, WindowsAway, judge, window_end

logger = logging.getLogger(__name__)

TIMEOUT: Final = 0.25  # seconds for one answer
AWAY_SECONDS: Final = 1.0  # between two tries while Valkey is away
_PLANS: Final = 100_000  # plans in memory before they are forgotten; they hold no counts
_SCHEMES = {"valkey": "redis", "valkeys": "rediss", "redis": "redis", "rediss": "rediss", "unix": "unix"}

# KEYS: the windows. ARGV: the cost, then each window's limit and seconds. Returns Valkey's second and what
# was spent before. A window's number goes with its end: Valkey drops a key once its clock is past the
# millisecond that is given, which therefore is the window's last.
_SCRIPT: Final = b"""
local cost = tonumber(ARGV[1])
local second = tonumber(redis.call('TIME')[1])
local spent = redis.call('MGET', unpack(KEYS))
local fits = cost > 0
for i = 1, #KEYS do
  spent[i] = tonumber(spent[i] or 0)
  if spent[i] + cost > tonumber(ARGV[2 * i]) then fits = false end
end
if fits then
  for i = 1, #KEYS do
    redis.call('INCRBY', KEYS[i], ARGV[1])
    if spent[i] == 0 then
      local seconds = tonumber(ARGV[2 * i + 1])
      redis.call('PEXPIREAT', KEYS[i], (math.floor(second / seconds) + 1) * seconds * 1000 - 1)
    end
  end
end
return {second, unpack(spent)}
"""
_SHA: Final = hashlib.sha1(_SCRIPT, usedforsecurity=False).hexdigest().encode()


class _SharedPlan(Plan):
    """A plan with what is the same in each of its calls' commands: all but the cost."""

    __slots__ = ("_after", "_before")

    def __init__(self, key: KeyRecord) -> None:
        super().__init__(key)
        # The braces keep an organization's windows together where a cluster spreads keys.
        names = [
            f"latchkey:{{{key.organization.id}}}:{each.owner[0]}:{each.owner[1]}:{each.rate.text}".encode()
            for each in self.windows
        ]
        limits = [b"%d" % number for each in self.windows for number in (each.limit, each.seconds)]
        words = [b"EVALSHA", _SHA, b"%d" % len(names), *names]
        self._before = b"*%d\r\n" % (len(words) + 1 + len(limits)) + _words(words)
        self._after = _words(limits)

    def command(self, cost: int) -> bytes:
        return self._before + _words([b"%d" % cost]) + self._after


class SharedWindows:
    """Thread-safe; each thread has a connection of its own."""

    def __init__(
        self,
        url: str,
        *,
        refuse_when_away: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = redis.ConnectionPool.from_url(
            plain_url(url), socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, max_connections=1024
        )
        self._refuse_when_away = refuse_when_away
        self._monotonic = monotonic
        self._own = Windows()
        self._plans: dict[int, _SharedPlan] = {}
        self._threads = threading.local()
        self._mutex = threading.Lock()  # who tries whether Valkey is back
        self._away_until = float("-inf")
        self._is_away = False

    def spend(self, key: KeyRecord, cost: int, now: float) -> Standing | None:
        """As `RateWindows.spend`; `now` counts only while Valkey is away."""
        plan = self._plans.get(key.id)
        if plan is None or plan.own is not key.rates or plan.shared is not key.organization.rates:
            plan = self._plan(key)
        if not plan.windows:
            return None
        answer = self._ask(plan.command(cost))
        if answer is not None:
            return self._standing(plan, cost, *answer)
        if self._refuse_when_away:
            raise WindowsAway
        return self._own.spend(key, cost, now)

    def explain(self) -> tuple[str, bool]:
        """As `RateWindows.explain`; asks Valkey."""
        if self._ask(_pack([b"PING"])) is not None:
            return "", False
        if self._refuse_when_away:
            return "Valkey does not answer; calls with a rate limit are refused", True
        return "Valkey does not answer; each process counts rate windows of its own", False

    @staticmethod
    def _standing(plan: Plan, cost: int, second: int, *spent: int) -> Standing:
        windows = [
            Window(*each.owner, each.rate, window_end(second, each.seconds), before)
            for each, before in zip(plan.windows, spent, strict=True)
        ]
        return judge(plan, windows, cost, second)

    def _plan(self, key: KeyRecord) -> _SharedPlan:
        if len(self._plans) >= _PLANS:
            self._plans = {}
        plan = self._plans[key.id] = _SharedPlan(key)
        return plan

    def _ask(self, command: bytes) -> Any:  # what Valkey answers to a command
        """Valkey's answer, or None while it is away: then one call a second tries, and the others do not
        wait."""
        if self._is_away:
            with self._mutex:
                now = self._monotonic()
                if now < self._away_until:
                    return None
                self._away_until = now + AWAY_SECONDS
        try:
            answer = self._round_trip(command)
        except (RedisError, OSError) as error:
            if not self._is_away:
                self._is_away = True
                # The kind only: a message could hold the URL's password.
                logger.error("Valkey does not answer (%s).", type(error).__name__)
            return None
        if self._is_away:
            self._is_away = False
            logger.info("Valkey answers again.")
        return answer

    def _round_trip(self, command: bytes) -> Any:  # as above
        """A connection that was lost while idle is made anew, once; what the lost one had already spent is
        spent twice then, which refuses too early and never too late."""
        connection = getattr(self._threads, "connection", None)
        fresh = connection is None
        if connection is None:
            connection = self._threads.connection = self._pool.make_connection()
        try:
            return _exchange(connection, command)
        except (ConnectionLost, OSError) as error:
            connection.disconnect()
            if fresh or isinstance(error, (TimedOut, TimeoutError)):
                raise
            return _exchange(connection, command)
        except RedisError:
            connection.disconnect()  # whatever is still on its way must not answer the next call
            raise


def _exchange(connection: Any, command: bytes) -> Any:  # redis-py's connections share no public type
    # Straight to the connection: the client's own `evalsha` costs five times as much.
    connection.send_packed_command([command], check_health=False)
    try:
        return connection.read_response()
    except NoScriptError:
        connection.send_packed_command([_pack([b"SCRIPT", b"LOAD", _SCRIPT])], check_health=False)
        connection.read_response()
        connection.send_packed_command([command], check_health=False)
        return connection.read_response()


def _pack(words: list[bytes]) -> bytes:
    """A command in RESP, the protocol of Redis and Valkey."""
    return b"*%d\r\n" % len(words) + _words(words)


def _words(words: list[bytes]) -> bytes:
    return b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@lru_cache(maxsize=1)
def plain_url(url: str) -> str:
    """`url` as the client library knows it: `valkey://` is its `redis://`. Raises ValueError."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in _SCHEMES or not rest:
        raise ValueError("it begins with valkey://, valkeys:// (TLS), or unix://")
    plain = f"{_SCHEMES[scheme]}://{rest}"
    redis.ConnectionPool.from_url(plain)  # connects to nothing yet
    return plain
