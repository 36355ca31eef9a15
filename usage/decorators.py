"""`@require_key("orders:read")`: the gateway's decision inside the Django project whose view is called.

It verifies, limits and records as the gateway does, refuses with the same problem documents, and, since it
sees the answer, records the class of its status too. No view runs without an allow, and it knows nothing of
sessions: the credential is a header, never a cookie, which is also why what it guards needs no CSRF token.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from types import MappingProxyType
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse
from django.utils.cache import patch_vary_headers

from keys.records import expiry_told
from keys.verdicts import Code
from usage import client, credentials, limits, metering, meters, problems, rules
from usage.meters import REQUESTS
from usage.records import RESOURCE_LENGTH

logger = logging.getLogger(__name__)

type View = Callable[..., Any]  # sync or async, of a function or a class; its arguments are its own
type Cost = int | Callable[[HttpRequest], int]

_UNAVAILABLE = metering.Decision(Code.UNAVAILABLE)
_STATUSES: tuple[tuple[type[Exception], int], ...] = (  # as Django answers what a view raises
    (Http404, 404),
    (PermissionDenied, 403),
    (MultiPartParserError, 400),
    (BadRequest, 400),
    (SuspiciousOperation, 400),
)


@dataclass(frozen=True, slots=True)
class PortalKey:
    """The key that a request was allowed by. `request` is the id that finds the call later."""

    id: str
    name: str
    organization: str  # slug
    environment: str
    scopes: frozenset[str]
    metadata: Mapping[str, str]
    request: str


class KeyRequest(HttpRequest):
    """A request that `require_key` has let in."""

    portal_key: PortalKey


class _Rule(NamedTuple):
    scopes: tuple[str, ...]
    environment: str
    cost: Cost
    meter: str
    resource: str | None  # None: the route's pattern
    hold: bool


class _Allowed(NamedTuple):
    decision: metering.Decision
    resource: str


def require_key(
    *scopes: str,
    environment: str = "",
    cost: Cost = 1,
    meter: str = REQUESTS.name,
    resource: str | None = None,
    hold: bool = False,
) -> Callable[[View], View]:
    """Let in calls whose key has all of `scopes`; the view finds it in `request.portal_key`.

    `environment` empty means either; `cost` is in the meter's smallest unit, or is worked out from the
    request; a `meter` that does not exist, or not yet, makes each call BAD_REQUEST; `resource` is the label
    that the call is counted under, the route's pattern if none is given; `hold` counts the call until an
    event settles it by `portal_key.request`. HEAD costs nothing. A CORS preflight, which has no key, is
    answered with an empty 204 and does not reach the view. A class gets it by
    `method_decorator(require_key(…), name="dispatch")`. The view is exempt from the CSRF check. Raises
    ValueError at once for a rule that cannot be one.
    """
    if scopes and callable(scopes[0]):
        raise TypeError("Write @require_key(), with parentheses.")
    rule = _Rule(
        tuple(rules.scope(name) for name in scopes),
        rules.environment(environment) if environment else "",
        cost if callable(cost) else rules.cost(cost),
        rules.meter_name(meter),
        None if resource is None else rules.resource(resource),
        hold,
    )

    def decorate(view: View) -> View:
        guarded = _guard_async(view, rule) if _is_async(view) else _guard(view, rule)
        guarded.csrf_exempt = True  # type: ignore[attr-defined]  # read by Django's CSRF middleware
        return guarded

    return decorate


def _guard(view: View, rule: _Rule) -> View:
    @wraps(view)
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # what the view answers
        entered = _enter(request, rule)
        if not isinstance(entered, _Allowed):
            return entered
        try:
            response = view(request, *args, **kwargs)
        except Exception as error:
            metering.respond(entered.decision, entered.resource, _status_of(error))
            raise
        return _leave(entered, response)

    return guarded


def _guard_async(view: View, rule: _Rule) -> View:
    # Not on the event loop, which must not wait: a key that memory does not know may cost a query, and
    # USAGE_DURABILITY=power waits for the disk. Any thread will do: nothing there is bound to one.
    enter = sync_to_async(_enter, thread_sensitive=False)
    respond = sync_to_async(metering.respond, thread_sensitive=False)
    leave = sync_to_async(_leave, thread_sensitive=False)

    @wraps(view)
    async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:  # what the view answers
        entered = await enter(request, rule)
        if not isinstance(entered, _Allowed):
            return entered
        try:
            response = view(request, *args, **kwargs)
            if isawaitable(response):
                response = await response
        except Exception as error:
            await respond(entered.decision, entered.resource, _status_of(error))
            raise
        return await leave(entered, response)

    return guarded


def _is_async(view: View) -> bool:
    """Is the answer of this view awaited? `method_decorator` passes a class's method as a partial."""
    method = getattr(view, "func", view)
    return iscoroutinefunction(view) or getattr(getattr(method, "__self__", None), "view_is_async", False)


def _enter(request: HttpRequest, rule: _Rule) -> _Allowed | HttpResponse:
    """Decide. Whatever goes wrong here is a refusal; what the rule's own `cost` raises is the project's."""
    address = client.address(request.META)
    agent = request.META.get("HTTP_USER_AGENT", "")
    resource = _route(request) if rule.resource is None else rule.resource
    preflight = request.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in request.META
    try:
        credential = _credential(request)
        if credential is None or meters.get(rule.meter) is None:
            code = Code.MULTIPLE_CREDENTIALS if credential is None else Code.BAD_REQUEST
            decision = metering.refuse(code, resource=resource, address=address, user_agent=agent)
            return problems.refusal_response(decision)
    except Exception as error:
        problems.log_bug(logger, error)
        return problems.refusal_response(_UNAVAILABLE)
    if preflight and not credential:
        return HttpResponse(status=204, headers={"Cache-Control": "no-store"})
    cost, counts = 0, bool(credential) and not preflight and request.method != "HEAD"
    if counts:
        cost = rules.cost(rule.cost(request)) if callable(rule.cost) else rule.cost
    try:
        decision = metering.authorize(
            credential,
            scopes=rule.scopes,
            environment=rule.environment,
            cost=cost,
            meter=rule.meter,
            resource=resource,
            address=address,
            user_agent=agent,
            hold=rule.hold and counts,
            traits=client.traits_of(request.META),
            now=time.time(),
        )
        secret = decision.secret
        if decision.code is not Code.VALID or secret is None:
            return problems.refusal_response(decision, address=address)
        key = secret.key
        request.portal_key = PortalKey(  # type: ignore[attr-defined]  # makes it a KeyRequest
            id=key.public_id,
            name=key.name,
            organization=key.organization.slug,
            environment=key.environment,
            scopes=key.scopes,
            metadata=MappingProxyType(key.metadata),
            request=decision.request,
        )
    except Exception as error:
        problems.log_bug(logger, error)
        return problems.refusal_response(_UNAVAILABLE)
    return _Allowed(decision, resource)


def _credential(request: HttpRequest) -> str | None:
    name = settings.KEY_QUERY_PARAMETER
    return credentials.presented(request.META, request.GET.getlist(name) if name else None)


def _route(request: HttpRequest) -> str:
    """The pattern that the path matched, cut to a label: never the path, which is the client's to vary."""
    match = request.resolver_match
    route = str(match.route) if match is not None and match.route else ""
    return "".join(letter if letter.isprintable() else "?" for letter in route[:RESOURCE_LENGTH])


def _leave[Answer](entered: _Allowed, response: Answer) -> Answer:
    """Record how it was answered, and say what a client of the gateway is told."""
    decision = entered.decision
    if not isinstance(response, HttpResponseBase):  # Django will answer 500
        metering.respond(decision, entered.resource, 500)
        return response
    _record(entered, response)
    response.headers["X-Portal-Request"] = decision.request
    if decision.secret is not None and (expires := expiry_told(decision.secret.key, time.time())):
        response.headers["X-Portal-Key-Expires"] = expires
    if decision.standing is not None:
        for header, value in limits.headers(decision.standing):
            response.headers[header] = value
    # No cache may give one key's answer to another's call, nor to a call without one.
    patch_vary_headers(response, ("Authorization", "X-API-Key"))
    return response


def _record(entered: _Allowed, response: HttpResponseBase) -> None:
    """What is rendered after the view, as Django REST framework's answers are, may still fail then, and is
    answered as what a view raises."""
    if not isinstance(response, SimpleTemplateResponse) or response.is_rendered:
        metering.respond(entered.decision, entered.resource, response.status_code)
        return

    def render() -> SimpleTemplateResponse:
        del response.render  # a cache pickles what is rendered
        try:
            rendered = response.render()
        except Exception as error:
            metering.respond(entered.decision, entered.resource, _status_of(error))
            raise
        metering.respond(entered.decision, entered.resource, rendered.status_code)
        return rendered

    response.render = render  # type: ignore[method-assign]  # of this response alone


def _status_of(error: Exception) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
