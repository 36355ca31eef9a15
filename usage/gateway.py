"""HTTP for proxies: reads headers, calls `authorize`, writes headers (CONTRACT, "Gateway").

A WSGI callable beside Django: no session, no template, no query on a warm key. What is asked of a call is the
proxy's word alone (the query of `/gateway/authorize`, the header `X-Portal-Rule` under `/gateway/envoy/`);
nothing that the client sends can change it. It decides nothing about keys itself.
"""

import logging
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from django.conf import settings

from keys.verdicts import VALID, Code
from usage import client, credentials, limits, metering, problems, rules
from usage.meters import REQUESTS
from usage.problems import NO_STORE, STATUS_LINES, Headers

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[[str, Headers], object]

MAX_RULE = 4096  # characters
_SINGLE = ("environment", "cost", "meter", "resource", "deny")
_FREE = ({"HEAD"}, {"OPTIONS"})
_OK = ("X-Portal-Status", "200")
_VALID = ("X-Portal-Code", "VALID")


class Rule(NamedTuple):
    """What a proxy asks of a call. `error` says why it is no rule."""

    scopes: tuple[str, ...] = ()
    environment: str = ""
    cost: int = 1
    meter: str = REQUESTS.name
    resource: str = ""
    deny: int = 0
    error: str = ""


class Asked(NamedTuple):
    """What a proxy asks of a call, and who the client is; the same for most calls of a client.

    `method` is HEAD or OPTIONS where the call costs nothing for it. `outside`: this peer may not ask.
    """

    rule: Rule
    address: str
    method: str
    outside: bool


def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Answer one call of a proxy. Whatever goes wrong is a refusal."""
    try:
        asked = rule, address, method, outside = _what_is_asked(environ)
        agent = environ.get("HTTP_USER_AGENT", "")
        credential = _credential(environ)
        if method or outside or rule.error or credential is None:
            unusual = _unusual(asked, credential, agent, environ, start_response)
            if unusual is not None:
                return unusual
        decision = metering.authorize(
            credential or "",
            scopes=rule.scopes,
            environment=rule.environment,
            cost=0 if method else rule.cost,
            meter=rule.meter,
            resource=rule.resource,
            address=address,
            user_agent=agent,
            now=time.time(),
        )
        code, secret, _, request, standing = decision
        if code is not VALID or secret is None:
            return _refuse(start_response, decision, deny=rule.deny, address=address)
        key = secret.key
        headers = [
            _OK,
            _VALID,
            ("X-Portal-Key", key.public_id),
            ("X-Portal-Organization", key.organization.slug),
            ("X-Portal-Environment", key.environment),
            ("X-Portal-Scopes", key.scopes_text),
            ("X-Portal-Request", request),
            NO_STORE,
        ]
        if standing is not None:
            headers += limits.headers(standing)
        start_response("200 OK", headers)
        return []
    except Exception as error:
        problems.log_bug(logger, error)
        text = environ.get("HTTP_X_PORTAL_RULE") if _is_envoy(environ) else environ.get("QUERY_STRING")
        unknown = metering.Decision(Code.UNAVAILABLE)
        return _refuse(start_response, unknown, deny=403 if "deny=403" in (text or "") else 0)


def _unusual(
    asked: Asked, credential: str | None, agent: str, environ: Environ, start_response: StartResponse
) -> list[bytes] | None:
    """The answer to a call that is no question about one key; None if it is one after all."""
    rule, address, method, outside = asked
    if outside:
        return _refuse(start_response, _OUTSIDE)
    if rule.error:
        decision = metering.refuse(Code.BAD_REQUEST, detail=rule.error, address=address, user_agent=agent)
        return _refuse(start_response, decision, deny=rule.deny)
    if method == "OPTIONS" and credential == "":  # a browser sends no key before it has asked
        start_response("200 OK", [*_portal_headers(_PREFLIGHT), NO_STORE])
        return []
    if credential is None:
        decision = metering.refuse(
            Code.MULTIPLE_CREDENTIALS, resource=rule.resource, address=address, user_agent=agent
        )
        return _refuse(start_response, decision, deny=rule.deny)
    return None


# --- what is asked ---------------------------------------------------------------------------------


def _is_envoy(environ: Environ) -> bool:
    path: str = environ.get("PATH_INFO", "")
    return path == "/gateway/envoy" or path.startswith("/gateway/envoy/")


def _what_is_asked(environ: Environ) -> Asked:
    get = environ.get
    path = environ["PATH_INFO"]
    if path == "/gateway/authorize":
        text = get("QUERY_STRING", "")
    elif _is_envoy(environ):
        # There the rest of the path is the client's, and so is the query.
        path, text = "/gateway/envoy", get("HTTP_X_PORTAL_RULE")
    else:
        path, text = "", ""
    method = environ["REQUEST_METHOD"]
    asked = _asked(
        path, text, environ["REMOTE_ADDR"], get("HTTP_X_FORWARDED_FOR"),
        method, get("HTTP_X_ORIGINAL_METHOD"), get("HTTP_X_FORWARDED_METHOD"),
    )  # fmt: skip
    if asked.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ:
        return asked._replace(method="")  # no preflight
    return asked


@lru_cache(maxsize=16_384)
def _asked(
    path: str, text: str | None, peer: str, forwarded: str | None, method: str, *stated: str | None
) -> Asked:
    """`text` is the rule's, `stated` are the client's methods as the proxy states them."""
    if not path:
        rule = Rule(error="There is nothing at this path; ask /gateway/authorize.")
    elif text == "" and path == "/gateway/envoy":
        # The server makes bytes that are not UTF-8 into an empty value; that must not be "nothing is asked".
        rule = Rule(error="The rule is empty or not in UTF-8.")
    else:
        rule = parse_rule(text or "")
    return Asked(
        rule, client.resolve(peer, forwarded), _free_method(peer, method, stated), not client.may_ask(peer)
    )


client.when_forgotten(_asked.cache_clear)


@lru_cache(maxsize=1024)
def parse_rule(text: str) -> Rule:
    """A rule from the text of a query. Never raises: `error` says what is wrong."""
    try:
        return _parse_rule(text)
    except ValueError as error:
        # Even then the proxy must get a status that it can pass on.
        return Rule(error=str(error), deny=403 if "deny=403" in text.split("&") else 0)


def _parse_rule(text: str) -> Rule:
    if len(text) > MAX_RULE:
        raise ValueError(f"The rule is longer than {MAX_RULE} characters.")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), errors="strict")
    except ValueError:  # a field without `=`, or bytes that are not UTF-8
        raise ValueError("The rule is not a query of name=value pairs in UTF-8.") from None
    scopes: list[str] = []
    found: dict[str, str] = {}
    for name, value in pairs:
        if name == "scope":
            scopes.append(rules.scope(value))
        elif name not in _SINGLE:
            raise ValueError("The rule has a parameter that the gateway does not know.")
        elif name in found:
            raise ValueError(f"The rule has {name} twice.")
        else:
            found[name] = value
    cost, deny = found.get("cost", "1"), found.get("deny")
    environment = rules.environment(found["environment"]) if "environment" in found else ""
    # Anything but a few digits is no number, and -1 is none that can be asked.
    number = rules.cost(int(cost) if cost.isascii() and cost.isdigit() and len(cost) <= 10 else -1)
    meter = rules.meter(found.get("meter", REQUESTS.name))
    resource = rules.resource(found.get("resource", ""))
    if deny not in (None, "403"):
        raise ValueError("The rule's deny can only be 403.")
    return Rule(tuple(scopes), environment, number, meter, resource, 403 if deny is not None else 0)


# --- what is presented -----------------------------------------------------------------------------


def _credential(environ: Environ) -> str | None:
    """The one credential of the call; empty if there is none, None if two keys of ours are there."""
    if not settings.KEY_QUERY_PARAMETER:
        return credentials.presented(environ)
    return credentials.presented(environ, _in_url(environ))


def _in_url(environ: Environ) -> list[str]:
    """Values of KEY_QUERY_PARAMETER in the client's own URL, as the proxy reports it."""
    if _is_envoy(environ):
        query = environ.get("QUERY_STRING", "")
    else:
        url = environ.get("HTTP_X_ORIGINAL_URI") or environ.get("HTTP_X_FORWARDED_URI") or ""
        query = url.partition("#")[0].partition("?")[2]
    name = settings.KEY_QUERY_PARAMETER.encode()
    values = []
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if unquote_to_bytes(key.replace("+", " ").encode("utf-8", "replace")) == name:
            raw = unquote_to_bytes(value.replace("+", " ").encode("utf-8", "replace"))
            values.append(raw.decode("utf-8", "replace"))
    return values


def _free_method(peer: str, method: str, stated: Iterable[str | None]) -> str:
    """HEAD or OPTIONS, if everything that states the client's method agrees on it; or "".

    What headers state counts only from TRUSTED_PROXIES: a proxy that sets neither passes on what the client
    wrote there, who must not be able to make a call free by it. A trusted proxy sets one and may pass the
    other on, so both must agree. Without a statement the proxy repeats the client's own method (Envoy).
    """
    methods: set[str] = set()
    if client.is_trusted(client.canonical(peer)):
        methods = {each for each in stated if each is not None}
    if not methods or method != "GET":
        methods.add(method)
    return next(iter(methods)) if methods in _FREE else ""


# --- what is answered ------------------------------------------------------------------------------

_PREFLIGHT = metering.Decision(VALID)
_OUTSIDE = metering.Decision(
    Code.IP_NOT_ALLOWED, None, "This address may not ask the gateway; GATEWAY_NETWORKS lists who may."
)
_NOBODY = [
    ("X-Portal-Key", ""),
    ("X-Portal-Organization", ""),
    ("X-Portal-Environment", ""),
    ("X-Portal-Scopes", ""),
]


def _portal_headers(decision: metering.Decision) -> Headers:
    """Every X-Portal-* header, if need be empty: a proxy that copies them overwrites what a client forged."""
    code, secret, _, request, _ = decision
    headers = [("X-Portal-Status", code.status_text), ("X-Portal-Code", code.text)]
    if secret is None:
        headers += _NOBODY
    else:
        key = secret.key
        headers += [
            ("X-Portal-Key", key.public_id),
            ("X-Portal-Organization", key.organization.slug),
            ("X-Portal-Environment", key.environment),
            ("X-Portal-Scopes", key.scopes_text),
        ]
    headers.append(("X-Portal-Request", request))
    return headers


def _refuse(
    start_response: StartResponse, decision: metering.Decision, *, deny: int = 0, address: str = ""
) -> list[bytes]:
    status = decision.code.status
    sent = deny if deny and status != 401 else status
    body, headers = problems.refusal(decision, status=sent, address=address)
    start_response(STATUS_LINES[sent], [*_portal_headers(decision), *headers])
    return [body]
