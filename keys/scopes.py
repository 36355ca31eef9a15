"""Scope names and matching; pure.

A scope is `resource:action` in lower case, e.g. `orders:read`. Matching is equality: a key that may
`orders:write` may not therefore `orders:read`, and there are no wildcards, so that what a key can do is
what its page says.
"""

import re
from collections.abc import Iterable

MAX_LENGTH = 64
PORTAL = "portal:"  # scopes that begin so are the portal's own machine API
MANAGE_KEYS = "portal:keys"
STAFF_ONLY = frozenset({"portal:verify", "portal:report"})

PATTERN = r"[a-z][a-z0-9_.-]*(:[a-z0-9][a-z0-9_.-]*)+"
_NAME = re.compile(PATTERN, re.ASCII)


def is_name(text: str) -> bool:
    """May `text` name a scope? Lower case, at least one colon, at most 64 characters."""
    return len(text) <= MAX_LENGTH and _NAME.fullmatch(text) is not None


def missing(needed: Iterable[str], held: frozenset[str]) -> list[str]:
    """The needed scopes that are not held, sorted."""
    return sorted(set(needed) - held)
