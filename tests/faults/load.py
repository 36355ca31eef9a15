"""Clients of the gateway: connections that are kept, answers with the moment at which their call began."""

import http.client
import threading
import time
from typing import NamedTuple, Self

from tests.waiting import until

AUTHORIZE = "/gateway/authorize"
SILENT_SECONDS = 10  # no answer for so long: there is none


class Answer(NamedTuple):
    """`began` is monotonic seconds, taken before anything was sent; /readyz has neither code nor request."""

    began: float
    status: int
    code: str
    request: str
    retry_after: str | None

    @property
    def spool(self) -> str:
        """The journal of the process that answered; empty when the call could not be recorded."""
        return self.request.partition("-")[0]


class NoServer(Exception):
    """Nobody listens."""


class NoAnswer(Exception):
    """The call may have been sent, and its answer never came."""


class Caller:
    """One connection to the gateway, and so to one of its processes, for as long as it lasts."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, secret: str, path: str = AUTHORIZE) -> Answer:
        """One call. Raises NoServer or NoAnswer; the next call then begins with a new connection."""
        if self._connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SILENT_SECONDS)
            try:
                connection.connect()
            except OSError as error:
                raise NoServer from error
            self._connection = connection
        began = time.monotonic()
        try:
            self._connection.request(
                "GET", path, headers={"Authorization": f"Bearer {secret}", "User-Agent": "load"}
            )
            response = self._connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NoAnswer from error
        headers = response.headers
        return Answer(
            began,
            response.status,
            headers.get("X-Portal-Code", ""),
            headers.get("X-Portal-Request", ""),
            headers["Retry-After"],
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Watch:
    """Calls with one key again and again while its context lasts; `answers` are in order."""

    def __init__(self, port: int, secret: str) -> None:
        self.answers: list[Answer] = []
        self._caller = Caller(port)
        self._secret = secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._caller.close()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            self.answers.append(self._caller.ask(self._secret))

    def last_allowed(self) -> float:
        """When the last call that was allowed began."""
        return max(answer.began for answer in self.answers if answer.status == 200)

    def since(self, moment: float) -> set[int]:
        """The statuses of the calls that began after `moment`; waits for the first."""
        return until(
            lambda: {answer.status for answer in self.answers if answer.began > moment},
            SILENT_SECONDS,
            why="nobody answers any more",
        )


def one_for_each_worker(port: int, secret: str, workers: int) -> dict[str, Caller]:
    """Spool → a caller whose connection is with that process; dials until every worker has answered.

    The kernel spreads connections between the workers by chance.
    """
    callers: dict[str, Caller] = {}
    deadline = time.monotonic() + 20
    while len(callers) < workers:
        assert time.monotonic() < deadline, f"only {len(callers)} of {workers} workers answer"
        caller = Caller(port)
        spool = caller.ask(secret).spool
        if callers.setdefault(spool, caller) is not caller:
            caller.close()
    return callers
