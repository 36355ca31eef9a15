"""What the public docs list: verdicts and scopes, read from where they are defined.

The advice beside each code lives here and nowhere else; the codes themselves are `keys.verdicts`'.
"""

from typing import NamedTuple

from django.db.models import QuerySet

from keys.models import Scope
from keys.scopes import PORTAL
from keys.verdicts import Code

_ADVICE = {
    Code.VALID: "Nothing to do.",
    Code.BAD_REQUEST: "The gateway was asked with parameters that make no sense; its operator must mend it.",
    Code.MULTIPLE_CREDENTIALS: "Send the key in Authorization or in X-API-Key, not different keys in both.",
    Code.MISSING_CREDENTIAL: "Add the header Authorization: Bearer followed by your key.",
    Code.MALFORMED: "Copy the key again: a character is missing or changed, or it is not a key of ours.",
    Code.UNKNOWN: "The key was never issued here, or a rotation has replaced its secret: use the new one.",
    Code.REVOKED: "Create a new key; a revoked one never works again.",
    Code.EXPIRED: "Give the key a new expiry on its page, or create another.",
    Code.DISABLED: "Enable the key on its page.",
    Code.ORGANIZATION_SUSPENDED: "Ask the provider; all its keys are refused until it is resumed.",
    Code.IP_NOT_ALLOWED: "Call from an allowed network, or add your address on the key’s page.",
    Code.ENVIRONMENT_MISMATCH: "Use a live key for the live service, and a test key for the test one.",
    Code.INSUFFICIENT_SCOPE: "Add the scope that the answer names to the key, or use a key that has it.",
    Code.RATE_LIMITED: "Wait for as many seconds as Retry-After says, then go on more slowly.",
    Code.QUOTA_EXCEEDED: "Wait for the next period, or ask for a larger quota.",
    Code.UNAVAILABLE: "Try again after Retry-After. The key is fine; do not replace it.",
}


class CodeRow(NamedTuple):
    """One line of the codes table."""

    name: str
    status: int
    title: str
    sentence: str
    advice: str


def codes() -> list[CodeRow]:
    """Every code of the contract, in its order."""
    return [CodeRow(code.name, code.status, code.title, code.sentence, _ADVICE[code]) for code in Code]


def scopes() -> QuerySet[Scope]:
    """The API's own scopes; those of this portal's machine API are not its customers' business here."""
    return Scope.objects.exclude(name__startswith=PORTAL).order_by("name")
