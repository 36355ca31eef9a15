"""`/v1/keys`: an organization's own programs manage its keys, as its people do on pages.

Each call is one act of `keys.lifecycle` with the calling key as its actor. A secret leaves in the answer to
the request that made it and in no other.
"""

import datetime as dt
from collections.abc import Iterable
from typing import Any, Final

from django.core import signing
from django.db import transaction
from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from ninja import Body, Path, Router
from ninja.errors import HttpError

from keys import lifecycle
from keys.audit import Actor
from keys.compliance import Terms
from keys.models import Environment, Key, KeyState, Organization, Secret
from keys.scopes import MANAGE_KEYS
from portal.api.answers import invalid_at
from portal.api.callers import CallRequest, caller, calling_key
from portal.api.document import declare
from portal.api.key_schemas import (
    EditKeyBody,
    IssuedKey,
    KeyId,
    KeyList,
    ManagedKey,
    NewKeyBody,
    RevokeBody,
    RotateBody,
)
from usage import reports

router = Router(tags=["keys"])

PAGE: Final = 50
MAX_PAGE: Final = 100
_SALT = "latchkey.keys.cursor"
# What a call without a body asks.
_ROTATE = RotateBody.model_validate({})
_REVOKE = RevokeBody.model_validate({})
_PARAMETERS: Final[dict[str, tuple[str, dict[str, Any]]]] = {  # description and JSON Schema
    "state": ("Only keys in this state; active ones include the expiring.", {"enum": KeyState.values}),
    "environment": ("Only live or only test keys.", {"enum": Environment.values}),
    "limit": (
        "How many at once.",
        {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
    ),
    "cursor": (
        "The `next` of the page before, with the same other parameters.",
        {"type": "string", "format": "keys-cursor"},
    ),
}


@router.get(
    "/keys",
    auth=caller(MANAGE_KEYS),
    response=KeyList,
    operation_id="list_keys",
    summary="Your organization's keys",
    url_name="v1_keys",
    openapi_extra=declare(
        MANAGE_KEYS,
        query=True,
        parameters=[
            {"in": "query", "name": name, "required": False, "description": text, "schema": schema}
            for name, (text, schema) in _PARAMETERS.items()
        ],
    ),
)
def list_keys(request: CallRequest, response: HttpResponse) -> KeyList:
    """The newest first, revoked and expired ones too; none has its secret."""
    organization = calling_key(request).organization
    now = timezone.now()
    filters, limit, position = _query(request, organization)
    keys = organization.keys.order_by("-created_at", "-pk")
    if filters["state"]:
        keys = keys.in_state(filters["state"], now)
    if filters["environment"]:
        keys = keys.filter(environment=filters["environment"])
    if position is not None:
        at, pk = position
        keys = keys.filter(Q(created_at__lt=at) | Q(created_at=at, pk__lt=pk))
    found = list(_whole(keys)[: limit + 1])
    shown = found[:limit]
    return KeyList(
        data=_facts(organization, shown, now),
        next=_cursor(organization, filters, shown[-1]) if len(found) > limit else None,
    )


@router.post(
    "/keys",
    auth=caller(MANAGE_KEYS),
    response={201: IssuedKey},
    operation_id="create_key",
    summary="Create a key",
    url_name="v1_keys",
    openapi_extra=declare(MANAGE_KEYS, body=True, status=201, more=(409,)),
)
@sensitive_variables()
def create_key(request: CallRequest, response: HttpResponse, asked: Body[NewKeyBody]) -> IssuedKey:
    """A new key, within your organization's policy, with nothing that the caller has not itself.

    `secret` is the whole key: it is in this answer and nowhere else. A request that is sent twice makes two
    keys; who got no answer finds the key in the list, and revokes it.
    """
    own, now = calling_key(request), timezone.now()
    fields = {"environment": own.environment} | asked.given()
    issued = lifecycle.create_key(lifecycle.key_actor(own), own.organization, now=now, **fields)
    return _issued(issued, None, now)


@router.get(
    "/keys/{key_id}",
    auth=caller(MANAGE_KEYS),
    response=ManagedKey,
    operation_id="get_key",
    summary="One key",
    url_name="v1_key",
    openapi_extra=declare(MANAGE_KEYS, more=(404,)),
)
def get_key(request: CallRequest, response: HttpResponse, key_id: Path[KeyId]) -> ManagedKey:
    """A key of your organization, whatever its state."""
    return _answer(_find(calling_key(request).organization, key_id), timezone.now())


@router.patch(
    "/keys/{key_id}",
    auth=caller(MANAGE_KEYS),
    response=ManagedKey,
    operation_id="edit_key",
    summary="Change a key",
    url_name="v1_key",
    openapi_extra=declare(MANAGE_KEYS, body=True, more=(404, 409)),
)
def edit_key(
    request: CallRequest, response: HttpResponse, key_id: Path[KeyId], asked: Body[EditKeyBody]
) -> ManagedKey:
    """What is given changes, all of it or nothing; what is left out stays.

    A list replaces the whole list. What you set must be within the policy, and a key that is enabled again
    as a whole. A caller can change keys only to what it has itself.
    """
    own, now = calling_key(request), timezone.now()
    key, actor = _find(own.organization, key_id), lifecycle.key_actor(own)
    fields = asked.given()
    disabled = fields.pop("disabled", None)
    with transaction.atomic():
        lifecycle.edit_key(actor, key, now=now, **fields)
        if disabled is not None:
            _switch(actor, key, disabled, now)
    return _answer(_find(own.organization, key_id), now)


def _switch(actor: Actor, key: Key, disabled: bool, now: dt.datetime) -> None:
    act = lifecycle.disable_key if disabled else lifecycle.enable_key
    act(actor, key, now=now)


@router.post(
    "/keys/{key_id}/rotate",
    auth=caller(MANAGE_KEYS),
    response=IssuedKey,
    operation_id="rotate_key",
    summary="Give a key a new secret, its own included",
    url_name="v1_key_rotate",
    openapi_extra=declare(MANAGE_KEYS, body=True, more=(404, 409)),
)
@sensitive_variables()
def rotate_key(
    request: CallRequest, response: HttpResponse, key_id: Path[KeyId], asked: Body[RotateBody] = _ROTATE
) -> IssuedKey:
    """The old secret works for `overlap` seconds more; the key, its usage and its history stay.

    A key can rotate itself. It replaces the secret that it calls with: if that has been replaced already, the
    answer is 409, so that of many processes that rotate at once one succeeds. Another key can be rotated by
    one that has all that it has, for the answer holds its secret.
    """
    own, now = calling_key(request), timezone.now()
    key = _find(own.organization, key_id)
    presented = request.auth.secret
    current = None
    if presented is not None and key.pk == own.pk:
        current = key.secrets.filter(pk=presented.id).first()
    sent = asked.model_fields_set
    issued = lifecycle.rotate_key(
        lifecycle.key_actor(own),
        key,
        overlap=dt.timedelta(seconds=asked.overlap),
        current=current,
        expires_at=asked.expires_at if "expires_at" in sent else lifecycle.UNSET,
        now=now,
    )
    old = issued.key.secrets.exclude(stops_at=None).order_by("stops_at").last()
    return _issued(issued, None if old is None else old.stops_at, now)


@router.post(
    "/keys/{key_id}/revoke",
    auth=caller(MANAGE_KEYS),
    response=ManagedKey,
    operation_id="revoke_key",
    summary="End a key for good",
    url_name="v1_key_revoke",
    openapi_extra=declare(MANAGE_KEYS, body=True, more=(404, 409)),
)
def revoke_key(
    request: CallRequest, response: HttpResponse, key_id: Path[KeyId], asked: Body[RevokeBody] = _REVOKE
) -> ManagedKey:
    """The key and all its secrets, the caller's own if it asks for that. A revoked key stays as it is."""
    own, now = calling_key(request), timezone.now()
    key = _find(own.organization, key_id)
    lifecycle.revoke_key(lifecycle.key_actor(own), key, reason=asked.reason, now=now)
    return _answer(_find(own.organization, key_id), now)


# --- reading --------------------------------------------------------------------------------------


def _whole(keys: QuerySet[Key]) -> QuerySet[Key]:
    """With all that an answer tells."""
    current = Secret.objects.filter(stops_at=None).defer("digest").select_related("key")
    return keys.select_related("organization__policy").prefetch_related(
        "scopes", Prefetch("secrets", current, to_attr="current_secrets")
    )


def _find(organization: Organization, key_id: str) -> Key:
    """The organization's key of this id; of another's nobody learns that there is one."""
    found = _whole(organization.keys.filter(public_id=key_id)).first() if _may_be_id(key_id) else None
    if found is None:
        raise HttpError(404, "no such key")
    return found


def _may_be_id(text: str) -> bool:
    return text.isascii() and text.startswith("key_") and text[4:].isalnum()


def _facts(organization: Organization, keys: Iterable[Key], now: dt.datetime) -> list[ManagedKey]:
    found = list(keys)
    used = reports.key_last_used(organization, [key.pk for key in found])
    terms = Terms.of(organization.policy)
    return [ManagedKey.of(key, _current(key), used.get(key.pk), terms, now) for key in found]


def _current(key: Key) -> Secret | None:
    secrets: list[Secret] = key.current_secrets  # type: ignore[attr-defined]  # by _whole
    return secrets[0] if secrets else None


def _answer(key: Key, now: dt.datetime) -> ManagedKey:
    return _facts(key.organization, [key], now)[0]


def _issued(issued: lifecycle.Issued, stops_at: dt.datetime | None, now: dt.datetime) -> IssuedKey:
    facts = _answer(_find(issued.key.organization, issued.key.public_id), now)
    return IssuedKey(**facts.model_dump(), secret=issued.plaintext, old_secret_stops_at=stops_at)


# --- the query of the list ------------------------------------------------------------------------

type Position = tuple[dt.datetime, int]


def _query(request: HttpRequest, organization: Organization) -> tuple[dict[str, str], int, Position | None]:
    """What is asked. Raises ValidationError with the parameter that is wrong."""
    given = request.GET
    if not given.keys() <= _PARAMETERS.keys():
        raise invalid_at("query", "There is an unknown parameter.")
    for name in given:
        if len(given.getlist(name)) > 1:
            raise invalid_at("query", "This is there twice.", name)
    filters = {"state": given.get("state", ""), "environment": given.get("environment", "")}
    for name, choices in (("state", KeyState.values), ("environment", Environment.values)):
        if name in given and filters[name] not in choices:
            raise invalid_at("query", f"This is none of {', '.join(choices)}.", name)
    text = given.get("limit", str(PAGE))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= limit <= MAX_PAGE:
        raise invalid_at("query", f"This is no whole number from 1 to {MAX_PAGE}.", "limit")
    return filters, limit, _position(request, organization, filters)


def _cursor(organization: Organization, filters: dict[str, str], last: Key) -> str:
    """Signed, so that what comes back is what was given out, to this organization and for these filters."""
    return signing.dumps([organization.pk, filters, last.created_at.isoformat(), last.pk], salt=_SALT)


def _position(request: HttpRequest, organization: Organization, filters: dict[str, str]) -> Position | None:
    cursor = request.GET.get("cursor")
    if cursor is None:
        return None
    try:
        whose, asked, at, pk = signing.loads(cursor, salt=_SALT)
    except signing.BadSignature:
        whose, asked, at, pk = 0, {}, "", 0
    if (whose, asked) != (organization.pk, filters):
        raise invalid_at("query", "This is not the next of a page with the same parameters.", "cursor")
    return dt.datetime.fromisoformat(at), pk
