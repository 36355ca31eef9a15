"""HTTP for proxies: reads headers, calls `authorize`, writes headers (CONTRACT, "Gateway").

Beside Django: no session, no template, no query on a warm key. What is asked of a call is the proxy's word
alone (the query of `/gateway/authorize`, the header `X-Portal-Rule` under `/gateway/envoy/`); nothing that
the client sends can change it. It decides nothing about keys itself.
"""

import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from time import time as now
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from django.conf import settings

from keys.directory import Unavailable
from keys.records import KeyRecord, expiry_told
from keys.verdicts import VALID, Code
from usage import client, limits, metering, meters, problems, rules
from usage.credentials import presented
from usage.metering import decide_call
from usage.meters import REQUESTS
from usage.problems import END, NO_STORE, STATUS_LINES, Headers, describe, refusal
from usage.records import AGENT_LENGTH
from usage.traits import pack

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[[str, Headers], object]
type Answer = tuple[int, Headers, bytes]  # status, headers, body

MAX_RULE = 4096  # characters
_MAX_RULE = MAX_RULE + 1  # so much is looked at, for a rule that is too long to be told
_CUT = 1024  # characters of a header that is looked at
_SINGLE = ("environment", "cost", "meter", "resource", "hold", "deny")
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
    hold: bool = False
    error: str = ""


class Asked(NamedTuple):
    """What a proxy asks of a call; made once for all calls of a client that are asked about in one way.

    `is_usual`: nothing but a credential is needed to decide. `method` is HEAD or OPTIONS where the call costs
    nothing for it.
    """

    call: metering.Call
    deny: int
    is_usual: bool
    method: str
    error: str
    is_outside: bool  # this peer may not ask
    in_url: bool  # the client's URL may carry a key, too


def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """`answer` as a WSGI callable, for any server."""
    status, headers, body = answer(environ)
    if not body:
        start_response(STATUS_LINES[status], headers)
        return []
    start_response(STATUS_LINES[status], [*headers, ("Content-Length", str(len(body)))])
    return [body]


def answer(environ: Environ) -> Answer:
    """Answer one call of a proxy, which WSGI's `environ` describes. Whatever goes wrong is a refusal."""
    try:
        get = environ.get
        path, rule = environ["PATH_INFO"], get("QUERY_STRING", "")[:_MAX_RULE]
        if path != "/gateway/authorize":
            path, rule = _elsewhere(path, environ)
        # What a client may make as long as it likes is cut before it is remembered; of a list of proxies the
        # end stays, which is where the nearest one writes.
        asked = _asked(
            meters.generation,
            path,
            rule,
            environ["REMOTE_ADDR"],
            (forwarded := get("HTTP_X_FORWARDED_FOR")) and forwarded[-_CUT:],
            get("HTTP_USER_AGENT", "")[:AGENT_LENGTH],
            "HTTP_ORIGIN" in environ or "HTTP_REFERER" in environ,
            (proto := get("HTTP_X_FORWARDED_PROTO")) and proto[-_CUT:],
            "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ,
            environ["REQUEST_METHOD"][:_CUT],
            (original := get("HTTP_X_ORIGINAL_METHOD")) and original[-_CUT:],
            (stated := get("HTTP_X_FORWARDED_METHOD")) and stated[-_CUT:],
        )
        credential = presented(environ, _in_url(environ) if asked.in_url else None)
        if credential is None or not asked.is_usual:
            answered = _unusual(asked, credential)
            if answered is not None:
                return answered
        moment = now()
        decided = decide_call(credential or "", asked.call, moment)
        code, secret, _, request, standing, _ = decided
        if code is not VALID or secret is None:
            return _refuse(decided, asked)
        key = secret.key
        headers = [
            _OK,
            _VALID,
            ("X-Portal-Key", key.public_id),
            ("X-Portal-Organization", key.organization.slug),
            ("X-Portal-Environment", key.environment),
            ("X-Portal-Scopes", key.scopes_text),
            ("X-Portal-Key-Expires", expiry_told(key, moment)),
            ("X-Portal-Request", request),
            NO_STORE,
        ]
        if standing is not None:
            headers += limits.headers(standing)
        return 200, headers, b""
    except Exception as error:
        if not isinstance(error, Unavailable):
            problems.log_bug(logger, error)
        rule = environ.get("HTTP_X_PORTAL_RULE" if _is_envoy(environ["PATH_INFO"]) else "QUERY_STRING") or ""
        unknown = metering.Decision(Code.UNAVAILABLE)
        return _refuse(unknown, None, deny=403 if "deny=403" in rule else 0)


def _unusual(asked: Asked, credential: str | None) -> Answer | None:
    """The answer to a call that is no question about one key; None if it is one after all."""
    if asked.is_outside:
        return _refuse(_OUTSIDE, None)
    _, resource, address, agent = asked.call.labels
    if asked.error:
        decision = metering.refuse(Code.BAD_REQUEST, detail=asked.error, address=address, user_agent=agent)
        return _refuse(decision, asked)
    if asked.method == "OPTIONS" and credential == "":  # a browser sends no key before it has asked
        return 200, _PREFLIGHT, b""
    if credential is None:
        code = Code.MULTIPLE_CREDENTIALS
        decision = metering.refuse(code, resource=resource, address=address, user_agent=agent)
        return _refuse(decision, asked)
    return None


# --- what is asked ---------------------------------------------------------------------------------


def _is_envoy(path: str) -> bool:
    return path == "/gateway/envoy" or path.startswith("/gateway/envoy/")


def _elsewhere(path: str, environ: Environ) -> tuple[str, str | None]:
    """Path and rule of a call that is not to `/gateway/authorize`: Envoy's, whose rule is in a header, while
    the rest of the path and the query are the client's; or nothing of ours."""
    if not _is_envoy(path):
        return "", ""
    rule: str | None = environ.get("HTTP_X_PORTAL_RULE")
    return "/gateway/envoy", rule and rule[:_MAX_RULE]


@lru_cache(maxsize=8192)
def _asked(
    generation: int,
    path: str,
    text: str | None,
    peer: str,
    forwarded: str | None,
    agent: str,
    from_page: bool,
    proto: str | None,
    asks_for_method: bool,
    method: str,
    *stated: str | None,
) -> Asked:
    """`generation` is the meters': another one makes every answer anew. `text` is the rule's; `from_page`
    says whether a browser named a page; `stated` are the client's methods as the proxy states them, and
    `asks_for_method` says whether an OPTIONS among them would be a CORS preflight."""
    if not path:
        rule = Rule(error="There is nothing at this path; ask /gateway/authorize.")
    elif text == "" and path == "/gateway/envoy":
        # The server makes bytes that are not UTF-8 into an empty value; that must not be "nothing is asked".
        rule = Rule(error="The rule is empty or not in UTF-8.")
    else:
        rule = parse_rule(text or "", generation)
    free = _free_method(peer, method, stated)
    if free == "OPTIONS" and not asks_for_method:
        free = ""
    traits = client.traits(peer, from_page=from_page, proto=proto)
    packed = pack(agent, rule.scopes, traits)
    labels = rule.meter, rule.resource, client.resolve(peer, forwarded), packed
    cost = 0 if free else meters.cost(rule.meter, rule.cost)
    call = metering.Call(rule.scopes, rule.environment, cost, labels, rule.hold and not free)
    may_ask = client.may_ask(peer)
    is_usual = may_ask and not rule.error and free != "OPTIONS"
    # Settings are slow to look up, and the same for as long as this is remembered.
    in_url = bool(settings.KEY_QUERY_PARAMETER)
    return Asked(call, rule.deny, is_usual, free, rule.error, not may_ask, in_url)


client.when_forgotten(_asked.cache_clear)


@lru_cache(maxsize=1024)
def parse_rule(text: str, generation: int) -> Rule:
    """A rule from the text of a query, with the meters of this generation; `error` says what is wrong.
    Raises Unavailable when it cannot be known which meters there are."""
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
    hold = rules.hold(found.get("hold", "0"))
    return Rule(tuple(scopes), environment, number, meter, resource, 403 if deny is not None else 0, hold)


# --- what is presented -----------------------------------------------------------------------------


def _in_url(environ: Environ) -> list[str]:
    """Values of KEY_QUERY_PARAMETER in the client's own URL, as the proxy reports it."""
    if _is_envoy(environ["PATH_INFO"]):
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

_OUTSIDE = metering.Decision(
    Code.IP_NOT_ALLOWED, None, "This address may not ask the gateway; GATEWAY_NETWORKS lists who may."
)


def _portal_headers(code: Code, key: KeyRecord | None) -> Headers:
    """Every X-Portal-* header but the request's id, if need be empty: a proxy that copies them overwrites
    what a client forged."""
    return [
        ("X-Portal-Status", code.status_text),
        ("X-Portal-Code", code.text),
        ("X-Portal-Key", key.public_id if key else ""),
        ("X-Portal-Organization", key.organization.slug if key else ""),
        ("X-Portal-Environment", key.environment if key else ""),
        ("X-Portal-Scopes", key.scopes_text if key else ""),
        ("X-Portal-Key-Expires", expiry_told(key, now()) if key else ""),
    ]


@lru_cache(maxsize=4096)
def _nameless(name: str, detail: str, status: int) -> tuple[bytes, Headers]:
    """As `problems.describe`, with every header but the request's id. The code goes by its name, as there."""
    begin, headers = describe(name, detail, status)
    return begin, [*_portal_headers(Code[name], None), *headers]


_PREFLIGHT: Headers = [*_portal_headers(VALID, None), ("X-Portal-Request", ""), NO_STORE]


def _refuse(decided: metering.Decided, asked: Asked | None, deny: int = 0) -> Answer:
    """`deny` where it is not known what was asked."""
    code, secret, detail, request, _, _ = decided
    address = ""
    if asked is not None:
        deny, address = asked.deny, asked.call.labels[2]
    sent = status = code.status
    if deny and status != 401:
        sent = deny
    told = ("X-Portal-Request", request)
    if secret is None:  # as in a flood: all the rest was made before
        begin, headers = _nameless(code.text, detail, sent)
        return sent, [told, *headers], begin + request.encode() + END
    body, headers = refusal(decided, sent, address, [*_portal_headers(code, secret.key), told])
    return sent, headers, body
