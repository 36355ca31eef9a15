"""The in-process picture of live keys that verification reads, and how it stays fresh.

One thread reads the audit feed every 250 ms, reloads what an event names and writes to the database how
far it has read before anyone relies on it (DESIGN, decisions 8 to 11). It loads the keys between two reads of
the feed, so that a start with many holds up neither calls nor revocations. Memory may be believed until
`start of the last good read + KEYS_STALE_SECONDS`; after that, and whenever memory cannot answer and the
database may not be asked, `Unavailable` is raised. It never guesses.
"""

import gc
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import QuerySet

from keys import presence
from keys.misses import Budget
from keys.models import AuditEvent, Feed, Key, Organization
from keys.records import Found, KeyRecord, OrganizationRecord, SecretRecord, is_live, read_keys
from keys.tokens import HINT, LENGTHS, MAX_LENGTH, sha256
from keys.tokens import digest as digest_of

__all__ = ["Directory", "KeyRecord", "OrganizationRecord", "SecretRecord", "Unavailable"]

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
HEALTHY_SECONDS = 2.0  # a good read no older than this: the database may be asked about a miss
ASK_SECONDS = 1.0  # how long a call waits for the answer about a miss
ASK_QUIET_SECONDS = 2.0  # without a miss, until the connection for them is given back
LOAD_CHUNK = 2000  # keys read at once
LOAD_SECONDS = 0.2  # of loading between two reads of the feed
RETIRE_SECONDS = 60.0  # between two looks for dead secrets while memory is full
OTHERS = 10_000  # remembered secrets that are not live, and digests that do not exist
MOST_HINTS = 100_000  # that are kept, some 10 MB
MAX_CLOCK_SKEW = 2.0  # seconds between this clock and the database's
# Characters, while imported secrets are there or may be.
ANY_LENGTH: Final = frozenset(range(MAX_LENGTH + 1))


# By hand: a flood of misses, or years of reading the feed, would pay for the ORM's compiler each time.
_FIND_KEY = "SELECT key_id FROM keys_secret WHERE digest = %s"
_READ_HEAD = "SELECT number, hash, {now} FROM keys_feed WHERE id = 1"
_EPOCH_NOW = {  # the database's clock, by its vendor
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) AS double precision)",
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
}


class Memory(Enum):
    """What memory says where it cannot say which secret it is."""

    UNHEARD = 0  # it has not met this one
    STALE = 1  # it is too old to be believed

    __hash__ = object.__hash__  # an enum's own takes longer than all else that is done with one


UNHEARD: Final = Memory.UNHEARD
STALE: Final = Memory.STALE
# How the name of an act begins, and what to do once at the beginning and after each such act. It is done
# before the act is acknowledged; when it raises, it is tried again, and nothing is acknowledged meanwhile.
type Follower = tuple[str, Callable[[], object]]


class Unavailable(Exception):
    """Memory cannot answer, and the database cannot be asked now. The caller says 503, never 401."""


class Directory:
    """The keys as this process knows them. Build one after the fork; `start()` it; `close()` it."""

    def __init__(
        self,
        *,
        process_id: str,
        lock_dir: Path,
        followers: Sequence[Follower] = (),
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        before_leaving: Callable[[], None] = lambda: None,
    ):
        self.process_id = process_id
        self._lock_path = lock_dir / f"{process_id}.lock"
        self._lock_fd: int | None = None
        self._followers = followers
        self.monotonic = monotonic
        self._before_leaving = before_leaving  # what the database must know once this process is off the list
        self._clock = clock  # epoch seconds: only what is kept at hand depends on it, never a verdict
        self._mutex = threading.Lock()  # guards every change to what follows; reads take no lock
        self._secrets: dict[bytes, SecretRecord] = {}
        self._others: dict[bytes, SecretRecord | None] = {}
        self._organizations: dict[int, OrganizationRecord] = {}
        self._prefixes: set[str] = {settings.KEY_PREFIX}
        self._lengths: Container[int] = ANY_LENGTH  # that a secret may have
        # All that a secret of ours may have, and of those that are known not to exist the last ones; what has
        # neither's hint needs no digest. None: it may have any.
        self._hints: set[str] | None = set()
        self._strange_hints: dict[str, None] = {}
        self._number = 0  # of the last event applied
        self._hash = ""  # its hash: another one under this number is another history
        self._generation = 0  # grows before anything is reloaded; see _query
        self._unacknowledged = True
        self._begun = False  # on the list of processes, with a place in the feed to go on from
        self._loaded_to = 0  # the id of the last key that was loaded
        self._knows_imports = False
        self._has_imports = False
        self._loaded = False
        self.believed_until = 0.0  # monotonic; memory may be believed before it
        self._last_good = float("-inf")  # monotonic; start of the last good read
        self._skew = 0.0  # seconds
        self._trouble = "the keys are being loaded"
        self._budget = Budget(monotonic)
        # Would `ask` find the budget spent? Without a lock or an exception, for floods come to this.
        self.will_not_ask = self._budget.is_spent
        self._retired_at = monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._asker: ThreadPoolExecutor | None = None
        self._asker_is_quiet = True  # it has no connection

    # --- reading, on the gateway's path -----------------------------------------------------------

    def recall(self, credential: str) -> SecretRecord | Memory | None:
        """The secret that this is, from memory alone: None if it is none, UNHEARD or STALE if memory cannot
        say."""
        if self.monotonic() >= self.believed_until:
            return STALE
        # A digest costs more than all else here, and a flood of what is made up comes to this.
        if len(credential) not in self._lengths:
            return UNHEARD
        if (
            (hints := self._hints) is not None
            and (hint := credential[HINT]) not in hints
            and hint not in self._strange_hints
        ):
            return UNHEARD
        try:
            digest = sha256(credential.encode()).digest()  # `digest_of`, spelled out
        except UnicodeEncodeError:  # lone surrogates, which no secret has
            return UNHEARD
        secret = self._secrets.get(digest)
        return self._others.get(digest, UNHEARD) if secret is None else secret

    def ask(self, credential: str) -> SecretRecord | None:
        """The secret that memory misses: brand new, or no longer live, or none.

        It may cost one query, within the process's budget. Raises Unavailable when that is spent or the
        database does not answer.
        """
        if not self._is_healthy():
            raise Unavailable("the database does not answer")
        if not self._budget.take(complete=self._is_complete):
            raise Unavailable("too many unknown keys at once")
        try:
            digest = digest_of(credential)
            if self._asker is None:  # never started: a command or a test, in its own thread
                return self._query(digest, credential[HINT])
            # In a thread of its own, so that a silent database holds no caller.
            answer = self._asker.submit(self._query_twice, digest, credential[HINT])
            try:
                return answer.result(timeout=ASK_SECONDS)
            finally:
                answer.cancel()  # if it has not begun, nobody waits for it any more
        except (TimeoutError, DatabaseError, RuntimeError) as error:
            raise Unavailable("the database does not answer") from error
        finally:
            self._budget.leave()

    @property
    def _is_complete(self) -> bool:
        return self._loaded and len(self._secrets) < settings.KEYS_IN_MEMORY

    def _is_healthy(self) -> bool:
        return self.monotonic() - self._last_good <= HEALTHY_SECONDS

    def begins_like_ours(self, text: str) -> bool:
        """Does `text` begin with a prefix that this portal's secrets have or had?"""
        prefix, underscore, _ = text.partition("_")
        return bool(underscore) and prefix in self._prefixes

    @property
    def knows_imports(self) -> bool:
        """May a credential in a foreign format be called malformed? Only while imported keys are all in."""
        return self._knows_imports and self._is_healthy()

    # --- state, for /readyz -----------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        return not self.explain()

    def explain(self) -> str:
        """Why this process should get no traffic; empty when it should."""
        if self.monotonic() >= self.believed_until:
            return self._trouble
        if not self._loaded:
            return f"the keys are being loaded, {len(self._secrets):,} so far"
        return ""

    @property
    def clock_agrees(self) -> bool | None:
        """Is this clock right by the database's? None when that was not asked for a while."""
        return abs(self._skew) <= MAX_CLOCK_SKEW if self._is_healthy() else None

    def _skewed(self) -> str:
        return f"this clock is {self._skew:+.1f} s off the database's"

    @property
    def size(self) -> int:
        """Secrets in memory."""
        return len(self._secrets)

    # --- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the process's lock and begin to read. Returns at once; `ready` says when it has."""
        if self._thread is not None:
            return
        self._lock_fd = presence.take_lock(self._lock_path)
        self._asker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="directory-ask")
        self._thread = threading.Thread(target=self._run, name="directory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop reading and give up the place among the serving processes."""
        with self._mutex:  # a round that is under way must not extend it again
            self._stop.set()
            self.believed_until = 0.0
            self._trouble = "this process is stopping"
        if self._thread is not None:
            self._thread.join(timeout=5)
        if self._asker is not None:
            # A silent database keeps the thread, and the process does not wait; one that exits has none left.
            with suppress(TimeoutError, RuntimeError):
                self._asker.submit(_let_go).result(timeout=ASK_SECONDS)
            self._asker.shutdown(wait=False, cancel_futures=True)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_path.unlink(missing_ok=True)
            self._lock_fd = None

    def _run(self) -> None:
        complained = False
        while not self._stop.is_set():
            pause = POLL_SECONDS
            try:
                self.refresh()
                complained = False
                if not self._loaded:
                    pause = 0
            except Exception as error:  # the thread must outlive anything; memory ages meanwhile
                self._trouble = "the database does not answer"
                if not complained:
                    logger.warning("Cannot read the feed: %s", str(error).splitlines()[:1])
                    complained = True
                connection.close()
            self._stop.wait(pause)
        try:
            self._before_leaving()
            presence.leave(self.process_id)
        except DatabaseError:
            logger.info("Could not sign off; the free lock says it.")
        connection.close()

    # --- staying fresh ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """One round: read the feed, apply it, acknowledge it, and only then rely on it; load some keys."""
        began = self.monotonic()
        if not self._begun:
            # On the list before the first read: a revocation from here on waits for this process.
            presence.join(self.process_id, socket.gethostname(), self._lock_path)
            self._begin()
            began = self.monotonic()
        self._catch_up()
        self._last_good = began
        if abs(self._skew) > MAX_CLOCK_SKEW:  # as just measured, however long that took
            # Expiries would be judged, and calls be counted, at a time that is not.
            with self._mutex:
                self.believed_until, self._trouble = 0.0, self._skewed()
            return
        stale = settings.KEYS_STALE_SECONDS
        if self._unacknowledged or began + stale - self.believed_until > stale / 12:
            if not presence.acknowledge(self.process_id, self._number):
                # Off the list, or too late on it: others may have stopped waiting for this process.
                # Get on it first, then read again, and rely on that.
                presence.join(self.process_id, socket.gethostname(), self._lock_path, self._number)
                began = self.monotonic()
                self._catch_up()
                if not presence.acknowledge(self.process_id, self._number):
                    return
            with self._mutex:
                if not self._stop.is_set():
                    self._unacknowledged = False
                    self.believed_until = began + stale
        if not self._loaded:
            self._load_some()
        self._retire_the_dead()
        self._quiet_the_asker()

    def _catch_up(self) -> None:
        """Apply the events after the last one applied."""
        before = self._clock()
        with connection.cursor() as cursor:
            cursor.execute(_READ_HEAD.format(now=_EPOCH_NOW[connection.vendor]))
            head, head_hash, database_now = cursor.fetchone()
        self._skew = _distance(before, self._clock(), database_now)
        while self._number < head:
            events = list(
                AuditEvent.objects.filter(number__gt=self._number, number__lte=head)
                .order_by("number")
                .values_list("number", "act", "organization_id", "key_id", "previous_hash", "hash")[
                    :LOAD_CHUNK
                ]
            )
            if not events or events[0][4] != self._hash:
                break
            self._apply([event[:4] for event in events])
            self._number, self._hash = events[-1][0], events[-1][5]
            self._unacknowledged = True
        if (self._number, self._hash) != (head, head_hash):
            self._begin_again()

    def _begin_again(self) -> None:
        """The database's history is not the one that was read: it was restored, or lost its last acts."""
        logger.error("The feed is not the one that was read so far; all keys are read again.")
        with self._mutex:
            self.believed_until, self._unacknowledged = 0.0, True
        self._begin()

    def _apply(self, events: Sequence[tuple[int, str, int | None, int | None]]) -> None:
        with self._mutex:
            self._generation += 1
        keys = {key for _, _, _, key in events if key is not None}
        organizations = {
            organization for _, act, organization, _ in events if organization and act.startswith("organ")
        }
        if any(act.startswith("policy.") for _, act, _, _ in events):
            organizations |= self._organizations.keys()
        for chunk in _chunks(organizations):
            self._reload_organizations(chunk)
        for chunk in _chunks(keys):
            self._reload_keys(chunk)
        for beginning, follow in self._followers:
            if any(act.startswith(beginning) for _, act, _, _ in events):
                follow()

    def _begin(self) -> None:
        """Forget everything, note from where in the feed to go on, and begin to load."""
        number, head_hash = Feed.objects.values_list("number", "hash").get(pk=1)
        for _, follow in self._followers:  # what they read is at least as new as this place in the feed
            follow()
        with self._mutex:
            for secret in itertools.chain(self._secrets.values(), self._others.values()):
                _supersede(secret)
            self._secrets, self._others, self._organizations = {}, {}, {}
            self._generation += 1
            self._number, self._hash = number, head_hash
            self._has_imports, self._lengths = False, ANY_LENGTH
            self._hints, self._strange_hints = set(), {}
        self._loaded_to, self._knows_imports, self._loaded = 0, False, False
        self._begun = True

    def _load_some(self) -> None:
        """Load for LOAD_SECONDS. Until all is in, a miss costs a query as one beyond KEYS_IN_MEMORY does.

        What is read here is at least as new as the events that were applied; what comes later in the feed is
        read again then.
        """
        until = self.monotonic() + LOAD_SECONDS
        while not self._stop.is_set() and self.monotonic() < until:
            chunk = self._next_chunk()
            if not chunk:
                self._loaded = True
                self._trouble = "the database does not answer"
                return
            self._reload_keys(chunk)
            self._loaded_to = chunk[-1]
            if self._thread is not None and len(chunk) == LOAD_CHUNK:
                # Records hold no cycles. Millions of them would keep the collector busy, with the process
                # standing still meanwhile.
                gc.freeze()

    def _next_chunk(self) -> list[int]:
        """Ids of keys that belong in memory: first every imported one, of which a miss could not be told from
        junk, then live ones up to KEYS_IN_MEMORY. Empty when all are in."""
        if not self._knows_imports:
            imported = Key.objects.filter(secrets__imported=True, pk__gt=self._loaded_to).distinct()
            if chunk := _first(imported):
                return chunk
            with self._mutex:
                self._loaded_to, self._knows_imports = 0, True
                if not self._has_imports:
                    self._lengths = LENGTHS
        if len(self._secrets) >= settings.KEYS_IN_MEMORY:
            return []
        return _first(Key.objects.filter(pk__gt=self._loaded_to, revoked_at=None))

    def _reload_organizations(self, ids: Collection[int]) -> None:
        for row in Organization.objects.filter(pk__in=ids).select_related("policy"):
            record = self._organizations.get(row.pk)
            if record is not None:
                record.update(row)

    def _reload_keys(self, ids: Collection[int]) -> None:
        found = read_keys(ids, self._organizations)
        with self._mutex:
            self._keep(found)

    def _keep(self, found: Found) -> None:
        """Take over what was read. The mutex is held."""
        if self._hints is not None:
            self._hints |= found.hints
            if "" in found.hints or len(self._hints) > MOST_HINTS:
                self._hints = None
        for pk, record in found.organizations.items():
            first = self._organizations.setdefault(pk, record)
            if first is not record:  # another thread was quicker; all its keys must share one record
                for key, _ in found.keys:
                    if key.organization is record:
                        key.organization = first
        now = self._clock()
        for key, secrets in found.keys:
            self._place(key, secrets, now)

    def _retire_the_dead(self) -> None:
        """When memory is full, make room: what has expired or stopped need not be at hand."""
        now = self.monotonic()
        if len(self._secrets) < settings.KEYS_IN_MEMORY or now - self._retired_at < RETIRE_SECONDS:
            return
        self._retired_at = now
        moment = self._clock()
        with self._mutex:
            dead = [
                (digest, secret)
                for digest, secret in self._secrets.items()
                if not secret.imported and not is_live(secret, moment)
            ]
            for digest, secret in dead:
                self._remember(digest, secret)
                del self._secrets[digest]

    def _place(self, key: KeyRecord, secrets: dict[bytes, SecretRecord], now: float) -> None:
        """Put a key's secrets where they belong, in place of what was known. The mutex is held."""
        for digest, secret in secrets.items():
            if secret.prefix:
                self._prefixes.add(secret.prefix)
            if secret.imported:
                self._has_imports, self._lengths, self._hints = True, ANY_LENGTH, None
            before = self._secrets.get(digest) or self._others.get(digest)
            if secret.imported or (
                is_live(secret, now)
                and (digest in self._secrets or len(self._secrets) < settings.KEYS_IN_MEMORY)
            ):
                self._secrets[digest] = secret
                self._others.pop(digest, None)
            else:
                self._remember(digest, secret)
                self._secrets.pop(digest, None)
            _supersede(before)

    def _remember(self, digest: bytes, secret: SecretRecord | None) -> None:
        """Keep an answer that is not a live secret's; the oldest make room. The mutex is held."""
        self._others.pop(digest, None)
        self._others[digest] = secret
        if len(self._others) > OTHERS:
            _supersede(self._others.pop(next(iter(self._others))))

    # --- misses -----------------------------------------------------------------------------------

    def _query_twice(self, digest: bytes, hint: str) -> SecretRecord | None:
        """One miss. A connection that was lost since the last one is made anew, once."""
        if self._stop.is_set():
            raise DatabaseError
        try:
            return self._query(digest, hint)
        except DatabaseError:
            connection.close()
            if self._asker_is_quiet:  # it was new
                raise
        finally:
            self._asker_is_quiet = False
        return self._query(digest, hint)

    def _quiet_the_asker(self) -> None:
        """Give the connection for misses back, once there have been none for a while."""
        if (
            self._asker is not None
            and not self._asker_is_quiet
            and self.monotonic() - self._budget.asked_at > ASK_QUIET_SECONDS
        ):
            self._asker_is_quiet = True
            self._asker.submit(_let_go)

    def _query(self, digest: bytes, hint: str) -> SecretRecord | None:
        while True:
            generation = self._generation
            with connection.cursor() as cursor:
                cursor.execute(_FIND_KEY, [digest])
                row = cursor.fetchone()
            found = read_keys([row[0]], self._organizations) if row else None
            with self._mutex:
                # What is reloaded meanwhile may be newer than what was read here; then read again.
                if self._generation != generation:
                    continue
                if found is None or not found.keys:
                    self._budget.note(found=False)
                    self._remember(digest, None)
                    self._strange_hints.pop(hint, None)
                    self._strange_hints[hint] = None
                    if len(self._strange_hints) > OTHERS:
                        del self._strange_hints[next(iter(self._strange_hints))]
                    return None
                self._budget.note(found=True)
                self._keep(found)
                return found.keys[0][1].get(digest)


def _distance(before: float, after: float, other: float) -> float:
    """How far a clock is ahead of another (behind: negative) that was read between `before` and `after`."""
    return before - other if other < before else min(after - other, 0.0)


def _supersede(secret: SecretRecord | None) -> None:
    """Have whoever holds on to this record ask the directory again, which has another now, or none."""
    if secret is not None:
        secret.is_current = False


def _let_go() -> None:
    """Close the connection of the thread that runs this (`connection.close` would name the caller's)."""
    connection.close()


def _first(keys: QuerySet[Key]) -> list[int]:
    return list(keys.order_by("pk").values_list("pk", flat=True)[:LOAD_CHUNK])


def _chunks(ids: Iterable[int]) -> Iterator[list[int]]:
    everything = list(ids)
    for start in range(0, len(everything), LOAD_CHUNK):
        yield everything[start : start + LOAD_CHUNK]
