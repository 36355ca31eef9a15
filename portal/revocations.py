"""Keys that staff or members revoke, one or many at once: each by an act of its own, and a mail to whom they
concern. Not those that programs revoke by the machine API, whose owner would get a mail for each.

The acts of one organization's keys and the mails about them are one transaction: nothing is revoked without a
mail, and no mail speaks of a key that is not.
"""

import datetime as dt
from collections.abc import Iterable
from itertools import batched, groupby
from typing import Final

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from keys import lifecycle
from keys.audit import Actor
from keys.lifecycle.locks import lock_keys
from keys.models import Key, Organization, Secret
from keys.permissions import Role
from portal import outbox
from portal.models import User

LOT: Final = 100  # keys in one transaction, and in one mail


def revoke(actor: Actor, keys: Iterable[Key], *, reason: str, now: dt.datetime) -> list[Key]:
    """Revoke those of the keys that are not, and tell their makers and the owners, each in one mail for up to
    100 keys of an organization; a member who revokes is told nothing of it. Returns
    the revoked. Raises what `lifecycle.revoke_key` does; what other transactions have done by then stays."""
    revoked: list[Key] = []
    ordered = sorted(keys, key=lambda key: (key.organization_id, key.pk))
    for _, of_one in groupby(ordered, key=lambda key: key.organization_id):
        for lot in batched(of_one, LOT):
            revoked += _revoke(actor, lot, reason, now)
    return revoked


def _revoke(actor: Actor, lot: tuple[Key, ...], reason: str, now: dt.datetime) -> list[Key]:
    with transaction.atomic():
        # All before the first act: whoever holds one of them may wait for the feed, which the act takes.
        working = [key for key in lock_keys(lot) if key.revoked_at is None]
        revoked = [lifecycle.revoke_key(actor, key, reason=reason, now=now) for key in working]
        if revoked:
            _tell(actor, revoked[0].organization, revoked, now)
    return revoked


def _tell(actor: Actor, organization: Organization, keys: list[Key], now: dt.datetime) -> None:
    """The owners of all keys, each other maker of their own."""
    secrets = Secret.objects.filter(key__in=keys, stops_at=None).defer("digest").select_related("key")
    display = {secret.key_id: secret.display for secret in secrets}
    member, by = (actor.id, actor.label) if actor.kind == "user" else (None, "")
    owners = outbox.recipients(organization, [Role.OWNER], but=member)
    _queue(organization, keys, display, by, owners, now)
    makers = User.objects.filter(pk__in={key.created_by_id for key in keys if key.created_by_id})
    for maker in makers.exclude(email__in=owners):
        theirs = [key for key in keys if key.created_by_id == maker.pk]
        told = set(outbox.recipients(organization, [], also=[maker], but=member)) - set(owners)
        _queue(organization, theirs, display, by, told, now, once=f" {maker.pk}")


def _queue(
    organization: Organization,
    keys: list[Key],
    display: dict[int, str],
    by: str,
    to: Iterable[str],
    now: dt.datetime,
    once: str = "",
) -> None:
    outbox.queue(
        f"revoked {keys[0].public_id}{once}",  # a key is revoked once
        "revoked",
        {
            "organization": organization.name,
            "keys": [(key.name, key.environment, display.get(key.pk, key.public_id)) for key in keys],
            "count": len(keys),
            "by": by,
            "reason": keys[0].revoked_reason,
            "at": now,
            "page": settings.PORTAL_URL + reverse("keys", kwargs={"organization": organization.slug}),
        },
        to,
        now,
        organization=organization,
    )
