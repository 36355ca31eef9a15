"""Scopes that a policy gives only by approval: a member asks, staff decide, and the key gets it then.

Until then the key has nothing of it, whichever door it knocks at. An approval is an edit of the key, with one
event that says who decided.
"""

import datetime as dt

from django.db import IntegrityError, transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import rules
from keys.lifecycle.actors import require, require_staff
from keys.lifecycle.locks import lock_key
from keys.lifecycle.refusals import Conflict, Invalid
from keys.models import Key, RequestState, Scope, ScopeRequest
from keys.permissions import Act
from keys.scopes import is_name

_ACTS = {RequestState.APPROVED: "key.scope_approved", RequestState.DENIED: "key.scope_denied"}


def request_scope(actor: Actor, key: Key, scope: str, *, reason: str, now: dt.datetime) -> ScopeRequest:
    """Ask for a scope of the policy's approval list. Raises Invalid, Conflict or Forbidden."""
    require(actor, Act.EDIT_KEY, key.organization)
    reason = rules.clean_text(reason, field="reason", label="The reason", maximum=200)
    try:
        with transaction.atomic():
            key = lock_key(key)
            if key.revoked_at is not None:
                raise Conflict("This key has been revoked; make a new one.")
            found = _approvable(key, scope)
            if key.scopes.filter(pk=found.pk).exists():
                raise Conflict("The key has this scope already.", "scope")
            request = ScopeRequest.objects.create(
                key=key, scope=found, reason=reason, requested_by=actor.label[:254], requested_at=now
            )
            _append("key.scope_requested", actor, request, {"reason": reason}, now)
    except IntegrityError:
        raise Conflict("Somebody has asked for this scope; the request is waiting.", "scope") from None
    return request


def approve_scope(actor: Actor, request: ScopeRequest, *, note: str = "", now: dt.datetime) -> ScopeRequest:
    """Give the key the scope that was asked for, if its policy still lets it. Staff only."""
    return _decide(actor, request, RequestState.APPROVED, note, now)


def deny_scope(actor: Actor, request: ScopeRequest, *, note: str = "", now: dt.datetime) -> ScopeRequest:
    """Refuse what was asked for. Staff only."""
    return _decide(actor, request, RequestState.DENIED, note, now)


def _decide(
    actor: Actor, request: ScopeRequest, state: RequestState, note: str, now: dt.datetime
) -> ScopeRequest:
    require_staff(actor)
    note = rules.clean_text(note, field="note", label="The note", maximum=200, required=False)
    with transaction.atomic():
        key = lock_key(request.key)
        request = ScopeRequest.objects.select_related("scope").get(pk=request.pk)
        request.key = key
        if request.state != RequestState.PENDING:
            raise Conflict("This request has been decided already.")
        if state is RequestState.APPROVED:
            if key.revoked_at is not None:
                raise Conflict("This key has been revoked; its requests can only be denied.")
            key.scopes.add(_approvable(key, request.scope.name))
        request.state, request.note, request.decided_at = state, note, now
        request.save(update_fields=["state", "note", "decided_at"])
        _append(_ACTS[state], actor, request, {"note": note}, now)
    return request


def _approvable(key: Key, name: str) -> Scope:
    scopes = key.organization.policy.approval_scopes
    found = scopes.filter(name=name).first() if isinstance(name, str) and is_name(name) else None
    if found is None:
        raise Invalid("Keys here do not get this scope by approval.", "scope")
    return found


def _append(act: str, actor: Actor, request: ScopeRequest, data: dict[str, str], now: dt.datetime) -> None:
    audit.append_of(request.key, act, actor, now, {"scope": request.scope.name} | data)
