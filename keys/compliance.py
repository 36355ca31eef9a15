"""Which rules of a policy a key breaks: pure, so that a policy can be judged before anyone is held to it.

`lifecycle` keeps keys within their policy whenever they change; a policy that is tightened later leaves
older keys outside it, and this module says which and why. It decides nothing and reads no database.
"""

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from django.conf import settings

from keys.models import Environment, Key, Policy, Secret
from keys.scopes import STAFF_ONLY

GRACE = dt.timedelta(minutes=1)  # the form was opened a moment ago


class Rule(StrEnum):
    """What a key can break; the value is what the audit and the API would call it."""

    SCOPES = "scopes"
    EXPIRY = "expiry"
    LIFETIME = "lifetime"
    NETWORKS = "networks"
    ROTATION = "rotation"


# Those that an edit of the key mends; an old secret is mended by a rotation.
SETTINGS = frozenset({Rule.SCOPES, Rule.EXPIRY, Rule.LIFETIME, Rule.NETWORKS})

SENTENCES: dict[Rule, str] = {
    Rule.SCOPES: "It holds scopes that keys here may no longer hold: take them away.",
    Rule.EXPIRY: "It never expires, and keys here must: give it an expiry.",
    Rule.LIFETIME: "It expires later than keys here may: give it an earlier expiry, or rotate it.",
    Rule.NETWORKS: "It may be used from anywhere, and live keys here must be limited to networks.",
    Rule.ROTATION: "Its secret is older than secrets here may be: rotate it.",
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What a policy asks of one key, the portal's own longest life included."""

    scopes: frozenset[str] | None = None  # None: all
    longest_days: int | None = None
    expiry_required: bool = False
    networks_required: bool = False
    rotate_days: int | None = None

    @classmethod
    def of(cls, policy: Policy, scopes: Iterable[str] | None = None) -> Self:
        """The policy's, with the names of the `scopes` that it lets, by approval or without; by default those
        that are stored."""
        if policy.all_scopes:
            allowed = None
        elif scopes is not None:
            allowed = frozenset(scopes)
        else:
            by_approval = policy.approval_scopes.values_list("name", flat=True)
            allowed = frozenset({*policy.scopes.values_list("name", flat=True), *by_approval})
        return cls(
            scopes=allowed,
            longest_days=longest_days(policy),
            expiry_required=policy.expiry_required,
            networks_required=policy.networks_required,
            rotate_days=policy.rotate_days,
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a key a policy looks at."""

    environment: str
    scopes: frozenset[str]
    networks: tuple[str, ...]
    expires_at: dt.datetime | None
    secret_made_at: dt.datetime | None = None  # the current secret's; None: not looked at

    @classmethod
    def of(cls, key: Key, secret: Secret | None = None, scopes: Collection[str] | None = None) -> Self:
        """The key's; fetch its scopes with it, or give their names. Without its current `secret`, its
        settings alone."""
        return cls(
            environment=key.environment,
            scopes=frozenset((scope.name for scope in key.scopes.all()) if scopes is None else scopes),
            networks=tuple(key.networks),
            expires_at=key.expires_at,
            secret_made_at=None if secret is None else secret.created_at,
        )


def longest_days(policy: Policy) -> int | None:
    """The shorter of the portal's and the policy's longest life, in days."""
    limits = [settings.KEY_MAX_LIFETIME_DAYS, policy.max_lifetime_days]
    return min((days for days in limits if days), default=None)


def rotation_due(rotate_days: int | None, made_at: dt.datetime) -> dt.datetime | None:
    """When a secret that was made then is due for rotation; None: never."""
    return None if rotate_days is None else made_at + dt.timedelta(days=rotate_days)


def broken(terms: Terms, key: Facts, now: dt.datetime) -> list[Rule]:
    """The rules that the key breaks at `now`, in the order of `Rule`. What staff alone can grant is theirs
    to grant under every policy."""
    found = []
    if terms.scopes is not None and key.scopes - terms.scopes - STAFF_ONLY:
        found.append(Rule.SCOPES)
    latest = None if terms.longest_days is None else now + dt.timedelta(days=terms.longest_days) + GRACE
    if key.expires_at is None and (terms.expiry_required or latest is not None):
        found.append(Rule.EXPIRY)
    if key.expires_at is not None and latest is not None and key.expires_at > latest:
        found.append(Rule.LIFETIME)
    if terms.networks_required and key.environment == Environment.LIVE and not key.networks:
        found.append(Rule.NETWORKS)
    if key.secret_made_at is not None:
        due = rotation_due(terms.rotate_days, key.secret_made_at)
        if due is not None and due <= now:
            found.append(Rule.ROTATION)
    return found
