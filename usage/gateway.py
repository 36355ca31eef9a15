"""HTTP for proxies: reads headers, calls `authorize`, writes headers (CONTRACT, "Gateway").

Beside Django: no session, no template, no query on a warm key. What is asked of a call is the proxy's word
alone (the query of `/gateway/authorize`, the header `X-Portal-Rule` under `/gateway/envoy/`); nothing that
the client sends can change it. It decides nothing about keys itself.
"""

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from time import time as now
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from django.conf import settings

from keys.directory import Unavailable
from keys.records import KeyRecord, expiry_told
from keys.verdicts import VALID, Code
from usage import client, limits, metering, meters, problems, rules
from usage.credentials import presented
from usage.journal import JournalError
from usage.metering import decide_anew, decide_call, pass_for
from usage.meters import REQUESTS
from usage.problems import NO_STORE, STATUS_LINES, Headers, describe, finish, refusal
from usage.records import AGENT_LENGTH
from usage.traits import pack

logger = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], object]
type Answer = tuple[int, Headers, bytes]  # status, headers, body
# Of a refusal that names no key: status, headers but for the request's id, and the document up to it.
type Nameless = tuple[int, Headers, str]

MAX_RULE = 4096  # characters
_MAX_RULE = MAX_RULE + 1  # so much is looked at, for a rule that is too long to be told
_CUT = 1024  # characters of a header that is looked at
_MOST_REMEMBERED = 8192
# So many names or values, and so many characters of them together, are remembered. Some servers put the
# process's environment beside a request's.
_MOST_TEXTS, _LONGEST_TEXTS = 256, 4096
_SINGLE = ("environment", "cost", "meter", "resource", "hold", "deny")
_FREE = ({"HEAD"}, {"OPTIONS"})


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


@dataclass(slots=True, eq=False)
class Asked:
    """What a proxy asks of a call; made once for all calls of a client that are asked about in one way."""

    generation: int  # of the meters
    call: metering.Call
    rule: Rule
    method: str  # HEAD or OPTIONS where the call costs nothing for it
    is_outside: bool  # this peer may not ask
    is_usual: bool  # nothing but a credential is needed to decide
    is_plain: bool  # and no credential is anywhere but in Authorization
    in_url: bool  # the client's URL may carry a key, too
    refusals: dict[str, Nameless] = field(default_factory=dict)  # that were met before, by code


class Shape:
    """A set of names that a request's environment has, in their order: most requests of a client, and of a
    proxy, have the same. `values` takes those from it that `_ask` looks at; `asked` is what came of them."""

    __slots__ = ("asked", "values")

    def __init__(self, names: Iterable[str], looked_at: Collection[str]) -> None:
        self.values = itemgetter(*(name for name in names if name in looked_at))
        self.asked: dict[object, Asked] = {}


def application(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """`answer` as a WSGI callable, for any server."""
    status, headers, body = answer(environ)
    if not body:
        start_response(STATUS_LINES[status], [*headers])
        return []
    start_response(STATUS_LINES[status], [*headers, ("Content-Length", str(len(body)))])
    return [body]


def answer(environ: Environ) -> Answer:
    """Answer one call of a proxy, which WSGI's `environ` describes. Whatever goes wrong is a refusal."""
    try:
        path = environ["PATH_INFO"]
        shapes = _shapes if path == "/gateway/authorize" else _shapes_elsewhere(path)
        shape = shapes.get(names := (*environ,))
        if shape is None:
            shape = _shape(shapes, names)
        asked = shape.asked.get(values := shape.values(environ))
        if asked is None or asked.generation != meters.generation:
            asked = _remember(shape, values, _ask(path, environ))
        moment, here, known = now(), metering.process, None
        authorization: str = environ["HTTP_AUTHORIZATION"] if asked.is_plain else ""
        if authorization and here is not None:
            known = pass_for(here, asked.call, authorization, moment)
            # Most calls are like one that was allowed. `decide_anew` would find so, too, and take longer.
            if known is not None and not known.is_limited:
                try:
                    request = here.begin + str(here.append(known))
                except JournalError as error:
                    return _refuse(metering.not_recorded(error, known.secret), asked)
                told = known.told or _tell(known, moment)
                return 200, told + (("X-Portal-Request", request),), b""  # noqa: RUF005  half of the time
        if authorization.startswith("Bearer ") and "," not in authorization:
            credential = authorization[7:].strip()  # as `presented` says of it, and of all others
        else:
            one = presented(environ, _in_url(environ) if asked.in_url else None)
            if one is None or not asked.is_usual:
                answered = _unusual(asked, one)
                if answered is not None:
                    return answered
            authorization, credential = "", one or ""  # of what was chosen, not of what it was chosen from
        if here is None or not authorization:
            decided = decide_call(credential, asked.call, moment)
        else:
            decided = decide_anew(here, known, authorization, credential, asked.call, moment)
        code, _, _, request, standing, _, known = decided
        if code is not VALID or known is None:
            return _refuse(decided, asked)
        headers = (*(known.told or _tell(known, moment)), ("X-Portal-Request", request))
        if standing is not None:
            headers += limits.headers(standing)
        return 200, headers, b""
    except Exception as error:
        if not isinstance(error, Unavailable):
            problems.log_bug(logger, error)
        rule = environ.get("HTTP_X_PORTAL_RULE" if _is_envoy(environ["PATH_INFO"]) else "QUERY_STRING") or ""
        unknown = metering.Decision(Code.UNAVAILABLE)
        return _refuse((*unknown, None), None, deny=403 if "deny=403" in rule else 0)


def _unusual(asked: Asked, credential: str | None) -> Answer | None:
    """The answer to a call that is no question about one key; None if it is one after all."""
    if asked.is_outside:
        return _refuse((*_OUTSIDE, None), None)
    _, resource, address, agent = asked.call.labels
    if asked.rule.error:
        decision = metering.refuse(
            Code.BAD_REQUEST, detail=asked.rule.error, address=address, user_agent=agent
        )
        return _refuse((*decision, None), asked)
    if asked.method == "OPTIONS" and credential == "":  # a browser sends no key before it has asked
        return 200, _PREFLIGHT, b""
    if credential is None:
        code = Code.MULTIPLE_CREDENTIALS
        decision = metering.refuse(code, resource=resource, address=address, user_agent=agent)
        return _refuse((*decision, None), asked)
    return None


# --- what is asked ---------------------------------------------------------------------------------


# What `_ask` looks at, in the environment of any proxy's request; it may not look at anything else.
_OF_CLIENT = {
    *("REMOTE_ADDR", "REQUEST_METHOD", "HTTP_USER_AGENT", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"),
    *("HTTP_X_ORIGINAL_METHOD", "HTTP_X_FORWARDED_METHOD"),
}
# By the names in the environment: of requests to `/gateway/authorize`, of Envoy's, and of others.
_shapes: dict[tuple[str, ...], Shape] = {}
_shapes_of_envoy: dict[tuple[str, ...], Shape] = {}
_shapes_nowhere: dict[tuple[str, ...], Shape] = {}
_remembered = 0  # shapes and what was asked in them
_lock = threading.Lock()


def _is_envoy(path: str) -> bool:
    return path == "/gateway/envoy" or path.startswith("/gateway/envoy/")


def _shapes_elsewhere(path: str) -> dict[tuple[str, ...], Shape]:
    return _shapes_of_envoy if _is_envoy(path) else _shapes_nowhere


def _shape(shapes: dict[tuple[str, ...], Shape], names: tuple[str, ...]) -> Shape:
    """Make the shape of these names and remember it."""
    rule = "QUERY_STRING" if shapes is _shapes else "HTTP_X_PORTAL_RULE"
    shape = Shape(names, {*_OF_CLIENT, rule})
    if _may_remember(names):
        shapes[names] = shape
    return shape


def _remember(shape: Shape, values: tuple[str, ...], asked: Asked) -> Asked:
    if _may_remember(values):
        shape.asked[values] = asked
    return asked


def _may_remember(texts: tuple[str, ...]) -> bool:
    """Is there room, and are these short enough? A client may make them as long as it likes, and no two the
    same."""
    global _remembered
    if len(texts) > _MOST_TEXTS or sum(map(len, texts)) > _LONGEST_TEXTS:
        return False
    with _lock:
        if _remembered >= _MOST_REMEMBERED:
            _forget()
        _remembered += 1
    return True


def _forget() -> None:
    global _remembered
    _remembered = 0
    for shapes in (_shapes, _shapes_of_envoy, _shapes_nowhere):
        shapes.clear()


def _ask(path: str, environ: Environ) -> Asked:
    """What a request to this path asks. Nothing is looked at but the values of `_OF_CLIENT`, the rule's, and
    which names there are."""
    generation = meters.generation
    get, peer, method = environ.get, environ["REMOTE_ADDR"], environ["REQUEST_METHOD"]
    if path == "/gateway/authorize":
        rule = parse_rule(get("QUERY_STRING", "")[:_MAX_RULE], generation)
    elif not _is_envoy(path):
        rule = Rule(error="There is nothing at this path; ask /gateway/authorize.")
    elif (text := get("HTTP_X_PORTAL_RULE")) == "":
        # The server makes bytes that are not UTF-8 into an empty value; that must not be "nothing is asked".
        rule = Rule(error="The rule is empty or not in UTF-8.")
    else:
        rule = parse_rule((text or "")[:_MAX_RULE], generation)
    # What a client may make as long as it likes is cut: of a list of proxies the end stays, which is where
    # the nearest one writes.
    forwarded, proto, original, stated = (
        (text := get(name)) and text[-_CUT:]
        for name in (
            *("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"),
            *("HTTP_X_ORIGINAL_METHOD", "HTTP_X_FORWARDED_METHOD"),
        )
    )
    free = _free_method(peer, method[:_CUT], (original, stated))
    if free == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" not in environ:
        free = ""  # no CORS preflight
    from_page = "HTTP_ORIGIN" in environ or "HTTP_REFERER" in environ
    traits = client.traits(peer, from_page=from_page, proto=proto)
    packed = pack(get("HTTP_USER_AGENT", "")[:AGENT_LENGTH], rule.scopes, traits)
    labels = rule.meter, rule.resource, client.resolve(peer, forwarded), packed
    cost = 0 if free else meters.cost(rule.meter, rule.cost)
    call = metering.Call(rule.scopes, rule.environment, cost, labels, rule.hold and not free)
    is_outside = not client.may_ask(peer)
    is_usual = not is_outside and not rule.error and free != "OPTIONS"
    # Settings are slow to look up, and the same for as long as this is remembered.
    in_url = bool(settings.KEY_QUERY_PARAMETER)
    is_plain = is_usual and not in_url and "HTTP_AUTHORIZATION" in environ and "HTTP_X_API_KEY" not in environ
    return Asked(generation, call, rule, free, is_outside, is_usual, is_plain, in_url)


client.when_forgotten(_forget)


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


def _tell(known: metering.Pass, moment: float) -> Headers:
    """The headers of a call that is allowed now, but the request's id; the next ones find them."""
    known.told = told = (*_portal_headers(VALID, known.secret.key, moment), NO_STORE)
    return told


def _portal_headers(code: Code, key: KeyRecord | None, moment: float = 0.0) -> Headers:
    """Every X-Portal-* header but the request's id, if need be empty: a proxy that copies them overwrites
    what a client forged."""
    return (
        ("X-Portal-Status", code.status_text),
        ("X-Portal-Code", code.text),
        ("X-Portal-Key", key.public_id if key else ""),
        ("X-Portal-Organization", key.organization.slug if key else ""),
        ("X-Portal-Environment", key.environment if key else ""),
        ("X-Portal-Scopes", key.scopes_text if key else ""),
        ("X-Portal-Key-Expires", expiry_told(key, moment) if key else ""),
    )


_PREFLIGHT: Headers = (*_portal_headers(VALID, None), ("X-Portal-Request", ""), NO_STORE)


@lru_cache(maxsize=4096)
def _nameless(name: str, detail: str, status: int) -> Nameless:
    """Made once for all of them; the code goes by its name, as in `describe`."""
    begin, headers = describe(name, detail, status)
    return status, (*_portal_headers(Code[name], None), *headers), begin


def _refuse(decided: metering.Decided, asked: Asked | None, deny: int = 0) -> Answer:
    """`deny` where it is not known what was asked."""
    code, secret, detail, request, _, _, _ = decided
    told = ("X-Portal-Request", request)
    if asked is not None:
        if secret is None and not detail and (known := asked.refusals.get(code.text)) is not None:
            sent, headers, begin = known  # as in a flood
            return sent, headers + (told,), finish(begin, request)  # noqa: RUF005  as above
        deny = asked.rule.deny
    sent = deny if deny and code.status != 401 else code.status
    if secret is None:
        known = _nameless(code.text, detail, sent)
        if asked is not None and not detail:
            asked.refusals[code.text] = known
        _, headers, begin = known
        return sent, (*headers, told), finish(begin, request)
    address = asked.call.address if asked is not None else ""
    body, headers = refusal(decided, sent, address, (*_portal_headers(code, secret.key, now()), told))
    return sent, headers, body
