"""A key that somebody sends to staff: which one it is, why its calls were refused lately, and its end.

It finds keys by a whole key, by their last four characters or by their id, revoked and expired ones too. What
was pasted is looked up and forgotten.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Final, NamedTuple

from django import forms
from django.views.decorators.debug import sensitive_variables

from keys import oversight, tokens
from keys.models import Key, Secret
from portal import refusals
from portal.pages import Badge, badge
from portal.refusals import Row
from usage import refusal_reports, reports

SHOWN: Final = 10  # keys with the same last four characters
REFUSALS: Final = 5  # of each


class _Forgetful(forms.PasswordInput):
    """Shows what is typed, and never gives it back."""

    input_type = "text"


class FindKeyForm(forms.Form):
    """A pasted key, or what is known of it; the page never gives it back."""

    secret = forms.CharField(
        max_length=tokens.MAX_LENGTH,
        label="The whole key, its last four characters, or its ID",
        help_text="It is sent in the body, looked up by its digest, and neither stored nor logged.",
        error_messages={"required": "Paste the key."},
        widget=_Forgetful(
            {
                "autocomplete": "off",
                "autocapitalize": "off",
                "spellcheck": "false",
                "placeholder": "lk_live_…, 9aXc or key_…",
            }
        ),
    )


class FoundKey(NamedTuple):
    """A key, and what staff want to know of it first."""

    key: Key
    badge: Badge
    secret: Secret | None  # the one that was pasted
    is_ended: bool  # the pasted secret was replaced by a rotation, and works no more
    last_used: dt.datetime | None
    rows: list[Row]  # refused calls, the newest first


@dataclass(frozen=True, slots=True)
class Search:
    """What was found: keys, or a sentence that says why none."""

    keys: list[FoundKey]
    more: bool = False  # keys than are shown
    why_not: str = ""


@sensitive_variables()
def search(text: str, now: dt.datetime) -> Search:
    """The keys that this text means."""
    secret = oversight.find_by_secret(text)
    if secret is not None:
        return Search([_found(secret.key, secret, now)])
    keys = refusals.keys_of(None, text.strip().rpartition("…")[2])
    if keys:
        return Search([_found(key, None, now) for key in keys[:SHOWN]], more=len(keys) > SHOWN)
    query, why_not = refusals.address_of(text, None)
    if query.startswith("request="):
        why_not = "This is the id of a request. Look it up under Refusals."
    elif why_not == refusals.NEITHER:
        why_not = "This is neither a key, nor the last four characters of one, nor a key’s id."
    return Search([], why_not=why_not or "No key here has this id or these last four characters.")


def _found(key: Key, secret: Secret | None, now: dt.datetime) -> FoundKey:
    refused = refusal_reports.find(refusal_reports.of_everybody(), keys=[key.pk])[:REFUSALS]
    return FoundKey(
        key=key,
        badge=badge(key, now),
        secret=secret,
        is_ended=secret is not None and not secret.works_at(now),
        last_used=reports.key_last_used(key.organization, [key.pk]).get(key.pk),
        rows=[refusals.row(refusal) for refusal in refused],
    )
