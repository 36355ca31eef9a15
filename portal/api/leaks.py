"""`POST /v1/leaks/github`: GitHub tells of keys that it saw in public, by its partner protocol.

Its signature is what opens it, so there is no caller's key. The answer is the same whatever was in the list,
and it is not in the OpenAPI document: the protocol is GitHub's.
"""

from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from ninja import Router
from ninja.errors import HttpError

from keys.models import LeakDoor
from keys.verdicts import Code
from portal import github, leaks
from portal.api.answers import exact_json, problem
from usage import metering, problems

router = Router(tags=["leaks"])

MOST: Final = 5000  # in one list; GitHub sends up to a hundred

_NOT_GITHUBS = "This is not a list that GitHub has signed."


@router.post("/leaks/github", include_in_schema=False, url_name="v1_leaks_github")
@sensitive_variables()
def leaks_github(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """204 for a list that GitHub has signed, 400 for anything else."""
    headers = request.headers
    identifier = headers.get("Github-Public-Key-Identifier", "")
    signature = headers.get("Github-Public-Key-Signature", "")
    try:
        if not github.is_signed(request.body, identifier, signature):
            return problem(400, request=request, detail=_NOT_GITHUBS)
    except github.Unavailable:
        return problems.refusal_response(metering.Decision(Code.UNAVAILABLE))
    listed = exact_json(request, ("application/json",))
    if not isinstance(listed, list) or len(listed) > MOST:
        raise HttpError(400, "no list")
    leaks.take(filter(None, map(_seen, listed)), LeakDoor.GITHUB, timezone.now())
    return HttpResponse(status=204, headers=dict(response.items()))


@sensitive_variables()
def _seen(entry: Any) -> leaks.Seen | None:  # JSON
    """One of the list; None for what is no such thing: the rest of the list still counts."""
    if not isinstance(entry, dict) or not isinstance(entry.get("token"), str):
        return None
    place, source = entry.get("url"), entry.get("source")
    return leaks.Seen(
        entry["token"],
        place if isinstance(place, str) else "",
        source if isinstance(source, str) else "",
    )
