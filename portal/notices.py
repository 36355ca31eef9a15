"""Mails about what was decided about keys: on scopes that were asked for, and to retire what nobody uses.

Each is queued once however many workers run: the mail itself is the note that it was. It changes no key.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse

from keys.lifecycle.locks import lock_organization
from keys.models import AuditEvent, Key, Organization, RequestState, ScopeRequest
from portal import outbox
from portal.expiry import who_gets_what
from portal.models import Mail, User

LISTED: Final = 100  # keys in one mail
_DECISION: Final = "scope-request:"
_RETIREMENT: Final = "retirement:"
_RETIREMENT_TEMPLATE: Final = "retirement"


def tell_of_decisions(now: dt.datetime) -> int:
    """Queue a mail to each member whose request for a scope was decided lately; about how many requests."""
    since = now - outbox.GIVE_UP  # what was decided before is no news
    decided = ScopeRequest.objects.exclude(state=RequestState.PENDING).filter(decided_at__gt=since)
    decided = decided.filter(key__organization__suspended_at=None).order_by("pk")
    told = set(_about(Mail.objects.filter(once__startswith=_DECISION, queued_at__gt=since)))
    found = decided.select_related("key__organization", "scope")
    return sum(_tell_of(request, now) for request in found if request.pk not in told)


def _tell_of(request: ScopeRequest, now: dt.datetime) -> bool:
    key, organization = request.key, request.key.organization
    to = outbox.recipients(organization, [], also=[_asker(request)])
    path = reverse("key", args=[organization.slug, key.public_id])
    context = {
        "organization": organization.name,
        "key": key.name,
        "scope": request.scope.name,
        "approved": request.state == RequestState.APPROVED,
        "reason": request.reason,
        "note": request.note,
        "url": f"{settings.PORTAL_URL}{path}",
    }
    outbox.queue(
        f"{_DECISION}{request.pk}",
        "scope_decided",
        context,
        to,
        now,
        organization=organization,
        about=[request.pk],
    )
    return bool(to)


def _asker(request: ScopeRequest) -> User | None:
    """Who asked, whatever their address is by now."""
    asked = AuditEvent.objects.filter(
        key=request.key, act="key.scope_requested", at=request.requested_at, actor_kind="user"
    )
    return User.objects.filter(pk__in=asked.values("actor_id")).first()


def tell_of_retirements(now: dt.datetime) -> int:
    """Queue mails about keys whose retirement is announced, to each key's maker and the owners; about how
    many keys. And bring up to date what still waits to be sent."""
    retiring = Key.objects.retiring().filter(organization__suspended_at=None, retires_at__gt=now)
    ids = set(retiring.order_by().values_list("organization", flat=True))
    told = sum(_tell(organization, now) for organization in Organization.objects.filter(pk__in=ids))
    outbox.rewrite_waiting(_RETIREMENT, _RETIREMENT_TEMPLATE, _still_true)
    return told


def _tell(organization: Organization, now: dt.datetime) -> int:
    """One organization's, in one transaction: whoever comes second finds it done."""
    with transaction.atomic():
        organization = lock_organization(organization)
        prefix = f"{_RETIREMENT}{organization.pk}:"
        told = list(_about(Mail.objects.filter(organization=organization, once__startswith=prefix)))
        retiring = Key.objects.retiring().filter(organization=organization, retires_at__gt=now)
        found = [key for key in retiring.select_related("created_by") if _fact(key) not in told]
        if not found:
            return 0
        for keys, addresses in who_gets_what(organization, found):
            outbox.queue(
                f"{prefix}{keys[0].pk}:{len(keys)}:{now.timestamp():.0f}",
                _RETIREMENT_TEMPLATE,
                _context(organization, keys),
                addresses,
                now,
                organization=organization,
                about=[_fact(key) for key in keys],
            )
    return len(found)


def _about(mails: QuerySet[Mail]) -> Iterable[Any]:  # Any: what each writer noted
    return (each for about in mails.values_list("about", flat=True) for each in about)


def _fact(key: Key) -> list[object]:
    """What was told of the key; another day would be news."""
    assert key.retires_at is not None
    return [key.pk, key.retires_at.isoformat()]


def _still_true(mail: Mail) -> tuple[Mapping[str, object], Sequence[object]] | None:
    """Without the keys that were used, revoked or disabled since it was written."""
    organization = mail.organization
    if organization is None or organization.suspended:
        return None
    retiring = Key.objects.retiring().filter(organization=organization, pk__in=[pk for pk, _ in mail.about])
    keys = [key for key in retiring if _fact(key) in mail.about]
    return (_context(organization, keys), [_fact(key) for key in keys]) if keys else None


def _context(organization: Organization, keys: Sequence[Key]) -> dict[str, object]:
    lines = [
        {
            "name": key.name,
            "environment": key.environment,
            "retires_at": key.retires_at and key.retires_at.astimezone(dt.UTC),
            "url": settings.PORTAL_URL + reverse("key", args=[organization.slug, key.public_id]),
        }
        for key in keys[:LISTED]
    ]
    return {
        "organization": organization.name,
        "lines": lines,
        "count": len(keys),
        "more": max(len(keys) - LISTED, 0),
    }
