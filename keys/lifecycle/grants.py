"""What a key that acts may hand on: nothing that it has not itself.

A secret that is made or a limit that is lifted is a grant. The acting key is read within the act's own
transaction, so that one which was revoked or lost a scope a moment ago grants nothing any more.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable

from keys.audit import Actor
from keys.lifecycle.refusals import Forbidden
from keys.models import Environment, Key, KeyState
from keys.scopes import MANAGE_KEYS, missing


class Grantor:
    """An acting key, as it was when the act began: an edit of itself grants nothing more either."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.scopes = frozenset(key.scopes.values_list("name", flat=True))
        self.networks = list(key.networks)

    def reach(self, environment: str) -> None:
        """Raise Forbidden unless keys of this environment are its business: a test key has no live ones."""
        if self.key.environment == Environment.TEST and environment != Environment.TEST:
            raise Forbidden("A test key manages test keys only.", "environment")

    def grant(self, environment: str, scopes: Iterable[str], networks: list[str]) -> None:
        """Raise Forbidden unless it has itself all that a key with these fields has."""
        self.reach(environment)
        lacking = missing(scopes, self.scopes)
        if lacking:
            raise Forbidden(
                f"A key grants only what it holds itself, and this one lacks {', '.join(lacking)}.", "scopes"
            )
        if self.networks and not _within(networks, self.networks):
            raise Forbidden(
                "A key that is limited to networks manages only keys that are limited to these or to a part.",
                "networks",
            )

    def grant_key(self, key: Key) -> None:
        """The same for a key as it is stored."""
        self.grant(key.environment, key.scopes.values_list("name", flat=True), key.networks)


def grantor(actor: Actor, now: dt.datetime) -> Grantor | None:
    """Who acts, if it is a key; None for people, whose role and policy say what they may. Raises Forbidden
    for a key that does not work any more or may not manage keys."""
    if actor.kind != "key":
        return None
    key = None if actor.id is None else Key.objects.filter(pk=actor.id).first()
    if key is None or key.state_at(now) not in (KeyState.ACTIVE, KeyState.EXPIRING):
        raise Forbidden("The key that asks for this does not work any more.")
    found = Grantor(key)
    if MANAGE_KEYS not in found.scopes:
        raise Forbidden(f"The key that asks for this lacks {MANAGE_KEYS}.")
    return found


def _within(networks: list[str], limits: list[str]) -> bool:
    """Is every address of `networks` in `limits`? No networks are all addresses. Both are canonical CIDR."""
    bounds = [ipaddress.ip_network(text) for text in limits]
    return bool(networks) and all(
        any(network.version == bound.version and network.subnet_of(bound) for bound in bounds)  # type: ignore[arg-type]  # of one version
        for network in map(ipaddress.ip_network, networks)
    )
