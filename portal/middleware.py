"""Security headers on every answer of Django's, bodies in chunks, and no encodings that nobody sends.

`headers` is outermost, because Django's own middlewares miss some: static files never reach the frame
options, and a bad host on an https portal is refused by the security middleware before it adds anything.
Values come from settings where Django has one; the content security policy is Django's own middleware, next
in line. Nothing here knows who asks.
"""

import codecs
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers
from django.utils.http import parse_header_parameters

_PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()"
# Pages of django-allauth and Django, not all of which say themselves that they are for nobody else.
_PERSONAL = ("/accounts/", "/admin/password_change/")
_STRANGE = "portal.strange_content_type"  # in the WSGI environment


def headers(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Add what an answer does not have yet."""
    always = {
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": settings.X_FRAME_OPTIONS,
        "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
        "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": _PERMISSIONS,
    }

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        for name, value in always.items():
            response.headers.setdefault(name, value)
        if request.path.startswith(_PERSONAL):
            add_never_cache_headers(response)
        return response

    return middleware


def judge_content_type(environ: dict[str, Any]) -> None:
    """Mark a request whose Content-Type is broken or states another encoding than UTF-8, and take it off.

    For the WSGI callable: of some of these Django cannot even make a request, and others make it raise
    wherever fields are read, in its CSRF check and once more in its error page. An unknown encoding is
    ignored, as Django does.
    """
    try:
        _, parameters = parse_header_parameters(environ.get("CONTENT_TYPE", ""))
        strange = codecs.lookup(parameters.get("charset", "utf-8")).name != "utf-8"
    except LookupError:
        strange = False
    except ValueError:
        strange = True
    if strange:
        environ[_STRANGE] = True
        environ["CONTENT_TYPE"] = ""


def take_chunks(environ: dict[str, Any]) -> None:
    """Let Django read a body that comes in chunks (RFC 9112, 7.1), as some clients send every body.

    For the WSGI callable: Django reads as much as Content-Length says, and takes a request without one for
    one without a body. So it is told the most that it reads, and the body's end is the end.
    """
    if "HTTP_TRANSFER_ENCODING" in environ and not environ.get("CONTENT_LENGTH"):
        environ["wsgi.input"] = _Chunks(environ["wsgi.input"])
        environ["CONTENT_LENGTH"] = str(settings.DATA_UPLOAD_MAX_MEMORY_SIZE)


class _Chunks:
    """A body whose length its end alone tells. Raises RequestDataTooBig where there is more than is read."""

    def __init__(self, stream: Any) -> None:  # a WSGI server's
        self._stream = stream
        self._left: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE

    def read(self, size: int) -> bytes:
        return self._counted(self._stream.read(size))

    def readline(self, size: int) -> bytes:
        return self._counted(self._stream.readline(size))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left <= 0 and self._stream.read(1):
            raise RequestDataTooBig
        return data


def utf8_only(
    get_response: Callable[[HttpRequest], HttpResponse],
) -> Callable[[HttpRequest], HttpResponse]:
    """Refuse what `judge_content_type` marked, before anything reads its fields."""

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.META.get(_STRANGE):
            return bad_request(request)
        if request.encoding is not None:
            request.encoding = "utf-8"  # of "UTF8" Django's form parser knows nothing
        return get_response(request)

    return middleware


def bad_request(request: HttpRequest) -> HttpResponse:
    """The page for junk. Returned, not raised: scanners' junk is no traceback in the log."""
    return render(request, "400.html", status=400)
