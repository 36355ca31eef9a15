"""What a change of policy would do to the keys that there are, and which keys are outside their policy now.

It reads and never writes. A change is judged by what it adds: a key that is outside its policy already is not
the change's doing.
"""

import datetime as dt
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from django.db.models import Count, Prefetch, Q, QuerySet

from keys.compliance import Facts, Rule, Terms, broken
from keys.models import Key, Organization, Policy, Secret

SHOWN = 20  # keys that a preview names
CHUNK = 1000

SHORT: dict[Rule, str] = {
    Rule.SCOPES: "hold scopes that it does not let",
    Rule.EXPIRY: "never expire",
    Rule.LIFETIME: "expire too late",
    Rule.NETWORKS: "may be used from anywhere",
    Rule.ROTATION: "have a secret that is due for rotation",
}


class Outside(NamedTuple):
    """A key, and the rules that it breaks."""

    key: Key
    rules: list[Rule]


@dataclass
class Effect:
    """What a change would put outside the policy."""

    keys: int = 0
    by_rule: Counter[Rule] = field(default_factory=Counter)
    shown: list[Outside] = field(default_factory=list)
    crowded: int = 0  # organizations with more keys than the new largest number
    idle_begins: bool = False  # unused keys would be retired from now on, or sooner

    @property
    def is_nothing(self) -> bool:
        return not (self.keys or self.crowded or self.idle_begins)

    @property
    def fingerprint(self) -> str:
        """Who has agreed to this effect has agreed to no other."""
        told = [
            *(self.keys, self.crowded, self.idle_begins, sorted(self.by_rule.items())),
            [(each.key.pk, each.rules) for each in self.shown],
        ]
        return hashlib.sha256(repr(told).encode()).hexdigest()[:16]

    def sentences(self) -> list[str]:
        """In words, the most important first."""
        told = []
        if self.keys:
            told.append(f"{_count(self.keys, 'key')} would be outside the policy, and go on working.")
        told += [f"{self.by_rule[rule]:,} of them {SHORT[rule]}." for rule in Rule if self.by_rule[rule]]
        if self.crowded:
            told.append(
                f"{_count(self.crowded, 'organization')} would have more keys than the largest number and "
                "could make no more."
            )
        if self.idle_begins:
            told.append("Keys without a call for so many days would be announced and then disabled.")
        return told


def of_policy(before: Policy, after: Policy, scopes: list[str], now: dt.datetime) -> Effect:
    """Of editing a policy: `after` is not saved, and lets the scopes of these names."""
    organizations = Organization.objects.filter(policy_id=before.pk)
    return _effect(organizations, Terms.of(before), Terms.of(after, scopes), before, after, now)


def of_choice(organizations: QuerySet[Organization], policy: Policy, now: dt.datetime) -> Effect:
    """Of putting these organizations under another policy."""
    moved = organizations.exclude(policy=policy)
    total = Effect()
    for before in Policy.objects.filter(organizations__in=moved).distinct():
        of_one = _effect(moved.filter(policy=before), Terms.of(before), Terms.of(policy), before, policy, now)
        total.keys += of_one.keys
        total.by_rule += of_one.by_rule
        total.shown = [*total.shown, *of_one.shown][:SHOWN]
        total.crowded += of_one.crowded
        total.idle_begins |= of_one.idle_begins
    return total


def _effect(
    organizations: QuerySet[Organization],
    before: Terms,
    after: Terms,
    old: Policy,
    new: Policy,
    now: dt.datetime,
) -> Effect:
    effect = Effect()
    if before != after:
        for key, rules in outside(Key.objects.filter(organization__in=organizations), after, now):
            added = [rule for rule in rules if rule not in broken(before, _facts(key), now)]
            if added:
                effect.keys += 1
                effect.by_rule.update(added)
                if len(effect.shown) < SHOWN:
                    effect.shown.append(Outside(key, added))
    limit = new.max_keys
    if limit is not None and (old.max_keys is None or limit < old.max_keys):
        counted = organizations.annotate(kept=Count("keys", filter=Q(keys__revoked_at=None)))
        effect.crowded = counted.filter(kept__gt=limit).count()
    if new.idle_days is not None and (old.idle_days is None or new.idle_days < old.idle_days):
        effect.idle_begins = Key.objects.filter(organization__in=organizations, revoked_at=None).exists()
    return effect


def outside(keys: QuerySet[Key], terms: Terms, now: dt.datetime) -> Iterator[Outside]:
    """Those of `keys` that are neither revoked nor expired and break a rule of `terms`, the newest first."""
    current = Secret.objects.filter(stops_at=None).defer("digest").select_related("key")
    alive = keys.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)
    alive = alive.select_related("organization").order_by("-created_at", "-pk")
    alive = alive.prefetch_related("scopes", Prefetch("secrets", current, to_attr="current_secrets"))
    for key in alive.iterator(chunk_size=CHUNK):
        rules = broken(terms, _facts(key), now)
        if rules:
            yield Outside(key, rules)


def _facts(key: Key) -> Facts:
    secrets: list[Secret] = key.current_secrets  # type: ignore[attr-defined]  # by outside()
    return Facts.of(key, secrets[0] if secrets else None)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
