"""Hard quotas in one process: each call's cost taken from all of its quotas, or from none.

A process spends from leases that `usage.ledger` grants it; it asks ahead of need, in a thread of its own, and
gives back what is idle. Near the cap blocks shrink to one call, so that all that may be spent can be, and a
lease that is spent while the database is away means 503, never an allow. It reads no key and writes no
journal: whoever spends records which quotas were charged, or gives the cost back.
"""

import datetime as dt
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from django.db import DatabaseError, connection

from keys.models import Environment
from keys.quotas import Quota
from keys.records import KeyRecord
from keys.verdicts import VALID, Code
from usage import ledger
from usage.accounts import Account, Balance, Plan, new_balance
from usage.ledger import Held, Place

__all__ = ["Balance", "Quotas"]

logger = logging.getLogger(__name__)

WAIT_SECONDS: Final = 1.0  # that a call waits for the database
WAITERS: Final = 16  # calls that wait at once: half of the server's threads, the others go on
TICK_SECONDS: Final = 0.5  # between two looks for what is idle
SHARED_SECONDS: Final = 0.25  # a quota that is used up but for others' leases is not asked about again
SPENT_SECONDS: Final = 1.0  # nor one that is used up altogether
QUIET_SECONDS: Final = 2.0  # without a question, until the connection is given back
PROCESSES_SECONDS: Final = 1.0  # how old the number of processes may be
# Without the database for so long a lease may have been given up by others; it is spent no more.
LOST_SECONDS: Final = 3600.0
_SWEEP_AT: Final = 10_000  # accounts or plans in memory before those that are over are forgotten
_BATCH: Final = 200  # accounts in one visit of the ledger


class _Visit(NamedTuple):
    """What a visit of the ledger decided, to be applied once it is committed."""

    account: Account
    start: int
    granted: int
    more: int
    available: int
    others: int


class Quotas:
    """This process's accounts. Thread-safe; `start()` has a thread ask the ledger, else callers do.

    `spool` is this process's name in the ledger, that of its journal.
    """

    def __init__(
        self,
        spool: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.spool = spool
        self._monotonic = monotonic
        self._clock = clock
        self._lock = threading.Lock()
        self._looked = threading.Condition(self._lock)
        self._plans: dict[tuple[int, str], Plan] = {}  # by key and meter
        self._accounts: dict[tuple[int, int, str, str], Account] = {}
        self._has_forgotten = False  # an account
        self._asked: dict[Account, None] = {}  # to be looked at, in this order
        self._waiting = 0  # calls
        self._looks = 0  # visits so far, failed ones included
        self._visiting_since: float | None = None
        self._trouble = False  # the last visit failed
        self._good_at = monotonic()
        self._processes, self._processes_at = 1, float("-inf")
        self._wake = threading.Event()
        self._is_threaded = self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """From the first call with a quota on, ask in a thread, so that a silent database holds no caller."""
        self._is_threaded = True

    def close(self) -> None:
        """Spend no more, and give everything back."""
        with self._lock:
            self._closed = True
            self._looked.notify_all()
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join(timeout=5)  # a silent database keeps it; then the drain settles what is left

    def explain(self) -> str:
        """What is not as it should be; empty when all is well."""
        with self._lock:
            if self._trouble or self._is_silent(self._monotonic()):
                return "quotas cannot be asked about; calls beyond what this process holds of one are refused"
        return ""

    # --- on the gateway's path -----------------------------------------------------------------------

    def spend(self, key: KeyRecord, meter: str, cost: int, now: float) -> Balance | None:
        """Take `cost` from every quota of the key and its organization on this meter, or from none.

        `now` is epoch seconds; a clock that went back stays in the later period. None: no quota applies, or
        the call costs nothing. Otherwise the balance's code says whether it was taken; UNAVAILABLE is for a
        ledger that cannot be asked.
        """
        if not cost:
            return None
        second = int(now)
        with self._lock:
            plan = self._plans.get((key.id, meter))
            if plan is None or plan.own is not key.quotas or plan.shared is not key.organization.quotas:
                plan = self._plan(key, meter)
            accounts = plan.accounts
            if not accounts:
                return None
            for account in accounts:
                if second >= account.end:
                    account.begin(second)
                if account.left < cost:
                    break
            else:
                return self._take(accounts, cost, second)
            return self._take_later(accounts, cost, second)

    def give_back(self, key: KeyRecord, cost: int, balance: Balance) -> None:
        """Undo a `spend` whose call was not made after all."""
        with self._lock:
            plan = self._plans.get((key.id, balance.quota.meter))
            for account in plan.accounts if plan is not None else ():
                # Not into a period that has begun since, nor into a quota that came since.
                if (
                    balance.charged & account.bit
                    and account.start * 1_000_000 < balance.before <= account.before
                ):
                    account.left += cost
                    account.spent = max(account.spent - cost, 0)

    def _take(self, accounts: Iterable[Account], cost: int, second: int) -> Balance:
        """All have enough left. The lock is held."""
        charged, before, least, tightest = 0, 0, -1, None
        for account in accounts:
            left = account.left = account.left - cost
            account.spent += cost
            if left < account.low and not account.asked:
                self._ask(account)
            charged |= account.bit
            left += account.available
            if left < least or least < 0:
                least, tightest = left, account
            if account.before < before or not before:
                before = account.before
        assert tightest is not None
        reset = tightest.end - second
        return new_balance((VALID, tightest.name, tightest.quota, least, reset, 0, charged, before))

    def _take_later(self, accounts: tuple[Account, ...], cost: int, second: int) -> Balance:
        """Have the ledger asked, and wait for it a little. The lock is held, but not while waiting."""
        began = self._monotonic()
        is_waiting = False
        try:
            while True:
                now = self._monotonic()
                for account in accounts:
                    if second >= account.end:
                        account.begin(second)
                if refuses := self._refusing(accounts, cost, now):
                    return self._refusal(Code.QUOTA_EXCEEDED, refuses, second)
                short = [account for account in accounts if account.left < cost]
                if not short:
                    return self._take(accounts, cost, second)
                is_full = self._waiting >= WAITERS and not is_waiting
                is_late = now - began >= WAIT_SECONDS
                if self._closed or is_full or is_late or self._is_silent(now):
                    return self._refusal(Code.UNAVAILABLE, short[0], second)
                if not is_waiting:
                    self._waiting, is_waiting = self._waiting + 1, True
                for account in short:
                    missing = cost - account.left
                    account.least = min(account.least or missing, missing)
                    account.wanted += missing
                    self._ask(account)
                if not self._wait(began + WAIT_SECONDS - now):
                    return self._refusal(Code.UNAVAILABLE, short[0], second)
        finally:
            self._waiting -= is_waiting

    def _wait(self, seconds: float) -> bool:
        """Until the ledger was visited; False if it could not be. The lock is held, but not meanwhile."""
        looks = self._looks
        if not self._is_threaded:
            self._lock.release()
            try:
                self.look()
            except DatabaseError:
                return False
            finally:
                self._lock.acquire()
            return True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="quotas", daemon=True)
            self._thread.start()
        self._looked.wait_for(lambda: self._looks != looks or self._closed, timeout=seconds)
        return not self._trouble

    def _refusing(self, accounts: Iterable[Account], cost: int, now: float) -> Account | None:
        """The quota that is known to have too little, if any: of several, the one that ends last.

        While somebody asks anew, what was known goes on for the others."""
        found = [
            account
            for account in accounts
            if cost > account.quota.limit
            or (
                account.left + account.available < cost
                and now < account.known_until + (SPENT_SECONDS if account.asked else 0)
            )
        ]
        return max(found, key=lambda account: account.end, default=None)

    def _refusal(self, code: Code, account: Account, second: int) -> Balance:
        remaining = account.left + account.available
        reset = account.end - second
        retry = account.retry or reset
        return Balance(code, account.name, account.quota, remaining, reset, retry, 0, account.end * 1_000_000)

    def _is_silent(self, now: float) -> bool:
        """Has the ledger been asked for so long that it is no use to wait as well?"""
        return self._visiting_since is not None and now - self._visiting_since > WAIT_SECONDS

    def _ask(self, account: Account) -> None:
        """Have it looked at. The lock is held."""
        self._asked[account] = None
        account.asked = True
        self._wake.set()

    def _plan(self, key: KeyRecord, meter: str) -> Plan:
        """The lock is held."""
        organization = key.organization
        accounts = []
        if key.environment == Environment.LIVE:
            for owner, quotas in ((key.id, key.quotas), (0, organization.quotas)):
                accounts += [
                    self._account(organization.id, owner, quota) for quota in quotas if quota.meter == meter
                ]
        plan = self._plans[key.id, meter] = Plan(key, tuple(accounts))
        return plan

    def _account(self, organization: int, key: int, quota: Quota) -> Account:
        """The one that all plans share."""
        name = organization, key, quota.meter, quota.unit
        account = self._accounts.get(name)
        if account is None:
            account = Account(organization, key, quota, is_known=not self._has_forgotten)
            self._accounts[name] = account
        elif account.quota != quota:
            account.set_quota(quota)
        return account

    # --- the thread that asks ------------------------------------------------------------------------

    def _run(self) -> None:
        complained = False
        asked_at = self._monotonic()
        next_tick = asked_at + TICK_SECONDS
        while not self._closed:
            self._wake.wait(max(next_tick - self._monotonic(), 0))
            self._wake.clear()
            now = self._monotonic()
            if now >= next_tick:
                self.tick()
                next_tick = now + TICK_SECONDS
            if not self._asked:
                if now - asked_at > QUIET_SECONDS:
                    connection.close()
                continue
            asked_at = now
            try:
                self._look_twice()
                complained = False
            except Exception as error:  # the thread must outlive anything; calls are refused meanwhile
                if not complained:
                    logger.warning("Cannot ask about quotas: %s", str(error).splitlines()[:1])
                    complained = True
                connection.close()
                time.sleep(SHARED_SECONDS)
        try:
            self.give_everything_back()
        except Exception:
            logger.info("Could not give leases back; the end of the journal says it.")
        connection.close()

    def _look_twice(self) -> None:
        """A connection that was lost since the last look is made anew, once."""
        was_new = connection.connection is None
        try:
            self.look()
        except DatabaseError:
            connection.close()
            if was_new:
                raise
            self.look()

    def tick(self) -> None:
        """Each half second: what was not spent lately is to be given back."""
        with self._lock:
            now = self._monotonic()
            is_lost = now - self._good_at > LOST_SECONDS
            for account in self._accounts.values():
                given_up = 0
                if is_lost and account.granted is not None:
                    given_up = account.left + account.parked
                    account.granted -= given_up
                    account.left = account.parked = 0
                account.used, account.spent = account.spent, 0
                # What is given up, too: the ledger may hold it for this process still.
                if (given_up or account.is_idle) and not account.asked and account.end > self._clock():
                    self._ask(account)
            if (
                max(len(self._accounts), len(self._plans)) >= _SWEEP_AT
                and not self._waiting
                and not self._asked
            ):
                # What a call gives back to an account that is forgotten here is lost until the process ends.
                self._plans.clear()
                self._has_forgotten = True
                self._accounts = {
                    name: account
                    for name, account in self._accounts.items()
                    if account.end > self._clock()
                    and (account.left or account.parked or account.spent or account.used)
                }

    def give_everything_back(self) -> None:
        """At the end of the process. Raises DatabaseError."""
        with self._lock:
            self._closed = True
            for account in self._accounts.values():
                if account.left or account.parked:
                    self._ask(account)
        while self._asked:
            self.look()

    def look(self) -> None:
        """Visit the ledger once for what is asked. Raises DatabaseError; then it is asked still."""
        with self._lock:
            batch = {account.place: account for account in list(self._asked)[:_BATCH]}
            self._visiting_since = self._monotonic()
        visits: list[_Visit] = []

        def decide(place: Place, held: Held) -> int:
            with self._lock:
                account = batch[place]
                if account.place != place:  # its period ended meanwhile
                    return held.granted
                visits.append(self._decide(account, held))
                return visits[-1].granted

        failed = True
        try:
            self._renew(list(batch), decide)
            failed = False
        finally:
            with self._lock:
                for account in batch.values():
                    account.wanted = account.least = 0
                if not failed:  # else all stay asked: what was decided may stand in the ledger
                    self._apply(batch.values(), visits)
                self._trouble, self._visiting_since = failed, None
                self._looks += 1
                self._looked.notify_all()

    def _renew(self, places: list[Place], decide: Callable[[Place, Held], int]) -> None:
        now = self._monotonic()
        if now - self._processes_at > PROCESSES_SECONDS:
            self._processes, self._processes_at = ledger.live_processes(), now
        ledger.renew(self.spool, places, decide, dt.datetime.fromtimestamp(self._clock(), tz=dt.UTC))

    def _decide(self, account: Account, held: Held) -> _Visit:
        """How much to take or to give back. The use is locked in the ledger, and the lock is held."""
        # What this process believes counts: of an answer that got lost it never spent anything.
        granted = held.granted if account.granted is None else account.granted
        account.left, account.parked = account.left + account.parked, 0
        if granted and not held.granted:  # somebody has ended the lease: nothing of it may be spent
            granted = account.left = 0
        free = account.quota.limit - held.spent - held.others - max(granted - held.drained, 0)
        keep = 0 if self._closed else max(account.enough, account.wanted)
        # A lower limit takes back what it does not cover.
        surplus = min(max(account.left - keep, -free, 0), account.left)
        account.left -= surplus
        free = max(free + surplus, 0)
        more = 0
        if not surplus and not self._closed:
            share = free // (2 * self._processes)
            more = min(max(account.wanted, account.enough // 2 - account.left), share)
            if more < account.least:
                more = account.least if account.least <= free else 0
        if surplus:  # whether or not the ledger hears of it, it is no longer this process's to spend
            account.granted = granted - surplus
        return _Visit(account, account.start, granted - surplus + more, more, free - more, held.others)

    def _apply(self, looked_at: Iterable[Account], visits: Iterable[_Visit]) -> None:
        """The lock is held."""
        now = self._monotonic()
        for account in looked_at:
            account.asked = False
            self._asked.pop(account, None)
        for account, start, granted, more, available, others in visits:
            self._good_at = now
            if account.start != start:
                continue
            account.granted = granted
            account.left += more
            account.available = available
            account.retry = 1 if others else 0
            account.known_until = now + (SHARED_SECONDS if others or available else SPENT_SECONDS)
            account.low = max(account.left, more) // 2 if available else 0
