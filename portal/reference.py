"""What the public docs list: verdicts, scopes and the proxies' recipes, read from where they are defined.

It keeps no list of its own but of what a proxy may ask and is told.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

from django.conf import settings
from django.db.models import QuerySet

from keys.models import Scope
from keys.scopes import PORTAL
from keys.verdicts import Code
from usage import meters as all_meters
from usage.meters import Meter

RULE = [
    (
        "scope",
        "A scope that the key must have, such as orders:read; repeat it for several, all of them needed.",
    ),
    ("environment", "Only live keys, or only test keys. Without it both."),
    ("resource", "A label of yours for what is called; usage is counted by it. Use few different ones."),
    ("cost", "How much the call counts, a whole number of the meter’s smallest unit; 1 without it."),
    ("meter", "What it counts as, one that staff have defined; requests without it."),
    ("deny", "403 sends every refusal but 401 as 403, for nginx; X-Portal-Status has the true status."),
]

IDENTITY = [
    ("X-Portal-Key", "The key’s public id. Empty for a CORS preflight, which carries no key."),
    ("X-Portal-Organization", "Whose key it is: the organization’s short name."),
    ("X-Portal-Environment", "Either live or test."),
    ("X-Portal-Scopes", "All the key’s scopes, with spaces between them."),
    ("X-Portal-Request", "The call’s id; a refused call is found by it under Refusals."),
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
    return [CodeRow(code.name, code.status, code.title, code.sentence, code.advice) for code in Code]


def scopes() -> QuerySet[Scope]:
    """The API's own scopes; those of this portal's machine API are not its customers' business here."""
    return Scope.objects.exclude(name__startswith=PORTAL).order_by("name")


def meters() -> list[Meter]:
    """What may be counted now, the built-in first."""
    return list(all_meters.read(archived=False).values())


@cache
def recipes() -> dict[str, str]:
    """The text of each file in `usage/recipes/`, by its name as a template can write it: `nginx_conf`."""
    folder: Path = settings.BASE_DIR / "usage" / "recipes"
    return {
        path.name.replace(".", "_").replace("-", "_"): path.read_text() for path in sorted(folder.iterdir())
    }
