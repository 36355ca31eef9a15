"""What is told about leaked keys at any door: whose they are, what lifecycle does about it, who gets a mail.

Nothing here says to whoever told it whether a key exists. The keys are looked up by their digests and
forgotten.
"""

import datetime as dt
from collections.abc import Iterable
from itertools import batched
from typing import Final, NamedTuple

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from keys import lifecycle, tokens
from keys.models import Key, LeakDoor, LeakReport, LeakResponse, Secret
from keys.permissions import Role
from portal import outbox

_CHUNK: Final = 500  # digests in one query
_TOLD: Final = (Role.OWNER, Role.ADMIN)


class Seen(NamedTuple):
    """Something that may be a key, and where it was seen, in others' words."""

    token: str
    place: str = ""
    source: str = ""


def response_to(key: Key) -> LeakResponse:
    """What the portal does about a leaked key of this environment."""
    live = key.environment == "live"
    return LeakResponse(settings.LEAK_RESPONSE_LIVE if live else settings.LEAK_RESPONSE_TEST)


@sensitive_variables()
def take(seen: Iterable[Seen], door: LeakDoor, now: dt.datetime) -> None:
    """Respond to every one of these that is a key of this portal; the others are nobody's business."""
    for some in batched((each for each in seen if 0 < len(each.token) <= tokens.MAX_LENGTH), _CHUNK):
        places = [(tokens.digest(each.token.strip()), each.place, each.source) for each in some]
        found = Secret.objects.filter(digest__in={digest for digest, _, _ in places}).select_related(
            "key__organization", "key__created_by"
        )
        secrets = {bytes(secret.digest): secret for secret in found}
        for digest, place, source in places:
            if digest in secrets:
                _take(secrets[digest], door, place, source, response_to(secrets[digest].key), now)


def _take(
    secret: Secret, door: LeakDoor, place: str, source: str, response: LeakResponse, now: dt.datetime
) -> None:
    with transaction.atomic():
        report = lifecycle.report_leak(
            secret, door=door, place=place, source=source, response=response, now=now
        )
        if report is not None:
            _tell_owners(report, secret, now)


def _tell_owners(report: LeakReport, secret: Secret, now: dt.datetime) -> None:
    """One mail an hour about a key at most, however many places it is found at."""
    key = secret.key
    at = {"organization": key.organization.slug, "key_id": key.public_id}
    outbox.queue(
        f"leak {key.public_id} {now.astimezone(dt.UTC):%Y-%m-%dT%H}",
        "leak",
        {
            "key": key.name,
            "public_id": key.public_id,
            "display": secret.display,
            "organization": key.organization.name,
            "environment": key.environment,
            "door": LeakDoor(report.door).label,
            "place": report.place,
            "response": report.response,
            "at": now,
            "page": settings.PORTAL_URL + reverse("key", kwargs=at),
        },
        outbox.recipients(key.organization, _TOLD, also=[key.created_by]),
        now,
        organization=key.organization,
    )
