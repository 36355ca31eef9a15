"""Refusals of this process, as its journal has them: the first few each for itself, a flood of them in sums.

It alone decides which refusal gets a record of its own, so that a flood of calls that are refused fills
neither the journal nor this process's memory. It never touches a call that is allowed, nor the database: what
becomes of the records there is `usage.refusal_log`'s.
"""

import logging
import threading
from typing import Final

from keys.records import SecretRecord
from usage.journal import Event, Journal, JournalError
from usage.segment import Labels

logger = logging.getLogger(__name__)

FIRST: Final = 20  # of one key (or of nobody) and code in a minute: records of their own
FLUSH_SECONDS: Final = 0.5  # what is summed is in the journal within a second
# Keys, codes, meters and resources are the provider's to make, and so bound the memory. Should there be many:
MAX_RUNS: Final = 10_000
MAX_SUMS: Final = 10_000
_MINUTE: Final = 60

# Secret, meter and resource: what a sum's record says besides whose it is and why. An address or a user agent
# would be the client's to vary.
type _Place = tuple[int, str, str]


class _Run:
    """The refusals of one key, or of nobody, with one code in one minute."""

    __slots__ = (
        "code", "count", "ids", "key", "labels", "more", "organization", "own", "secret", "sequence", "sums",
    )  # fmt: skip

    def __init__(self, organization: int, key: int, code: int) -> None:
        self.organization, self.key, self.code = organization, key, code
        self.own = 0  # have or get a record of their own
        self.sequence = 0  # of the last such record
        self.ids = ""  # what the request ids of those that are summed begin with
        self.more = 0  # were summed so far
        self.sums: dict[_Place, list[int]] = {}  # of these, what is not in the journal yet: one number each
        # The last that was summed, for the next is mostly like it, and where that is counted.
        self.secret: SecretRecord | None = None
        self.labels: Labels | None = None
        self.count = [0]


class Refusals:
    """One process's refusals, on their way into its journal. Thread-safe."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._first: float = FIRST
        self._lock = threading.Lock()  # guards what follows
        self._until = 0.0  # the end of the minute, epoch seconds
        self._runs: dict[int, _Run] = {}  # of the minute, by key and code
        self._unwritten: list[_Run] = []  # have sums
        self._places = 0  # in all the sums
        self._flusher: threading.Thread | None = None
        self._failed = False  # what is summed could not be written
        self._flushing = threading.Lock()  # one at a time: what fails is put back before the next
        self._stop = threading.Event()

    def record(self, code: int, secret: SecretRecord | None, cost: int, labels: Labels, now: float) -> str:
        """Record one refusal; returns its request id.

        `code` is `Code.number`; `now` is epoch seconds. Once a key has `FIRST` records with this code in a
        minute the rest is only counted here, and its id is that of the last record, a dot and a number. Such
        counts reach the journal within a second, so that only a kill loses them. Raises JournalError: the
        refusal is not recorded, or those before it could not be.
        """
        if self._failed or self._places >= MAX_SUMS:
            self.flush()
        self._lock.acquire()
        try:
            if now >= self._until:
                self._begin_minute(now)
            if secret is None:
                run = self._runs.get(code)
                if run is None:
                    run = self._begin(0, 0, code, code)
            else:
                key = secret.key
                name = key.id << 8 | code
                run = self._runs.get(name) or self._begin(key.organization.id, key.id, code, name)
            if run.own >= self._first and run.sequence:
                if run.labels is not labels or run.secret is not secret:
                    place = secret.id if secret else 0, labels[0], labels[1]
                    run.count = run.sums.get(place) or self._open(run, place)
                    run.labels, run.secret = labels, secret
                run.count[0] += 1
                run.more = more = run.more + 1
                return run.ids + str(more)
            run.own += 1
        finally:
            self._lock.release()
        return self._write(run, secret.id if secret else 0, cost, labels)

    def flush(self) -> None:
        """Write what was summed. Raises JournalError, with everything kept that was not written."""
        with self._flushing:
            with self._lock:
                runs, self._unwritten, self._places = self._unwritten, [], 0
                taken = [(run, place, calls) for run in runs for place, (calls,) in run.sums.items()]
                for run in runs:
                    run.sums, run.labels = {}, None
            written = 0
            try:
                for run, (secret, meter, resource), calls in taken:
                    # A cost below zero names the record that this one continues; refused calls cost nothing.
                    labels = meter, resource, "", ""
                    continued = -run.sequence
                    event = Event(run.organization, run.key, secret, run.code, continued, labels, calls)
                    self._journal.append(event, wait=False)
                    written += 1
                self._failed = False
            except JournalError:
                self._failed = True
                raise
            finally:
                if written < len(taken):
                    self._put_back(taken[written:])

    def close(self) -> None:
        """Write what was summed; whatever comes later gets a record of its own."""
        with self._lock:
            self._first = float("inf")
            flusher, self._flusher = self._flusher, None
        self._stop.set()
        try:
            self.flush()
        except JournalError as error:
            logger.error("Refusals that were summed are lost: %s", error)
        if flusher is not None:
            flusher.join(timeout=5)

    # --- under the lock ---

    def _begin_minute(self, now: float) -> None:
        """Forget the runs of the last minute; their sums are written with the next flush."""
        self._runs = {}
        self._until = (now // _MINUTE + 1) * _MINUTE

    def _begin(self, organization: int, key: int, code: int, name: int) -> _Run:
        if len(self._runs) >= MAX_RUNS:
            self._runs = {}
        run = self._runs[name] = _Run(organization, key, code)
        return run

    def _open(self, run: _Run, place: _Place) -> list[int]:
        """Make room for another place among the run's sums."""
        if not run.sums:
            self._unwritten.append(run)
        self._places += 1
        if self._flusher is None and not self._stop.is_set():
            self._flusher = threading.Thread(target=self._run_flusher, name="refusals", daemon=True)
            self._flusher.start()
        count = run.sums[place] = [0]
        return count

    # --- outside the lock ---

    def _write(self, run: _Run, secret: int, cost: int, labels: Labels) -> str:
        """Give one refusal its own record, which the next sums continue."""
        try:
            event = Event(run.organization, run.key, secret, run.code, cost, labels)
            sequence = self._journal.append(event)
        except JournalError:
            with self._lock:
                run.own -= 1
            raise
        request = self._journal.request_id(sequence)
        with self._lock:
            if not run.more:
                run.sequence, run.ids = sequence, f"{request}."
        return request

    def _put_back(self, sums: list[tuple[_Run, _Place, int]]) -> None:
        with self._lock:
            for run, place, calls in sums:
                (run.sums.get(place) or self._open(run, place))[0] += calls

    def _run_flusher(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except JournalError as error:
                logger.error("Refusals that were summed wait to be written: %s", error)
