"""What goes into the machine API and what comes out, as the OpenAPI document publishes it.

Bodies are strict: unknown fields, wrong types and values that `usage.rules` refuses are 422. Answers name
facts of a key and its organization; no schema of an answer has a place for a secret.
"""

import datetime as dt
import math
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from keys import networks, scopes
from keys.records import KeyRecord, OrganizationRecord
from keys.verdicts import Code
from usage import meters, rules
from usage.event_format import Rejection
from usage.ledger import Used
from usage.limits import Standing
from usage.meters import REQUESTS
from usage.quotas import Balance
from usage.records import RESOURCE_LENGTH

MAX_SCOPES = 100


def _whole(value: object) -> object:
    """JSON has one kind of number: 2.0 is a whole one, to JSON Schema as well."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ScopeName = Annotated[
    str,
    AfterValidator(rules.scope),
    WithJsonSchema({"type": "string", "pattern": f"^{scopes.PATTERN}$", "maxLength": scopes.MAX_LENGTH}),
]
Address = Annotated[
    str,
    AfterValidator(rules.address),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
]
Cost = Annotated[
    int,
    BeforeValidator(_whole),
    AfterValidator(rules.cost),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": rules.MAX_COST}),
]
# Which meters there are changes while the document stands: a name that is none now is 422 too.
MeterName = Annotated[
    str,
    AfterValidator(rules.meter),
    WithJsonSchema({"type": "string", "pattern": f"^{meters.PATTERN}$", "maxLength": meters.MAX_NAME}),
]
# No pattern says which characters are printable; what a label is stands in its description.
Resource = Annotated[
    str,
    AfterValidator(rules.resource),
    WithJsonSchema({"type": "string", "format": "label", "maxLength": RESOURCE_LENGTH}),
]
RejectionName = Annotated[str, WithJsonSchema({"type": "string", "enum": [code.value for code in Rejection]})]
CodeName = Annotated[str, WithJsonSchema({"type": "string", "enum": [code.name for code in Code]})]


class VerifyBody(BaseModel):
    """Which key, and what it is asked for. A field that is null is as one that is not there."""

    model_config = ConfigDict(extra="forbid", strict=True)

    key: str = Field(description="The whole key, as its holder sent it. It is not repeated in any answer.")
    scopes: list[ScopeName] | None = Field(None, max_length=MAX_SCOPES, description="All of them are needed.")
    ip: Address | None = Field(
        None,
        description="The address of the key's holder. A key that is limited to networks is IP_NOT_ALLOWED "
        "without it: the address of whoever asks here says nothing.",
    )
    environment: Literal["live", "test"] | None = Field(None, description="Either, if it is not given.")
    cost: Cost | None = Field(
        None,
        description="In the meter's smallest unit; 1 if it is not given. A meter that counts calls takes 1 "
        "of any but 0.",
    )
    meter: MeterName | None = Field(
        None,
        description=f"One that the provider has defined; `{REQUESTS.name}` if it is not given.",
    )
    resource: Resource | None = Field(
        None,
        description="A route or model that the call is counted under; use few different ones: those beyond "
        "the portal's bound are counted as `other`. Printable characters and spaces only.",
    )
    hold: bool | None = Field(
        None,
        description="Count the call at its cost until an event with `settles` says what it really was "
        "(`POST /v1/usage/events`).",
    )


class KeyFacts(BaseModel):
    """A key, without its secret."""

    id: str
    name: str
    environment: Literal["live", "test"]
    scopes: list[str]
    expires_at: dt.datetime | None = Field(description="UTC; null: never.")
    metadata: dict[str, str]

    @classmethod
    def of(cls, key: KeyRecord) -> Self:
        return cls.model_validate(_facts(key))


class MyKey(KeyFacts):
    """A key, as it may see itself."""

    networks: list[str] = Field(description="Where it may be used from (CIDR); empty: anywhere.")

    @classmethod
    def of(cls, key: KeyRecord) -> Self:
        return cls.model_validate(_facts(key) | {"networks": networks.as_text(key.networks)})


def _facts(key: KeyRecord) -> dict[str, object]:
    return {
        "id": key.public_id,
        "name": key.name,
        "environment": key.environment,
        "scopes": sorted(key.scopes),
        "expires_at": None
        if math.isinf(key.expires_at)
        else dt.datetime.fromtimestamp(key.expires_at, tz=dt.UTC),
        "metadata": key.metadata,
    }


class OrganizationFacts(BaseModel):
    """Whose key it is."""

    slug: str
    name: str

    @classmethod
    def of(cls, organization: OrganizationRecord) -> Self:
        return cls(slug=organization.slug, name=organization.name)


class Allowance(BaseModel):
    """What is left of a limit."""

    limit: int
    remaining: int
    reset: int = Field(description="Seconds until it begins anew.")

    @classmethod
    def of(cls, standing: Standing) -> Self:
        return cls(limit=standing.rate.limit, remaining=standing.remaining, reset=standing.reset)

    @classmethod
    def of_quota(cls, balance: Balance) -> Self:
        return cls(limit=balance.quota.limit, remaining=balance.remaining, reset=balance.reset)

    @classmethod
    def of_used(cls, used: Used, now: dt.datetime) -> Self:
        reset = math.ceil((used.end - now).total_seconds())
        return cls(limit=used.quota.limit, remaining=used.remaining, reset=reset)


RateLimit = Annotated[
    Allowance | None,
    Field(
        description="The tightest of the rate limits of the key and its organization after this call; of a "
        "RATE_LIMITED one, the limit to wait for. Absent where no limit applies or none was asked."
    ),
]
Quota = Annotated[
    Allowance | None,
    Field(
        description="The hard quota of the key and its organization on this meter with least left after this "
        "call, in the meter's smallest unit; of a QUOTA_EXCEEDED one, the quota to wait for. What other "
        "processes hold at the moment is not counted as left. Absent where no quota applies, or the call "
        "costs nothing."
    ),
]
OwnQuota = Annotated[
    Allowance | None,
    Field(description="The hard quota of the key and its organization with least left, of any meter."),
]


RetryAfter = Annotated[
    int | None,
    Field(
        description="Seconds until the same call may be accepted, as in the header `Retry-After`; with "
        "RATE_LIMITED, QUOTA_EXCEEDED and BROWNOUT, and absent where no time alone helps."
    ),
]


class VerifyAnswer(BaseModel):
    """The verdict. `key` and `organization` are there whenever the secret was recognised, refused or not."""

    valid: bool
    code: CodeName
    detail: str = Field(description="For people; it may be shown to the key's holder.")
    request: str = Field(description="Finds this call of the key later. Empty: it could not be recorded.")
    key: KeyFacts | None = None
    organization: OrganizationFacts | None = None
    rate_limit: RateLimit = None
    quota: Quota = None
    retry_after: RetryAfter = None


class RejectedEvent(BaseModel):
    """An event that is not counted. Sent again as it is, only `NOT_YET` may be."""

    index: int = Field(description="Its place in the batch, from 0.")
    code: RejectionName
    detail: str


class EventsAnswer(BaseModel):
    """What came of a batch: whatever is accepted or a duplicate is counted, once, and on disk."""

    accepted: int
    duplicates: int = Field(description="Counted before, by their source and id.")
    rejected: list[RejectedEvent]


class UsageRow(BaseModel):
    """Calls in one bucket of time, of one group if groups were asked for."""

    start: dt.datetime
    end: dt.datetime = Field(description="Not included. Both are cut to from and to.")
    key: str | None = Field(None, description="The key's id.")
    meter: str | None = None
    resource: str | None = None
    outcome: CodeName | None = None
    environment: Literal["live", "test", ""] | None = None
    calls: int = Field(description="Events reported from outside are no calls.")
    quantity: str | None = Field(
        None, description="In the meter's unit, decimals as text; only where it is grouped by meter."
    )


class UsageAnswer(BaseModel):
    """Sums of the caller's organization, buckets without usage left out."""

    complete_through: dt.datetime | None = Field(
        description="Every call that was answered before is in the sums; null: there never was one."
    )
    from_: dt.datetime = Field(serialization_alias="from")
    to: dt.datetime
    bucket: Literal["hour", "day", "month"]
    data: list[UsageRow]
    other: dict[str, int] | None = Field(
        default=None,
        description="Only by resource: meters of which just so many resources are kept apart; what else was "
        "called is in `other`.",
    )
    next: str | None = Field(default=None, description="There is more: ask again with this as `cursor`.")


class MeAnswer(BaseModel):
    """The caller's own key."""

    key: MyKey
    organization: OrganizationFacts
    rate_limit: RateLimit = None
    quota: OwnQuota = None
