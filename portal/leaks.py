"""What is told about leaked keys at any door: whose they are, what lifecycle does about it, who gets a mail.

Nothing here says to whoever told it whether a key exists. The keys are looked up by their digests and
forgotten.
"""

import datetime as dt
from collections.abc import Iterable
from itertools import batched
from typing import Any, Final, NamedTuple

from django import forms
from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from keys import lifecycle, tokens
from keys.models import Key, LeakDoor, LeakReport, LeakResponse, Secret
from keys.permissions import Role
from portal import outbox

MOST: Final = 20  # keys in one form
_CHUNK: Final = 500  # digests in one query
_TOLD: Final = (Role.OWNER, Role.ADMIN)


class _Forgetful(forms.Textarea):
    """Never gives back what was typed, which is a key."""

    def format_value(self, value: Any) -> None:
        return None


class LeakForm(forms.Form):
    """A key that somebody found, or wants to end."""

    key = forms.CharField(
        max_length=10_000,
        label="The key",
        help_text="Or the lines that it is in. It is looked up by its digest, and neither stored nor logged.",
        error_messages={"required": "Paste the key.", "max_length": "Paste the lines around the key only."},
        widget=_Forgetful(
            {
                "rows": 3,
                "placeholder": f"{settings.KEY_PREFIX}_live_…",
                "autocomplete": "off",
                "autocapitalize": "off",
                "spellcheck": "false",
            }
        ),
    )
    place = forms.CharField(
        max_length=500,
        required=False,
        label="Where it was",
        help_text="An address helps its owners to take it away from there.",
        widget=forms.TextInput(
            {"placeholder": "https://github.com/…", "autocomplete": "off", "spellcheck": "false"}
        ),
    )
    revoke = forms.BooleanField(
        required=False,
        label="Revoke it now",
        help_text="Calls with it stop within seconds, for good. For keys of your own, and when in doubt.",
    )

    @sensitive_variables()
    def clean_key(self) -> list[str]:
        """What may be keys; of an imported one nothing can be said, so it may be the whole text."""
        text: str = self.cleaned_data["key"]
        found = list(dict.fromkeys(tokens.find_any(text)))[:MOST]
        if found:
            return found
        if tokens.redact(text) != text:
            raise forms.ValidationError("This is not a whole key: a character is missing or changed.")
        return [text]


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
                _take(secrets[digest], door, place, source, now)


@sensitive_variables()
def told_by_form(form: LeakForm, now: dt.datetime) -> None:
    """Respond to what a valid form has told."""
    door = LeakDoor.HOLDER if form.cleaned_data["revoke"] else LeakDoor.PAGE
    take([Seen(each, form.cleaned_data["place"]) for each in form.cleaned_data["key"]], door, now)


def canary_used(secret: Secret, place: str, hour: dt.datetime, now: dt.datetime) -> None:
    """Report the first use of a canary in this hour and tell its owners; once, however often it is called."""
    _take(secret, LeakDoor.CANARY, place, f"{hour.astimezone(dt.UTC):%Y-%m-%dT%H}", now)


def _take(secret: Secret, door: LeakDoor, place: str, source: str, now: dt.datetime) -> None:
    response = LeakResponse.REVOKE if door is LeakDoor.HOLDER else response_to(secret.key)
    with transaction.atomic():
        report = lifecycle.report_leak(
            secret, door=door, place=place, source=source, response=response, now=now
        )
        if report is not None:
            _tell_owners(report, secret, now)


def _tell_owners(report: LeakReport, secret: Secret, now: dt.datetime) -> None:
    """One mail an hour about a key and what was done, however many places it is found at."""
    key = secret.key
    is_canary = report.door == LeakDoor.CANARY
    template = "canary" if is_canary else "leak"
    lately = key.leaks.exclude(pk=report.pk).filter(reported_at__gt=now - dt.timedelta(hours=1))
    if not is_canary and not report.response and lately.exists():
        return
    at = {"organization": key.organization.slug, "key_id": key.public_id}
    outbox.queue(
        f"{template} {key.public_id} {report.response} {now.astimezone(dt.UTC):%Y-%m-%dT%H}",
        template,
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
            "page": settings.PORTAL_URL + reverse("key_leaks", kwargs=at),
        },
        outbox.recipients(key.organization, _TOLD, also=[key.created_by]),
        now,
        organization=key.organization,
    )
