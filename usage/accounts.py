"""What one process knows of a quota: its lease of the current period, its last look, a call's balance.

Plain state without a lock, a clock or the database; `usage.quotas` has those and decides. Nothing else
changes an account.
"""

import datetime as dt
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from keys.quotas import Quota, period
from keys.records import KeyRecord
from keys.verdicts import Code
from usage.ledger import BITS, Place


class Balance(NamedTuple):
    """What became of a call at its quotas: the one with least left, or the one that refused it.

    `remaining` is this process's lease and what was free at its last look; `reset` and `retry` are seconds.
    `charged` are the bits for its record (`ledger.BITS`), which must be before `before` (µs since the epoch).
    """

    code: Code
    name: str  # e.g. `key-month`
    quota: Quota
    remaining: int
    reset: int
    retry: int
    charged: int
    before: int

    @property
    def sentence(self) -> str:
        """Why the call is refused; empty when the code says it all."""
        if self.code is not Code.QUOTA_EXCEEDED:
            return ""
        owner, _, unit = self.name.partition("-")
        whose = "this key" if owner == "key" else "this key’s organization"
        end = dt.datetime.fromtimestamp(self.before // 1_000_000, tz=dt.UTC)
        return (
            f"The quota of {self.quota.limit:,} {self.quota.meter} a {unit} of {whose} is used up; "
            f"it begins anew on {end:%-d %B %Y} at 00:00 UTC."
        )


# As in `metering`: the tuple without the named tuple's slow constructor.
new_balance: Callable[[tuple[Code, str, Quota, int, int, int, int, int]], Balance] = partial(
    tuple.__new__, Balance
)


class Account:
    """One owner's quota of one meter in this process: its lease of the current period, and its last look."""

    __slots__ = (
        "asked",
        "available",
        "before",
        "bit",
        "end",
        "granted",
        "is_known",
        "key",
        "known_until",
        "least",
        "left",
        "low",
        "meter",
        "name",
        "organization",
        "parked",
        "quota",
        "retry",
        "spent",
        "start",
        "unit",
        "used",
        "wanted",
    )  # fmt: skip

    def __init__(self, organization: int, key: int, quota: Quota, *, is_known: bool = True) -> None:
        """`is_known`: this process has not had an account of this name before."""
        self.organization, self.key, self.meter, self.unit = organization, key, quota.meter, quota.unit
        self.quota = quota
        self.name = f"{'key' if key else 'organization'}-{quota.unit}"
        self.bit = BITS[bool(key), quota.unit]
        self.is_known = is_known
        self.begin(0)

    def begin(self, second: int) -> None:
        """A new period, of which nothing is known yet; `second` since the epoch is in it."""
        start, end = period(self.unit, dt.datetime.fromtimestamp(second, tz=dt.UTC))
        self.start, self.end = int(start.timestamp()), int(end.timestamp()) if second else 0
        self.before = self.end * 1_000_000  # µs
        self.left = self.parked = 0  # `parked`: not to be spent before the next look
        # In all, less what was given back; None: as the ledger has it.
        self.granted: int | None = 0 if self.is_known else None
        self.is_known = self.is_known or second > 0
        self.available, self.known_until, self.retry = 0, float("-inf"), 0
        self.low = 0  # with less left than this, more is asked for
        self.asked = False  # about to be looked at, or being
        self.wanted, self.least = 0, 0  # by calls that wait: in all, and the least of them
        self.spent, self.used = 0, 0  # in this tick, in the one before

    def set_quota(self, quota: Quota) -> None:
        """Another limit holds. Under a lower one nothing is spent before the ledger has been asked."""
        if quota.limit < self.quota.limit:
            self.parked, self.left = self.parked + self.left, 0
        self.quota, self.known_until = quota, float("-inf")

    @property
    def place(self) -> Place:
        start = dt.datetime.fromtimestamp(self.start, tz=dt.UTC)
        return Place(self.organization, self.key, self.meter, self.unit, start)

    @property
    def is_idle(self) -> bool:
        """Is there more than what is spent in two seconds, or anything though nothing is?"""
        return self.parked > 0 or self.left > self.enough

    @property
    def enough(self) -> int:
        """What it may keep: more is taken when it has less than half, so that steady calls never wait."""
        return 4 * (self.spent + self.used)


class Plan:
    """The accounts that one key's calls on one meter spend from, for these very quotas."""

    __slots__ = ("accounts", "own", "shared")

    def __init__(self, key: KeyRecord, accounts: tuple[Account, ...]) -> None:
        self.own, self.shared = key.quotas, key.organization.quotas
        self.accounts = accounts
