"""What goes into and comes out of the calls that manage an organization's keys.

Bodies are strict, as everywhere under `/v1/`; what a value may be is said here without repeating it, and
whether it is allowed is `keys.lifecycle`'s to say. One schema has a place for a secret: `IssuedKey`.
"""

import datetime as dt
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from keys import compliance, networks, quotas, rates
from keys.compliance import Facts, Rule, Terms
from keys.lifecycle.rules import MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE
from keys.lifecycle.secrets import MAX_OVERLAP
from keys.models import Key, KeyState, Secret
from portal.api.schemas import MAX_SCOPES, ScopeName

DAY_SECONDS = 86_400
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _network(text: str) -> str:
    try:
        return networks.normalise(text)
    except ValueError:
        raise ValueError("This is not an address or a network in CIDR, as 203.0.113.0/24.") from None


def _rate(text: str) -> str:
    try:
        return rates.parse(text).text
    except ValueError:
        raise ValueError("This is not a rate, as 10/second, 600/minute or 1000/hour.") from None


def _quota(text: str) -> str:
    try:
        return quotas.parse(text).text
    except ValueError:
        raise ValueError("This is not a quota, as 100000/month, 5000/day or 9 pages/month.") from None


def _moment(value: object) -> dt.datetime:
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            return dt.datetime.fromisoformat(value.upper()).astimezone(dt.UTC)
        except (ValueError, OverflowError):
            pass  # a 30th of February
    raise ValueError("This is not a time, as 2026-06-15T12:00:00Z (RFC 3339).")


def _metadata(value: object) -> dict[str, str]:
    """By hand: pydantic would tell the name of a wrong entry, which is the client's."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("This is not an object of texts.")
    return value


def _no_default(schema: dict[str, Any]) -> None:
    """What is left out stays as it is: there is no default to tell."""
    schema.pop("default", None)


Network = Annotated[str, AfterValidator(_network)]
RateText = Annotated[str, AfterValidator(_rate), WithJsonSchema({"type": "string", "format": "rate"})]
QuotaText = Annotated[str, AfterValidator(_quota), WithJsonSchema({"type": "string", "format": "quota"})]
Moment = Annotated[
    dt.datetime, PlainValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})
]
Metadata = Annotated[
    dict[str, str],
    PlainValidator(_metadata),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": MAX_METADATA,
            "propertyNames": {"maxLength": MAX_METADATA_KEY},
            "additionalProperties": {"type": "string", "maxLength": MAX_METADATA_VALUE},
        }
    ),
]
KeyId = Annotated[str, WithJsonSchema({"type": "string", "pattern": "^key_[0-9A-Za-z]{16}$"})]


class _Settings(BaseModel):
    """What a new key and an edited one have in common; all of it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scopes: list[ScopeName] = Field(
        [],
        max_length=MAX_SCOPES,
        description="What the key may do: of the policy's scopes, and of the caller's own.",
        json_schema_extra=_no_default,
    )
    expires_at: Moment | None = Field(
        None,
        description="RFC 3339; null: never, where the policy lets it.",
        json_schema_extra=_no_default,
    )
    networks: list[Network] = Field(
        [],
        max_length=networks.MAX_NETWORKS,
        description="Addresses or CIDR; empty: calls may come from anywhere.",
        json_schema_extra=_no_default,
    )
    rates: list[RateText] = Field(
        [],
        max_length=rates.MAX_RATES,
        description="`10/second`, `600/minute`; beside the policy's. Empty: none of its own.",
        json_schema_extra=_no_default,
    )
    quotas: list[QuotaText] = Field(
        [],
        max_length=quotas.MAX_QUOTAS,
        description="`100000/month`, `5000/day`; beside the policy's. Empty: none of its own.",
        json_schema_extra=_no_default,
    )
    metadata: Metadata = Field({}, description="Labels of yours: name → text.", json_schema_extra=_no_default)

    def given(self) -> dict[str, Any]:
        """The fields that were sent, by the names of lifecycle's arguments."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class NewKeyBody(_Settings):
    """A new key. Without `expires_at` it gets the policy's usual life."""

    name: str = Field(description="What you recognise it by later.", min_length=1, max_length=100)
    environment: Literal["live", "test"] = Field(
        "live", description="The caller's own, if it is not given.", json_schema_extra=_no_default
    )


class EditKeyBody(_Settings):
    """What is to change; what is left out stays."""

    name: str = Field("", min_length=1, max_length=100, json_schema_extra=_no_default)
    disabled: bool = Field(
        False,
        description="true: its calls are refused until it is false again.",
        json_schema_extra=_no_default,
    )


class RotateBody(BaseModel):
    """How the old secret ends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap: int = Field(
        DAY_SECONDS,
        ge=0,
        le=int(MAX_OVERLAP.total_seconds()),
        description="Seconds that the old secret goes on working; 0 stops every older one now.",
    )
    expires_at: Moment | None = Field(
        None,
        description="Renews the key in the same act; left out, its expiry stays.",
        json_schema_extra=_no_default,
    )


class RevokeBody(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid", strict=True)

    reason: str = Field("", max_length=200, description="Kept in the key's history.")


class ManagedKey(BaseModel):
    """A key of the caller's organization, without its secret."""

    id: str
    name: str
    environment: Literal["live", "test"]
    state: Literal["active", "expiring", "expired", "disabled", "revoked"]
    scopes: list[str]
    networks: list[str]
    rates: list[str]
    quotas: list[str]
    metadata: dict[str, str]
    created_at: dt.datetime
    expires_at: dt.datetime | None = Field(description="null: never.")
    last_used_at: dt.datetime | None = Field(description="Its last accepted call, as far as counted.")
    revoked_reason: str
    hint: str = Field(description="How people recognise its current secret: `lk_live_…9aXc`.")
    rotate_by: dt.datetime | None = Field(description="When the policy wants its next rotation; null: never.")
    retires_at: dt.datetime | None = Field(
        description="When it is disabled unless it is used before; of a retired one, when it was."
    )
    outside: list[Rule] = Field(
        description="What of the policy it does not keep to; such a key goes on working."
    )

    @classmethod
    def of(
        cls, key: Key, secret: Secret | None, last_used: dt.datetime | None, terms: Terms, now: dt.datetime
    ) -> Self:
        """Fetch the key's scopes with it; `terms` are its organization's."""
        return cls(**_facts(key, secret, last_used, terms, now))


class IssuedKey(ManagedKey):
    """A key with its new secret."""

    secret: str = Field(description="The whole key, in this answer alone.")
    old_secret_stops_at: dt.datetime | None = Field(description="After a rotation; else null.")


class KeyList(BaseModel):
    """One page of keys, the newest first."""

    data: list[ManagedKey]
    next: str | None = Field(description="There is more: ask again with this as `cursor`.")


def _facts(
    key: Key, secret: Secret | None, last_used: dt.datetime | None, terms: Terms, now: dt.datetime
) -> dict[str, Any]:
    state = key.state_at(now)
    is_over = state in (KeyState.REVOKED, KeyState.EXPIRED)
    return {
        "id": key.public_id,
        "name": key.name,
        "environment": key.environment,
        "state": state.value,
        "scopes": sorted(scope.name for scope in key.scopes.all()),
        "networks": key.networks,
        "rates": key.rates,
        "quotas": key.quotas,
        "metadata": key.metadata,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": last_used,
        "revoked_reason": key.revoked_reason,
        "hint": "" if secret is None else secret.display,
        "rotate_by": None
        if secret is None or is_over
        else compliance.rotation_due(terms.rotate_days, secret.created_at),
        "retires_at": None if is_over else key.retires_at,
        "outside": [] if is_over else compliance.broken(terms, Facts.of(key, secret), now),
    }
