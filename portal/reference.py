"""What the public docs list: verdicts, scopes and the proxies' recipes, read from where they are defined.

The advice beside each code lives here and nowhere else; the codes themselves are `keys.verdicts`'.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
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
    Code.QUOTA_EXCEEDED: "Wait until it begins anew, as the answer and Retry-After say, or have it raised.",
    Code.UNAVAILABLE: "Try again after Retry-After. The key is fine; do not replace it.",
}

RULE = [
    (
        "scope",
        "A scope that the key must have, such as orders:read; repeat it for several, all of them needed.",
    ),
    ("environment", "Only live keys, or only test keys. Without it both."),
    ("resource", "A label of yours for what is called; usage is counted by it."),
    ("cost", "How much the call counts, a whole number from 0; 1 without it."),
    ("meter", "What it counts as; requests without it."),
    ("deny", "403 sends every refusal but 401 as 403, for nginx; X-Portal-Status has the true status."),
]

IDENTITY = [
    ("X-Portal-Key", "The key’s public id. Empty for a CORS preflight, which carries no key."),
    ("X-Portal-Organization", "Whose key it is: the organization’s short name."),
    ("X-Portal-Environment", "Either live or test."),
    ("X-Portal-Scopes", "All the key’s scopes, with spaces between them."),
    ("X-Portal-Request", "The call’s id, which is in the portal’s journal too."),
    ("X-Portal-Status", "What the portal answered; 200 if the API sees it."),
    ("X-Portal-Code", "The code of the answer; VALID if the API sees it."),
]


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


@cache
def recipes() -> dict[str, str]:
    """The text of each file in `usage/recipes/`, by its name as a template can write it: `nginx_conf`."""
    folder: Path = settings.BASE_DIR / "usage" / "recipes"
    return {
        path.name.replace(".", "_").replace("-", "_"): path.read_text() for path in sorted(folder.iterdir())
    }
