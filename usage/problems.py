"""Refusals as everyone sends them: problem documents (RFC 9457) and the headers that go with them.

The gateway, the machine API and `@require_key` answer through here, so that a code means the same at every
door. Nothing here decides anything, and nothing that a client sent is repeated but its own address.
"""

import json
import logging
import math
import time
import traceback
from functools import lru_cache
from http import HTTPStatus

from django.conf import settings
from django.http import HttpResponse

from keys.records import brownout_until
from keys.verdicts import Code
from usage import limits, metering

type Headers = tuple[tuple[str, str], ...]

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = "1"
# Names of their own, as `VALID`.
IP_NOT_ALLOWED, RATE_LIMITED, QUOTA_EXCEEDED = Code.IP_NOT_ALLOWED, Code.RATE_LIMITED, Code.QUOTA_EXCEEDED
BROWNOUT = Code.BROWNOUT
STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
NO_STORE = ("Cache-Control", "no-store")
_NOTHING: Headers = ()
# A refusal has a body, and a proxy may hand it to a browser.
_INERT = (
    ("Content-Type", CONTENT_TYPE),
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
)


def refusal(
    decision: metering.Decided | metering.Decision,
    status: int | None = None,
    address: str = "",
    first: Headers = _NOTHING,
) -> tuple[bytes, Headers]:
    """Body and headers for a decision that is not an allow.

    `status` is the one that is sent, if not the code's own; `address` is the client's, for it to read;
    `first` are headers to begin with.
    """
    code, _, detail, request, standing, balance = decision[:6]
    if code is IP_NOT_ALLOWED and not detail and address:
        detail = f"This API key may not be used from {address}."
    violated = ""
    if code is QUOTA_EXCEEDED and balance is not None:
        violated = balance.name
    elif code is RATE_LIMITED and standing is not None:
        violated = standing.name
    retry = retry_seconds(decision)
    begin, common = describe(code.text, detail, status or code.status, violated)
    headers = first + common
    if standing is not None:
        headers += limits.headers(standing)
    if retry:
        headers += (("Retry-After", str(retry)),)
    return finish(begin, request), headers


def finish(begin: str, request: str) -> bytes:
    """The document that `describe` began, with this id of ours: nothing in it needs escaping."""
    return f'{begin}{request}"}}'.encode()


def retry_seconds(decision: metering.Decided | metering.Decision) -> int:
    """After so many seconds the same call may be let in; 0: no time alone helps, or `describe` says it."""
    code, secret, _, _, standing, balance = decision[:6]
    if code is QUOTA_EXCEEDED and balance is not None:
        return balance.retry
    if code is RATE_LIMITED and standing is not None:
        return standing.reset
    if code is BROWNOUT and secret is not None:
        return max(math.ceil(brownout_until(secret.key, time.time()) - time.time()), 1)
    return 0


@lru_cache(maxsize=4096)
def describe(name: str, detail: str, status: int, violated: str = "") -> tuple[str, Headers]:
    """What all refusals of one kind have in common, made once, for they come in floods: the document up to
    the value of its last member, `request` (see `finish`), and the headers beside it. The code goes by its
    name: to hash a member of an enum takes longer than all the rest."""
    code = Code[name]
    detail = detail or code.sentence
    problem: dict[str, object] = {
        "type": f"{settings.PORTAL_URL}/docs/errors/#{code.text}",
        "title": code.title,
        "status": status,
        "detail": detail,
        "code": code.text,
    }
    headers = [NO_STORE, *_INERT]
    if violated:
        problem["type"] = "https://iana.org/assignments/http-problem-types#quota-exceeded"
        problem["violated-policies"] = [violated]
    elif code is Code.UNAVAILABLE:
        headers.append(("Retry-After", RETRY_SECONDS))
    if challenge := _challenge(code, detail):
        headers.append(("WWW-Authenticate", challenge))
    return json.dumps(problem)[:-1] + ', "request": "', tuple(headers)


def refusal_response(decision: metering.Decision, *, address: str = "") -> HttpResponse:
    """The same for a view. The client learns the code and the call's id, and not whose key it was."""
    body, headers = refusal(decision, address=address)
    return HttpResponse(
        body,
        status=decision.code.status,
        headers=dict(headers + client_headers(decision)),
    )


def client_headers(decision: metering.Decision) -> Headers:
    """What an answer to the client itself says of the decision: a proxy gets more."""
    return ("X-Portal-Code", decision.code.text), ("X-Portal-Request", decision.request)


def plain(
    status: int, code: str, detail: str, *, request: str = "", **members: object
) -> tuple[bytes, Headers]:
    """A problem that is no verdict on a key: its type is the status alone (RFC 9457, section 4.2.1)."""
    problem: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request": request,
        **members,
    }
    return json.dumps(problem).encode(), (NO_STORE, *_INERT)


def log_bug(logger: logging.Logger, error: BaseException) -> None:
    """The place, but not the message: it could quote what the client sent."""
    place = "".join(traceback.format_tb(error.__traceback__))
    logger.error("Refused after %s:\n%s", type(error).__name__, place)


def _challenge(code: Code, detail: str) -> str:
    """RFC 6750, section 3: no error code where no credential was sent."""
    if code is Code.MISSING_CREDENTIAL:
        return 'Bearer realm="api"'
    if code.status == 401:
        error = "invalid_token"
    elif code is Code.INSUFFICIENT_SCOPE:
        error = "insufficient_scope"
    elif code is Code.MULTIPLE_CREDENTIALS:
        error = "invalid_request"
    else:
        return ""
    shown = "".join(letter for letter in detail if " " <= letter <= "~" and letter not in '"\\')
    return f'Bearer realm="api", error="{error}", error_description="{shown}"'
