"""What verification knows of a secret, its key and its organization: plain values read in bulk.

Times are epoch seconds and networks are integers, so that a check on the gateway's path is a comparison.
Records are replaced, never changed, but for an organization's, which all its keys share.
"""

import datetime as dt
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from keys import rates
from keys.models import Key, Organization, Secret
from keys.networks import Network, compile_networks
from keys.rates import Rate


@dataclass(slots=True, eq=False)
class OrganizationRecord:
    id: int
    slug: str
    name: str
    suspended: bool
    rates: tuple[Rate, ...]

    @classmethod
    def of(cls, row: Organization) -> "OrganizationRecord":
        record = cls(row.pk, row.slug, row.name, row.suspended, ())
        record.update(row)
        return record

    def update(self, row: Organization) -> None:
        self.name = row.name
        self.suspended = row.suspended
        self.rates = tuple(rates.parse(text) for text in row.policy.rates)


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


@dataclass(slots=True, eq=False)
class SecretRecord:
    id: int
    key: KeyRecord
    stops_at: float  # epoch seconds; infinity: its rotation has not come
    prefix: str
    imported: bool


def is_live(secret: SecretRecord, now: float) -> bool:
    """Could a call with this secret still be allowed, leaving its organization aside?"""
    return not secret.key.revoked and now < secret.key.expires_at and now < secret.stops_at


def _epoch(moment: dt.datetime | None) -> float:
    return math.inf if moment is None else moment.timestamp()


_NO_METADATA: dict[str, str] = {}
_scope_sets: dict[frozenset[str], tuple[frozenset[str], str]] = {}


def _shared_scopes(names: frozenset[str]) -> tuple[frozenset[str], str]:
    """Keys with the same scopes share one set and one text: a million keys have few combinations."""
    return _scope_sets.setdefault(names, (names, " ".join(sorted(names))))


class Found(NamedTuple):
    """Keys as the database had them, with all their secrets, and organizations that were not known yet."""

    keys: list[tuple[KeyRecord, dict[bytes, SecretRecord]]]
    organizations: dict[int, OrganizationRecord]


def read_keys(ids: Collection[int], known: Mapping[int, OrganizationRecord]) -> Found:
    """The keys of these ids, in at most four queries. It changes nothing: the directory decides, under its
    lock, whether what was read is still good."""
    secrets: dict[int, list[Secret]] = defaultdict(list)
    rows = list(Key.objects.filter(pk__in=ids).order_by("pk"))
    for secret in Secret.objects.filter(key_id__in=ids):
        secrets[secret.key_id].append(secret)
    scopes: dict[int, set[str]] = defaultdict(set)
    for key_id, name in Key.scopes.through.objects.filter(key_id__in=ids).values_list(
        "key_id", "scope__name"
    ):
        scopes[key_id].add(name)
    organizations = {row.organization_id: known.get(row.organization_id) for row in rows}
    unknown = [pk for pk, record in organizations.items() if record is None]
    new = {
        row.pk: OrganizationRecord.of(row)
        for row in Organization.objects.filter(pk__in=unknown).select_related("policy")
    }
    found = []
    for row in rows:
        names, text = _shared_scopes(frozenset(scopes[row.pk]))
        key = KeyRecord(
            id=row.pk,
            public_id=row.public_id,
            name=row.name,
            organization=organizations[row.organization_id] or new[row.organization_id],
            environment=row.environment,
            scopes=names,
            scopes_text=text,
            networks=compile_networks(row.networks),
            expires_at=_epoch(row.expires_at),
            disabled=row.disabled_at is not None,
            revoked=row.revoked_at is not None,
            rates=tuple(rates.parse(text) for text in row.rates),
            metadata=row.metadata or _NO_METADATA,
        )
        found.append(
            (
                key,
                {
                    bytes(secret.digest): SecretRecord(
                        secret.pk, key, _epoch(secret.stops_at), secret.prefix, secret.imported
                    )
                    for secret in secrets[row.pk]
                },
            )
        )
    return Found(found, new)
