"""The one vocabulary of answers to "may this key make this call?".

Gateway, machine API, pages, admin, journal and docs all use `Code`; its names, HTTP statuses and public
sentences are the contract. The numbers are what the journal stores and never change.
"""

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from keys.records import SecretRecord


class Code(Enum):
    """A verdict's code: (number in the journal, HTTP status, public sentence)."""

    VALID = (1, 200, "The key is valid.")
    BAD_REQUEST = (2, 400, "The request to the gateway is malformed.")
    MULTIPLE_CREDENTIALS = (3, 400, "Two different API keys were sent; send one.")
    MISSING_CREDENTIAL = (4, 401, "No API key was sent.")
    MALFORMED = (5, 401, "This is not an API key of this service; check for missing characters.")
    UNKNOWN = (6, 401, "This API key does not exist.")
    REVOKED = (7, 401, "This API key has been revoked.")
    EXPIRED = (8, 401, "This API key has expired.")
    DISABLED = (9, 401, "This API key is disabled.")
    ORGANIZATION_SUSPENDED = (10, 403, "The organization of this API key is suspended.")
    IP_NOT_ALLOWED = (11, 403, "This API key may not be used from this address.")
    ENVIRONMENT_MISMATCH = (12, 403, "This API key belongs to the other environment.")
    INSUFFICIENT_SCOPE = (13, 403, "This API key lacks a scope that this call needs.")
    RATE_LIMITED = (14, 429, "Too many requests; slow down.")
    QUOTA_EXCEEDED = (15, 429, "The quota for this period is used up.")
    UNAVAILABLE = (16, 503, "The answer cannot be given right now; try again.")
    BROWNOUT = (17, 403, "This API key expires soon, and is refused for two minutes to say so.")

    def __init__(self, number: int, status: int, sentence: str) -> None:
        self.number = number
        self.status = status
        self.sentence = sentence
        # Plain attributes: on the gateway's path, Enum's own `name` property costs more than a check.
        self.text = self.name
        self.status_text = str(status)

    def __str__(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        """The code in words, for headings and problem documents: `Ip not allowed` reads poorly."""
        return _TITLES.get(self, self.name.replace("_", " ").capitalize())

    @property
    def advice(self) -> str:
        """What would make the call work, for whoever made it."""
        return _ADVICE[self]


_TITLES = {Code.IP_NOT_ALLOWED: "Address not allowed"}
_ADVICE = {
    Code.VALID: "Nothing to do.",
    Code.BAD_REQUEST: "The gateway was asked with parameters that make no sense; its operator must mend it.",
    Code.MULTIPLE_CREDENTIALS: "Send the key in Authorization or in X-API-Key, not different keys in both.",
    Code.MISSING_CREDENTIAL: "Add the header Authorization: Bearer followed by your key.",
    Code.MALFORMED: "Copy the key again: a character is missing or changed, or it is not a key of ours.",
    Code.UNKNOWN: "It was never issued here: check that it is a key of this service, not of another.",
    Code.REVOKED: "If it was rotated, use the new secret. A revoked key never works again: create another.",
    Code.EXPIRED: "Give the key a new expiry on its page, or create another.",
    Code.DISABLED: "Enable the key on its page.",
    Code.ORGANIZATION_SUSPENDED: "Ask the provider; all its keys are refused until it is resumed.",
    Code.IP_NOT_ALLOWED: "Call from an allowed network, or add your address on the key’s page.",
    Code.ENVIRONMENT_MISMATCH: "Use a live key for the live service, and a test key for the test one.",
    Code.INSUFFICIENT_SCOPE: "Add the scope that the answer names to the key, or use a key that has it.",
    Code.RATE_LIMITED: "Wait for as many seconds as Retry-After says, then go on more slowly.",
    Code.QUOTA_EXCEEDED: "Wait for the next period, or ask for a larger quota.",
    Code.UNAVAILABLE: "Try again after Retry-After. The key is fine; do not replace it.",
    Code.BROWNOUT: "Renew the key on its page; until it expires it works again after Retry-After.",
}
VALID = Code.VALID  # a name of its own, for the gateway's path: an enum's members are slow to look up
BY_NUMBER: dict[int, Code] = {code.number: code for code in Code}


# What a verdict is made of. On the gateway's path it stays as it is: to make a Verdict of it costs as much as
# the look-up of the key.
type Facts = tuple[Code, "SecretRecord | None", str]


class Verdict(NamedTuple):
    """What verification found. `secret` is set whenever a secret was recognised, refusals included.

    `detail` is public: it may name the missing scope or the caller's own address, never another
    tenant's facts.
    """

    code: Code
    secret: "SecretRecord | None" = None
    detail: str = ""

    @property
    def allowed(self) -> bool:
        return self.code is Code.VALID
