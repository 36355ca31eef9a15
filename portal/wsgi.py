"""What the server calls: the gateway and health beside Django, pages through it.

Pages may be slow, the gateway may not: only so many pages run or wait at once that threads are always left
for calls. Behind trusted proxies this is also where pages get the client's true address and scheme.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")

from django.core.wsgi import get_wsgi_application

_django: Callable[..., Any] = get_wsgi_application()  # a page's response, streaming or not

from portal import health, middleware  # noqa: E402  these need Django's apps to be ready
from usage import client  # noqa: E402  as above
from usage.gateway import Environ, StartResponse  # noqa: E402  as above
from usage.gateway import application as _gateway  # noqa: E402  as above

PAGES = 6  # pages that run at once in one process
WAITING = 6  # pages that may wait for one of these places
WAIT_SECONDS = 5.0
# What they cannot take of `portal.server.THREADS` is the gateway's.

_running = threading.BoundedSemaphore(PAGES)
_queue = threading.BoundedSemaphore(WAITING)


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Everything: `serve --role all`."""
    path = environ["PATH_INFO"]
    if path.startswith("/gateway/"):
        return _gateway(environ, start_response)
    if path in health.PATHS:
        return health.answer(environ, start_response, health.gateway)
    return _page(environ, start_response)


def gateway(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The gateway and health only: `serve --role gateway`."""
    path = environ["PATH_INFO"]
    if path.startswith("/gateway/"):
        return _gateway(environ, start_response)
    if path in health.PATHS:
        return health.answer(environ, start_response, health.gateway)
    return _nothing(start_response)


def pages(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Pages and health only: `serve --role portal`."""
    path = environ["PATH_INFO"]
    if path.startswith("/gateway/"):
        return _nothing(start_response)
    if path in health.PATHS:
        return health.answer(environ, start_response, health.pages)
    return _page(environ, start_response)


def _page(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    if not _enter():
        return health.respond(
            start_response,
            "503 Service Unavailable",
            "text/plain; charset=utf-8",
            b"Too many pages at once; try again in a moment.\n",
            ("Retry-After", "2"),
        )
    place = _Place()
    try:
        environ["wsgi.url_scheme"] = client.scheme(environ)
        environ["REMOTE_ADDR"] = client.address(environ) or environ["REMOTE_ADDR"]
        middleware.judge_content_type(environ)
        response = _django(environ, start_response)
        if not getattr(response, "streaming", True):
            try:
                return [b"".join(response)]
            finally:
                response.close()
                place.leave()
        return _Stream(response, place)
    except BaseException:
        place.leave()
        raise


def _nothing(start_response: StartResponse) -> list[bytes]:
    return health.respond(start_response, "404 Not Found", "text/plain", b"Not here.\n")


def _enter() -> bool:
    """Take a place for a page; wait a little if few others do."""
    if _running.acquire(blocking=False):
        return True
    if not _queue.acquire(blocking=False):
        return False
    try:
        return _running.acquire(timeout=WAIT_SECONDS)
    finally:
        _queue.release()


class _Place:
    """A page's place, given back once."""

    def __init__(self) -> None:
        self._taken = True

    def leave(self) -> None:
        if self._taken:
            self._taken = False
            _running.release()


class _Stream:
    """A streaming page, which keeps its place until it is sent, closed or dropped."""

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
