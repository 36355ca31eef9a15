"""Every error of the machine API as a problem document, and every answer with the headers that all have.

Nothing that a client sent comes back: a field in the wrong place may hold a key. Whatever goes wrong on our
side is UNAVAILABLE (503), as at the gateway, and the log has the place without the words.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NoReturn

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.parser import Parser

from keys import lifecycle
from keys.verdicts import Code
from portal.api import PREFIX
from portal.api.callers import Refused
from usage import event_format, metering, problems

logger = logging.getLogger(__name__)

MAX_ERRORS = 20  # of one body; who has more sees the rest next time

# Problems that are no verdict on a key: status → code and sentence.
PLAIN: Final = {
    400: ("BAD_REQUEST", "The request cannot be understood."),
    403: ("FORBIDDEN", "This key may not do that."),
    404: ("NOT_FOUND", "There is nothing at this path."),
    405: ("METHOD_NOT_ALLOWED", "This path has other methods; Allow names them."),
    409: ("CONFLICT", "The state of things forbids this now."),
    413: ("TOO_LARGE", "The body is too large."),
    415: (
        "UNSUPPORTED_MEDIA_TYPE",
        "Send JSON in a Content-Type that Accept names (application/json will do), without Content-Encoding.",
    ),
    422: ("INVALID", "What was sent is well formed, but not what this call takes; errors says where."),
}
_NO_SUCH_SCOPE = "There is a scope that keys here may not hold, or get by the provider's approval alone."
_KEPT = ("Allow", "Retry-After")
_UNAVAILABLE = metering.Decision(Code.UNAVAILABLE)


class _Unsupported(Exception):
    """The body is not in a form that is read here; the arguments are the media types that are."""


class StrictParser(Parser):
    """JSON (RFC 8259) in UTF-8, objects with each name once, and nothing else."""

    def parse_body(self, request: HttpRequest) -> Any:  # JSON
        return _read_json(request, ("application/json",))


def exact_json(request: HttpRequest, kinds: Collection[str]) -> Any:  # JSON
    """The body, of one of these media types, as `StrictParser` reads it but with every number exactly as it
    is written: a Decimal, NaN for one beyond them. Raises HttpError."""
    try:
        return _read_json(request, kinds, event_format.number)
    except (ValueError, RecursionError, _Unsupported) as error:
        raise HttpError(400, "unreadable") from error


def _read_json(
    request: HttpRequest, kinds: Collection[str], number: Callable[[str], Any] | None = None
) -> Any:  # JSON
    if request.content_type not in kinds or _is_encoded(request):
        raise _Unsupported(*kinds)
    return json.loads(
        request.body.decode("utf-8"),
        object_pairs_hook=_each_name_once,
        parse_constant=_no_constant,
        parse_float=number,
        parse_int=number,
    )


def _is_encoded(request: HttpRequest) -> bool:
    return request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")


def _each_name_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a name twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError("NaN and infinities are no JSON")


def invalid_at(where: str, message: str, *path: str | int) -> ValidationError:
    """To be raised for what no schema says: `where` is body or query, `message` a sentence of ours."""
    argument = ("",) if where == "body" else ()  # which has no name here; `_place` leaves it out
    return ValidationError([{"type": "value_error", "loc": (where, *argument, *path), "msg": message}])


def problem(
    status: int,
    *,
    request: HttpRequest,
    detail: str = "",
    headers: Iterable[tuple[str, str]] = (),
    **members: object,
) -> HttpResponse:
    """A problem of PLAIN; `members` are JSON."""
    code, sentence = PLAIN[status]
    call = _call_of(request)
    body, own = problems.plain(status, code, detail or sentence, request=call, **members)
    return HttpResponse(body, status=status, headers=dict([*own, *headers, ("X-Portal-Request", call)]))


def _call_of(request: HttpRequest) -> str:
    """The id of the caller's own call; empty where it was not let in."""
    decision: metering.Decision | None = getattr(request, "auth", None)
    return "" if decision is None else decision.request


def handle_errors(api: NinjaAPI) -> None:
    """Give the API its exception handlers."""

    @api.exception_handler(Refused)
    def refused(request: HttpRequest, error: Any) -> HttpResponse:  # what is raised, or its class
        return problems.refusal_response(error.decision, address=error.address)

    @api.exception_handler(ValidationError)
    def invalid(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        return problem(422, request=request, errors=[_place(each) for each in error.errors[:MAX_ERRORS]])

    @api.exception_handler(lifecycle.Invalid)
    def not_allowed(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        where = "/".join(["body", *filter(None, [error.field])])
        return problem(422, request=request, errors=[{"location": where, "message": _sentence(error)}])

    @api.exception_handler(lifecycle.Conflict)
    def conflict(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        return problem(409, request=request, detail=error.sentence)

    @api.exception_handler(lifecycle.Forbidden)
    def forbidden(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        return problem(403, request=request, detail=error.sentence)

    @api.exception_handler(HttpError)
    def http_error(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        if error.status_code == 404:
            return problem(404, request=request)
        # django-ninja makes a 400 of whatever its parser raises.
        if isinstance(error.__cause__, _Unsupported):
            return problem(415, request=request, headers=[("Accept", ", ".join(error.__cause__.args))])
        return problem(400, request=request, detail="The body is not JSON in UTF-8, each name once.")

    @api.exception_handler(RequestDataTooBig)
    def too_big(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        return problem(413, request=request)

    @api.exception_handler(UnreadablePostError)
    def unreadable(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        return problem(400, request=request, detail="The body ended too early.")

    @api.exception_handler(Exception)
    def bug(request: HttpRequest, error: Any) -> HttpResponse:  # as above
        problems.log_bug(logger, error)
        return problems.refusal_response(_UNAVAILABLE)


def _sentence(refusal: lifecycle.Invalid) -> str:
    """Lifecycle's, which on pages names the scopes that somebody has just typed there."""
    return _NO_SUCH_SCOPE if refusal.field == "scopes" else refusal.sentence


def _place(error: dict[str, Any]) -> dict[str, str]:
    """Where it is wrong and why, in names of ours alone: an unknown field's name is the client's."""
    where, *path = error["loc"]
    path = path[1:] if where == "body" else path  # the name of the view's own argument
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        path, message = path[:-1], "There is an unknown field."
    elif error["type"] == "model_type":  # pydantic's words name a class of ours
        message = "Input should be an object"
    return {"location": "/".join([where, *map(str, path)]), "message": message}


def finish(view: Callable[..., Any]) -> Callable[..., Any]:
    """For django-ninja's `add_decorator`: what every operation's answer carries."""

    def finished(request: HttpRequest, **kwargs: Any) -> Any:  # the view's own
        response: HttpResponse = kwargs["response"]
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Portal-Request"] = _call_of(request)
        return view(request, **kwargs)

    return finished


def as_problems(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware: what Django itself refuses under `/v1/` (a path, a method, a host) is a problem as well."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if response.status_code < 400 or not request.path_info.startswith(PREFIX):
            return response
        if response.headers.get("Content-Type") == problems.CONTENT_TYPE:
            return response
        if response.status_code not in PLAIN:
            return problems.refusal_response(_UNAVAILABLE)
        kept = [(name, response.headers[name]) for name in _KEPT if name in response.headers]
        return problem(response.status_code, request=request, headers=kept)

    return middleware


def too_many_calls() -> tuple[bytes, problems.Headers]:
    """For the WSGI callable: all places are taken."""
    body, headers = problems.refusal(_UNAVAILABLE)
    return body, headers + problems.client_headers(_UNAVAILABLE)
