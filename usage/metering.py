"""`authorize`: verify, limit, record. The only place where the three meet.

What it answers is in the journal before it answers. Nothing that goes wrong here ever becomes an allow: what
cannot be decided or recorded is UNAVAILABLE. It holds this process's directory, windows, quotas and journal.
"""

import itertools
import logging
import math
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, NamedTuple

from django.conf import settings

from keys.directory import Directory
from keys.records import KeyRecord, SecretRecord, told_from
from keys.verdicts import VALID, Code, Verdict
from keys.verification import decide
from usage import journal, meters, watermark
from usage.journal import Event
from usage.limits import RateWindows, Standing, Windows, WindowsAway
from usage.meters import REQUESTS
from usage.quotas import Balance, Quotas
from usage.records import CALL, HELD
from usage.refusals import Refusals
from usage.segment import Labels
from usage.traits import pack

logger = logging.getLogger(__name__)

_COMPLAIN_SECONDS = 10.0
_MOST_PASSES = 16_384  # that are remembered


class Decision(NamedTuple):
    """A verdict's code, secret and detail, and what came of the call besides.

    `request` finds this call later; it is empty when the call could not be recorded.
    """

    code: Code
    secret: SecretRecord | None = None
    detail: str = ""
    request: str = ""
    standing: Standing | None = None
    balance: Balance | None = None  # at its quotas

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.code, self.secret, self.detail)


# What a Decision is made of. As with `keys.verdicts.Facts`, the gateway's path does without the name.
# Last comes what the next such call that is allowed can be told by.
type Decided = tuple[Code, SecretRecord | None, str, str, Standing | None, Balance | None, "Pass | None"]
# A named tuple's own constructor costs twice as much.
_as_decision: Callable[[Sequence[object]], Decision] = partial(tuple.__new__, Decision)


class Process:
    """What this process decides with; made on first use, after any fork."""

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.monotonic = directory.monotonic
        self.windows = _make_windows()
        self.journal = journal.current()
        self.journal.clock.agrees = lambda: directory.clock_agrees
        self.append = self.journal.append
        self.begin = self.journal.request_id("")  # of a request's id
        self.quotas = Quotas(self.journal.spool)
        self.refusals = Refusals(self.journal)
        self.refuse = self.refusals.record


def _make_windows() -> RateWindows:
    if not settings.VALKEY_URL:
        return Windows()
    from usage.valkey import SharedWindows  # here: a portal without Valkey need not load its client

    return SharedWindows(settings.VALKEY_URL, refuse_when_away=settings.VALKEY_AWAY == "refuse")


process: Process | None = None  # None until it is asked for the first time
_lock = threading.Lock()
_complained = float("-inf")


def start(directory: Directory | None = None) -> Directory:
    """Begin to follow the keys (in the background) and return the directory; later calls change nothing.

    A test may bring a directory of its own. Raises JournalError when the journals' folder cannot be used.
    """
    global process
    with _lock:
        if process is None:
            is_own = directory is None
            if directory is None:
                mine = journal.current()
                # Opened before it is on the list of those that serve: a process on that list without a
                # journal would be waited for until it has one. Why it cannot be opened, `readiness` says.
                with suppress(journal.JournalError):
                    mine.start()
                directory = Directory(
                    process_id=mine.spool,
                    lock_dir=settings.USAGE_JOURNAL_DIR,
                    followers=[("meter.", meters.reload)],
                    before_leaving=partial(watermark.announce, mine),
                )
                meters.follow()
                try:
                    directory.start()
                except OSError as error:
                    raise journal.JournalError(f"cannot lock a file there: {error}") from error
            process = Process(directory)
            if is_own:
                process.quotas.start()
        return process.directory


def stop() -> None:
    """Sign off and seal the journal."""
    global process
    with _lock:
        if process is not None:
            process.quotas.close()  # while it is still on the list
            process.directory.close()
            process.refusals.close()
            process = None
            passes.clear()
        meters.forget()
        journal.reset()


def _current() -> Process:
    if process is None:
        start()
        assert process is not None
    return process


def begins_like_ours(text: str) -> bool:
    """Does `text` begin as this portal's keys do, now or formerly?"""
    return _current().directory.begins_like_ours(text)


@dataclass(slots=True, eq=False)
class Call:
    """What is asked of a call, and by whom; the same for most calls of a client, so that it is made once."""

    scopes: tuple[str, ...]  # all needed
    environment: str  # empty: either
    cost: int  # in the meter's smallest unit (`meters.cost`); 0 for a call that costs nothing
    labels: Labels  # meter, resource, address, and what `traits.pack` makes of the user agent
    hold: bool = False  # an event will say what the call really cost
    address: str = field(init=False)  # of the labels

    def __post_init__(self) -> None:
        self.address = self.labels[2]


# Calls that are described alike are one, for passes go by it.
_call = lru_cache(maxsize=8192)(Call)


# Passes go by what was presented, of which they keep two hashes and nothing else: CPython's own of a text
# (SipHash-1-3) is keyed anew in each process, and of a longer text it is another number. Nobody can foresee
# these 128 bits, nor read a secret from them; they cost a quarter of what SHA-256 does. Where it is not so,
# none is kept.
_HASHES_ARE_KEYED = (
    sys.flags.hash_randomization == 1
    and sys.hash_info.hash_bits == 64
    and sys.hash_info.algorithm.startswith("siphash")
)
_AGAIN = "\n"  # is in no header


class Pass(Event):
    """What a call that was allowed was found to be, for the next one in which the same is presented: but for
    limits nothing stands against that before `until`, while the secret's record is current and its
    organization is in the same `era`. (All else that is known of keys is replaced and never changed.)"""

    __slots__ = ("era", "is_limited", "organization", "proof", "renewed_at", "secret", "told", "until")

    def __init__(self, call: Call, secret: SecretRecord, proof: int, now: float) -> None:
        key = secret.key
        organization = key.organization
        self.proof, self.secret, self.organization = proof, secret, organization
        self.era = organization.era  # first: whatever is read after it is at least as new
        self.is_limited = bool(key.rates or key.quotas or organization.rates or organization.quotas)
        telling = told_from(key)
        self.renewed_at = telling if now < telling else math.inf  # what is told of the key changes then
        watched = key.expires_at - organization.caution if organization.caution < math.inf else -math.inf
        self.until = min(watched, secret.stops_at, self.renewed_at)
        self.told: Any = None  # what the door that asked tells of such a call, if it keeps that here
        kind = HELD if call.hold else CALL
        super().__init__(organization.id, key.id, secret.id, VALID.number, call.cost, call.labels, kind=kind)


_turns = itertools.count()
passes: OrderedDict[tuple[Call, int], Pass] = OrderedDict()


def pass_for(here: Process, call: Call, presented: str, now: float) -> Pass | None:
    """The pass that such a call has had, if it holds; limits are still to be asked.

    `presented` is what there is of the credential, in the form in which this caller always has it.
    """
    known = passes.get((call, hash(presented)))
    if (
        known is not None
        and known.proof == hash(presented + _AGAIN)
        and known.secret.is_current
        and known.era is known.organization.era
        and now < known.until
        and here.monotonic() < here.directory.believed_until
    ):
        return known
    return None


def _renew(call: Call, presented: str, secret: SecretRecord, now: float) -> Pass:
    """The pass of a call that is allowed now; kept for the next. Where there are more than can be, most are
    not met again soon: one in eight is let in, for which the oldest makes room. (To let go of all at once
    would hold up calls for milliseconds.)"""
    name, proof = (call, hash(presented)), hash(presented + _AGAIN)
    known = passes.get(name)
    if known is not None and known.proof == proof:
        is_as_it_was = known.secret is secret and known.era is secret.key.organization.era
        if is_as_it_was and now < known.renewed_at:
            return known  # it does not hold, for its days are such that each call is looked at
    made = Pass(call, secret, proof, now)
    if known is None and len(passes) >= _MOST_PASSES:
        if next(_turns) % 8:
            return made
        with suppress(KeyError):  # another thread may have emptied them
            passes.popitem(last=False)
    if _HASHES_ARE_KEYED:
        passes[name] = made
    return made


def authorize(
    credential: str,
    *,
    scopes: Sequence[str] = (),
    environment: str = "",
    cost: int = 1,
    meter: str = REQUESTS.name,
    resource: str = "",
    address: str = "",
    user_agent: str = "",
    hold: bool = False,
    traits: str = "",
    now: float,
) -> Decision:
    """May this credential make this call? Recorded and counted when it returns.

    `now` is epoch seconds; `address` is the client's, as text; a call that is allowed on `hold` counts as any
    other until an event settles it (`usage.events`); `traits` say how it came
    (`usage.traits`). Never raises for what a caller sends.
    """
    asked = tuple(scopes)
    labels = meter, resource, address, pack(user_agent, asked, traits)
    call = _call(asked, environment, meters.cost(meter, cost), labels, hold)
    return _as_decision(decide_call(credential, call, now)[:-1])


def decide_call(credential: str, call: Call, now: float) -> Decided:
    """As `authorize`, for a call that is described already; what a Decision is made of."""
    try:
        here = process or _current()
    except journal.JournalError as error:
        return not_recorded(error)
    return decide_anew(here, pass_for(here, call, credential, now), credential, credential, call, now)


def decide_anew(
    here: Process, known: Pass | None, presented: str, credential: str, call: Call, now: float
) -> Decided:
    """As `decide_call`, with the pass that holds, if one does."""
    secret = None
    try:
        if known is None:
            code, secret, detail = decide(
                credential, here.directory, now, call.scopes, call.environment, call.address
            )
            if code is not VALID or secret is None:
                request = here.refuse(code.number, secret, call.cost, call.labels, now)
                return code, secret, detail, request, None, None, None
            known = _renew(call, presented, secret, now)
        secret = known.secret
        if known.is_limited:
            return _limit(here, known, call, now)
        return VALID, secret, "", here.begin + str(here.append(known)), None, None, known
    except journal.JournalError as error:
        return not_recorded(error, secret)


def not_recorded(error: journal.JournalError, secret: SecretRecord | None = None) -> Decided:
    """What cannot be recorded is refused."""
    _complain(error)
    return Code.UNAVAILABLE, secret, "", "", None, None, None


def _limit(here: Process, known: Pass, call: Call, now: float) -> Decided:
    """The rest of `decide_call` for a valid call with limits. Raises JournalError."""
    secret = known.secret
    key = secret.key
    if key.quotas or known.organization.quotas:
        return _charge(here, known, call, now)
    code, detail, standing = _spend(here.windows, key, call.cost, now)
    if code is not VALID:
        request = here.refuse(code.number, secret, call.cost, call.labels, now)
        return code, secret, detail, request, standing, None, None
    return VALID, secret, "", here.begin + str(here.append(known)), standing, None, known


def _charge(here: Process, known: Pass, call: Call, now: float) -> Decided:
    """As `_limit`, with quotas. They are charged first, and given back what windows refuse: neither's refusal
    spends the other."""
    secret, cost, labels = known.secret, call.cost, call.labels
    key, quotas = secret.key, here.quotas
    standing, asked = None, not (key.rates or known.organization.rates)
    while True:
        code, detail = VALID, ""
        balance = quotas.spend(key, labels[0], cost, now)
        if balance is not None:
            code, detail = balance.code, balance.sentence
        if code is VALID and not asked:
            asked = True
            code, detail, standing = _spend(here.windows, key, cost, now)
            if code is not VALID and balance is not None:
                quotas.give_back(key, cost, balance)
                balance = None
        if code is not VALID:
            request = here.refuse(code.number, secret, cost, labels, now)
            return code, secret, detail, request, standing, balance, None
        charged, before = (0, 0) if balance is None else (balance.charged, balance.before)
        try:
            sequence = here.append(known, charged, before)
        except journal.TooLate:
            assert balance is not None
            quotas.give_back(key, cost, balance)
            now = before / 1_000_000  # the period has ended since; the next one has this call
        except journal.Unsure:
            raise  # it may count, so it stays charged
        except journal.JournalError:
            if balance is not None:
                quotas.give_back(key, cost, balance)
            raise
        else:
            return code, secret, detail, here.begin + str(sequence), standing, balance, known


def refuse(
    code: Code, *, detail: str = "", resource: str = "", address: str = "", user_agent: str = ""
) -> Decision:
    """A call that is refused before any key is looked at, recorded without one."""
    try:
        here = process or _current()
        labels = REQUESTS.name, resource, address, user_agent
        return Decision(code, None, detail, here.refuse(code.number, None, 0, labels, time.time()))
    except journal.JournalError as error:
        _complain(error)
        return Decision(Code.UNAVAILABLE)


def respond(decision: Decision, resource: str, status: int) -> None:
    """Record that the call, which was allowed, was answered with this HTTP status. Never raises: the answer
    goes out, recorded or not."""
    if decision.secret is None:
        return
    key = decision.secret.key
    status_class = status // 100 if 100 <= status < 600 else 5
    try:
        here = process or _current()
        here.journal.append_response(key.organization.id, key.id, resource, status_class)
    except journal.JournalError as error:
        _complain(error, "How calls are answered cannot be recorded")


def _spend(windows: RateWindows, key: KeyRecord, cost: int, now: float) -> tuple[Code, str, Standing | None]:
    """Code and detail once the limits have been asked too."""
    try:
        standing = windows.spend(key, cost, now)
    except WindowsAway:
        return Code.UNAVAILABLE, "", None
    if standing is None or standing.allowed:
        return VALID, "", standing
    return Code.RATE_LIMITED, _limit_sentence(standing, cost), standing


class Readiness(NamedTuple):
    """Why this process should get no calls (empty when it should), and what is amiss besides."""

    reasons: list[str]
    warnings: list[str]


def readiness() -> Readiness:
    """Is this process ready for calls? Opens the journal and asks Valkey, if there is one."""
    found = Readiness([], [])
    try:
        if why := start().explain():
            found.reasons.append(why)
        journal.current().start()
    except journal.JournalError as error:
        found.reasons.append(f"the journal: {error}")
        return found
    room = journal.current().room
    if room.is_full:
        found.reasons.append(f"the journal: {room.sentence}")
    elif room.alarm:
        found.warnings.append(room.sentence)
    amiss, refuses = _current().windows.explain()
    if amiss:
        (found.reasons if refuses else found.warnings).append(amiss)
    if amiss := _current().quotas.explain():
        found.warnings.append(amiss)
    return found


def secrets_in_memory() -> int:
    """How many live secrets this process knows; 0 where it has not begun to answer for keys."""
    return 0 if process is None else process.directory.size


def _limit_sentence(standing: Standing, cost: int) -> str:
    if cost > standing.rate.limit:
        return f"This call costs {cost}, more than the limit of {standing.rate.text} ever allows at once."
    return f"Too many requests: the limit is {standing.rate.text}; try again in {standing.reset} s."


def _complain(error: Exception, what: str = "Calls are refused because they cannot be recorded") -> None:
    """Log a failing journal, at most every ten seconds."""
    global _complained
    now = time.monotonic()
    if now - _complained > _COMPLAIN_SECONDS:
        _complained = now
        logger.error("%s: %s", what, error)


def _after_fork() -> None:
    global process, _lock
    process, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
