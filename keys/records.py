"""What verification knows of a secret, its key and its organization: plain values read in bulk.

Times are epoch seconds and networks are integers, so that a check on the gateway's path is a comparison.
Records are replaced, never changed, but for an organization's, which all its keys share; a secret's says
whether it was.
"""

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern
from typing import NamedTuple

from keys import brownouts, quotas, rates
from keys.models import EXPIRING_WITHIN, Key, Organization, Secret
from keys.networks import Network, compile_networks
from keys.quotas import Quota
from keys.rates import Rate


@dataclass(slots=True, eq=False)
class OrganizationRecord:
    id: int
    slug: str
    name: str
    suspended: bool
    rates: tuple[Rate, ...]
    quotas: tuple[Quota, ...] = ()
    brownout_days: int | None = None
    # In so many seconds before a key's end its calls are looked at closely; all of them while suspended.
    caution: float = field(init=False)
    era: object = field(init=False)  # another one means that something above may be another, too

    def __post_init__(self) -> None:
        self.caution = math.inf if self.suspended else brownouts.lead(self.brownout_days)
        self.era = object()  # last: who sees it sees the rest

    @classmethod
    def of(cls, row: Organization) -> "OrganizationRecord":
        record = cls(row.pk, row.slug, row.name, row.suspended, ())
        record.update(row)
        return record

    def update(self, row: Organization) -> None:
        self.name = row.name
        self.suspended = row.suspended
        self.rates = _shared_rates(tuple(row.policy.rates))
        self.quotas = _shared_quotas(tuple(row.policy.quotas))
        self.brownout_days = row.policy.brownout_days
        self.__post_init__()


@dataclass(slots=True, eq=False)
class KeyRecord:
    id: int
    public_id: str
    name: str
    organization: OrganizationRecord
    environment: str
    scopes: frozenset[str]
    scopes_text: str  # sorted, joined by spaces
    networks: tuple[Network, ...]  # empty: anywhere
    expires_at: float  # epoch seconds; infinity: never
    disabled: bool
    revoked: bool
    rates: tuple[Rate, ...]
    metadata: dict[str, str]
    quotas: tuple[Quota, ...] = ()
    is_brief: bool = False  # too short a life for brownouts


@dataclass(slots=True, eq=False)
class SecretRecord:
    id: int
    key: KeyRecord
    stops_at: float  # epoch seconds; infinity: its rotation has not come
    prefix: str
    imported: bool
    is_current: bool = True  # no other has taken its place, and the directory still has it


def is_live(secret: SecretRecord, now: float) -> bool:
    """Could a call with this secret still be allowed, leaving its organization aside?"""
    return not secret.key.revoked and now < secret.key.expires_at and now < secret.stops_at


_SOON = EXPIRING_WITHIN.total_seconds()


def told_from(key: KeyRecord) -> float:
    """From when on it is told when the key expires: in its last 30 days and ever after. Epoch seconds."""
    return key.expires_at - _SOON


def expiry_told(key: KeyRecord, now: float) -> str:
    """When the key expires, as RFC 3339 in UTC; nothing until then (`told_from`)."""
    return moment_text(key.expires_at) if now >= told_from(key) else ""


def brownout_until(key: KeyRecord, now: float) -> float:
    """The end of the brownout that the key is in, in epoch seconds; 0.0: it is in none."""
    days = key.organization.brownout_days
    return 0.0 if key.is_brief else brownouts.until(key.public_id, key.expires_at, days, now)


@lru_cache(maxsize=8192)
def moment_text(moment: float) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return f"{dt.datetime.fromtimestamp(moment, dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _epoch(moment: dt.datetime | None) -> float:
    return math.inf if moment is None else moment.timestamp()


_NO_METADATA: dict[str, str] = {}
_scope_sets: dict[frozenset[str], tuple[frozenset[str], str]] = {}


def _shared_scopes(names: frozenset[str]) -> tuple[frozenset[str], str]:
    """Keys with the same scopes share one set and one text: a million keys have few combinations."""
    return _scope_sets.setdefault(names, (names, " ".join(sorted(names))))


@lru_cache(maxsize=4096)
def _shared_rates(texts: tuple[str, ...]) -> tuple[Rate, ...]:
    """As `_shared_scopes`."""
    return tuple(rates.parse(text) for text in texts)


@lru_cache(maxsize=4096)
def _shared_quotas(texts: tuple[str, ...]) -> tuple[Quota, ...]:
    """As `_shared_scopes`."""
    return tuple(quotas.parse(text) for text in texts)


class Found(NamedTuple):
    """Keys as the database had them, with all their secrets, and organizations that were not known yet."""

    keys: list[tuple[KeyRecord, dict[bytes, SecretRecord]]]
    organizations: dict[int, OrganizationRecord]
    hints: set[str]  # of all the secrets; empty: of one that has none


def read_keys(ids: Collection[int], known: Mapping[int, OrganizationRecord]) -> Found:
    """The keys of these ids, in at most four queries. It changes nothing: the directory decides, under its
    lock, whether what was read is still good."""
    # Values, not model instances: a start with a million keys would take twice as long.
    rows = list(
        Key.objects.filter(pk__in=ids)
        .order_by("pk")
        .values_list(
            *("pk", "public_id", "name", "organization_id", "environment", "networks", "expires_at"),
            *("disabled_at", "revoked_at", "rates", "metadata", "quotas", "created_at"),
        )
    )
    secrets: dict[int, list[tuple[int, bytes, dt.datetime | None, str, bool]]] = defaultdict(list)
    hints = set()
    for key_id, number, digest, stops_at, prefix, imported, hint in Secret.objects.filter(
        key_id__in=ids
    ).values_list("key_id", "pk", "digest", "stops_at", "prefix", "imported", "hint"):
        secrets[key_id].append((number, bytes(digest), stops_at, prefix, imported))
        hints.add(hint)
    scopes: dict[int, set[str]] = defaultdict(set)
    for key_id, name in Key.scopes.through.objects.filter(key_id__in=ids).values_list(
        "key_id", "scope__name"
    ):
        scopes[key_id].add(name)
    new = {
        row.pk: OrganizationRecord.of(row)
        for row in Organization.objects.filter(pk__in={row[3] for row in rows} - known.keys()).select_related(
            "policy"
        )
    }
    found = []
    for (
        pk,
        public_id,
        name,
        owner,
        environment,
        networks,
        expires_at,
        disabled,
        revoked,
        limits,
        data,
        hard,
        created_at,
    ) in rows:
        names, text = _shared_scopes(frozenset(scopes[pk]))
        key = KeyRecord(
            id=pk,
            public_id=public_id,
            name=name,
            organization=known.get(owner) or new[owner],
            environment=intern(environment),
            scopes=names,
            scopes_text=text,
            networks=compile_networks(networks),
            expires_at=_epoch(expires_at),
            disabled=disabled is not None,
            revoked=revoked is not None,
            rates=_shared_rates(tuple(limits)),
            metadata=data or _NO_METADATA,
            quotas=_shared_quotas(tuple(hard)),
            is_brief=brownouts.is_brief(created_at, expires_at),
        )
        found.append(
            (
                key,
                {
                    digest: SecretRecord(number, key, _epoch(stops_at), intern(prefix), imported)
                    for number, digest, stops_at, prefix, imported in secrets[pk]
                },
            )
        )
    return Found(found, new, hints)
