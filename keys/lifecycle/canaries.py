"""Canaries: keys that customers plant where nobody should look, so that a use of one tells of an intruder.

A canary is a key that was revoked when it was made. Whoever tries it is told what is told of any revoked key,
and verification knows nothing of canaries; the alarm is the worker's (`portal.canaries`).
"""

import datetime as dt

from django.db import transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import rules
from keys.lifecycle.actors import require, user_id
from keys.lifecycle.locks import lock_key, lock_organization
from keys.lifecycle.refusals import Conflict
from keys.lifecycle.secrets import Issued, add_secret
from keys.models import Key, Organization
from keys.permissions import Act

MOST = 20  # of one organization


def plant_canary(
    actor: Actor, organization: Organization, *, name: str, environment: str = "live", now: dt.datetime
) -> Issued:
    """A new canary with its secret. Policies about keys that work do not concern it."""
    require(actor, Act.CREATE_KEY, organization)
    with transaction.atomic():
        organization = lock_organization(organization)
        if organization.suspended:
            raise Conflict("This organization is suspended; it can make no keys.")
        if organization.keys.filter(canary=True).count() >= MOST:
            raise Conflict(f"This organization has its {MOST} canaries; take one up first.")
        key = Key(
            organization=organization,
            name=rules.clean_text(name, field="name", label="The name", maximum=100),
            environment=rules.clean_environment(environment),
            canary=True,
            created_at=now,
            created_by_id=user_id(actor),
            revoked_at=now,
            revoked_reason="A canary",
        )
        key.save(force_insert=True)
        issued = add_secret(actor, key, now)
        audit.append(
            "key.canary_planted",
            actor=actor,
            at=now,
            organization=organization,
            key=key,
            data={"environment": key.environment, "secret": issued.secret.display},
        )
    return issued


def take_up_canary(actor: Actor, key: Key, *, now: dt.datetime) -> Key:
    """No more alarms about it. It stays a revoked key, and its reports stay."""
    require(actor, Act.REVOKE_KEY, key.organization)
    with transaction.atomic():
        key = lock_key(key)
        if key.canary:
            key.canary = False
            key.save(update_fields=["canary"])
            audit.append_of(key, "key.canary_taken_up", actor, now)
    return key
