"""What the server calls: the gateway, health and metrics beside Django, pages and the machine API through it.

Pages may be slow, the gateway may not: only so many pages and so many calls of the API run or wait at once
that neither takes the other's place, and threads are always left for the gateway. Behind trusted proxies this
is also where Django gets the client's true address and scheme.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.core.wsgi import get_wsgi_application

_django: Callable[..., Any] = get_wsgi_application()  # a page's response, streaming or not

from portal import health, metrics, middleware, server, turns  # noqa: E402  these need Django's apps to be ready
from portal.api import PREFIX, answers  # noqa: E402  as above
from usage import client  # noqa: E402  as above
from usage.gateway import Environ, StartResponse  # noqa: E402  as above
from usage.gateway import answer as _answer  # noqa: E402  as above
from usage.gateway import application as _gateway  # noqa: E402  as above

WAIT_SECONDS = 5.0
# What pages and the API cannot take of `portal.server.THREADS` is the gateway's.


class Places:
    """How many requests of one kind may run at once in this process, and how many may wait to."""

    def __init__(self, running: int, waiting: int) -> None:
        self.running = running
        self.waiting = waiting
        self._running = threading.BoundedSemaphore(running)
        self._queue = threading.BoundedSemaphore(waiting)

    def enter(self) -> bool:
        """Take a place; wait a little if few others do."""
        if self._running.acquire(blocking=False):
            return True
        if not self._queue.acquire(blocking=False):
            return False
        try:
            return self._running.acquire(timeout=WAIT_SECONDS)
        finally:
            self._queue.release()

    def leave(self) -> None:
        self._running.release()


PAGES = Places(running=6, waiting=4)
CALLS = Places(running=6, waiting=12)  # of the machine API: each takes a moment, unless its body is slow

# What tells how a process is, by path.
_STATE = {**dict.fromkeys(health.PATHS, health.answer), metrics.PATH: metrics.answer}


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Everything: `serve --role all`."""
    path = environ["PATH_INFO"]
    if path.startswith("/gateway/"):
        return _gateway(environ, start_response)
    if path in _STATE:
        return _STATE[path](environ, start_response, health.gateway)
    return _through_django(environ, start_response)


def gateway(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The gateway, health and metrics only: `serve --role gateway`."""
    path = environ["PATH_INFO"]
    if path.startswith("/gateway/"):
        return _gateway(environ, start_response)
    if path in _STATE:
        return _STATE[path](environ, start_response, health.gateway)
    return _nothing(start_response)


def pages(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Pages, the machine API, health and metrics: `serve --role portal`."""
    path = environ["PATH_INFO"]
    if path.startswith("/gateway/"):
        return _nothing(start_response)
    if path in _STATE:
        return _STATE[path](environ, start_response, health.pages)
    return _through_django(environ, start_response)


# Where `portal.server` serves, the gateway's calls do not come this way at all.
for _each in (application, gateway):
    server.answer_directly(_each, "/gateway/", _answer)


def _through_django(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    is_call = environ["PATH_INFO"].startswith(PREFIX)
    places = CALLS if is_call else PAGES
    if not places.enter():
        if is_call:
            body, headers = answers.too_many_calls()
            start_response("503 Service Unavailable", [*headers])
            return [body]
        return health.respond(
            start_response,
            "503 Service Unavailable",
            "text/plain; charset=utf-8",
            b"Too many pages at once; try again in a moment.\n",
            ("Retry-After", "2"),
        )
    place = _Place(places)
    try:
        environ["wsgi.url_scheme"] = client.scheme(environ)
        environ["REMOTE_ADDR"] = client.address(environ) or environ["REMOTE_ADDR"]
        middleware.judge_content_type(environ)
        middleware.take_chunks(environ)
        with nullcontext() if is_call else turns.one():
            response = _django(environ, start_response)
            if getattr(response, "streaming", True):
                return _Stream(response, place)
            try:
                return [b"".join(response)]
            finally:
                response.close()
                place.leave()
    except BaseException:
        place.leave()
        raise


def _nothing(start_response: StartResponse) -> list[bytes]:
    return health.respond(start_response, "404 Not Found", "text/plain", b"Not here.\n")


class _Place:
    """A request's place, given back once."""

    def __init__(self, places: Places) -> None:
        self._places: Places | None = places

    def leave(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            places.leave()


class _Stream:
    """A streaming answer, which keeps its place until it is sent, closed or dropped."""

    def __init__(self, response: Any, place: _Place) -> None:  # any of Django's streaming responses
        self._response = response
        self._chunks: Iterator[bytes] = iter(response)
        self._place = place

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._chunks)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        close: Callable[[], None] | None = getattr(self._response, "close", None)
        self._response = None
        try:
            if close is not None:
                close()
        finally:
            self._place.leave()

    def __del__(self) -> None:
        self.close()
