"""Which credential is on a request (CONTRACT, "Credentials on a request").

The gateway, the machine API and `@require_key` all ask here. It looks at what was sent and chooses; whether
what it chose is any good is `keys.verification`'s to say.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from usage import metering


def presented(environ: Mapping[str, Any], in_url: Iterable[str] | None = None) -> str | None:
    """The one credential of the call; empty if there is none, None if two keys of ours are there.

    `environ` has the headers as WSGI and `request.META` name them; `in_url` are the values of
    KEY_QUERY_PARAMETER, None where that is not set or does not count.
    """
    authorization: str | None = environ.get("HTTP_AUTHORIZATION")
    given: str | None = environ.get("HTTP_X_API_KEY")
    if (
        given is None
        and in_url is None
        and authorization is not None
        and authorization[:7] == "Bearer "
        and "," not in authorization
    ):
        return authorization[7:].strip()  # the usual way; what follows is every other
    given, bearer = (given or "").strip(), ""
    if authorization and "," in authorization:  # the server joins two headers by a comma
        given = ",".join([given, *_bearers(authorization)]).strip(",")
    elif authorization and authorization[:7].lower() == "bearer ":
        bearer = authorization[7:].strip()
    if in_url is None:
        if not given or given == bearer:
            return bearer
        if not bearer:
            return given if "," not in given else _choose(given.split(","))
        return _choose([*given.split(","), bearer])
    return _choose([*given.split(","), *in_url, bearer])


def _bearers(authorization: str) -> list[str]:
    """The Bearer credentials among several Authorization headers."""
    parts = [part.strip() for part in authorization.split(",")]
    return [part[7:].strip() for part in parts if part[:7].lower() == "bearer "]


def _choose(values: Iterable[str]) -> str | None:
    """Ours among several; without one, the first: a Bearer of somebody else's comes last."""
    present = list(dict.fromkeys(value.strip() for value in values if value.strip()))
    ours = [value for value in present if metering.begins_like_ours(value)]
    if len(ours) > 1:
        return None
    return ours[0] if ours else present[0] if present else ""
