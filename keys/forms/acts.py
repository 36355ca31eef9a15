"""Acts on a key: rotate it, extend an overlap, ask for a scope, revoke, label; and to plant a canary."""

import datetime as dt
from typing import Any, Final

from django import forms
from django.db.models import QuerySet

from keys import lifecycle
from keys.forms.fields import RefusableForm
from keys.forms.settings import KEEP
from keys.lifecycle.rules import MAX_METADATA_KEY, MAX_METADATA_VALUE
from keys.models import Environment, Key, KeyState, RequestState, Scope

OVERLAP: Final = "The old secret keeps working for"
DAY: Final = 86_400  # seconds
OVERLAPS: Final = (
    (0, "Not at all: it leaked"),
    (3600, "1 hour"),
    (DAY, "24 hours"),
    (7 * DAY, "7 days"),
)  # seconds
RENEW: Final = "renew"
RENEW_WITHIN: Final = dt.timedelta(days=30)


class RotateKeyForm(RefusableForm):
    """How the old secret ends, and whether the key lives longer."""

    overlap = forms.TypedChoiceField(
        label=OVERLAP,
        choices=OVERLAPS,
        coerce=int,
        initial=DAY,
        widget=forms.RadioSelect,
    )
    expiry = forms.ChoiceField(label="The key’s expiry", widget=forms.RadioSelect)
    # The secret that the reader saw: of two people who rotate at once, one succeeds.
    current = forms.IntegerField(widget=forms.HiddenInput, min_value=1, max_value=2**63 - 1)

    def __init__(self, key: Key, now: dt.datetime, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.key = key
        self.now = now
        current = key.secrets.filter(stops_at=None).first()
        self.fields["current"].initial = current.pk if current else None
        self.renewed = lifecycle.default_expiry(key.organization, now)
        field = self.fields["expiry"]
        assert isinstance(field, forms.ChoiceField)
        kept_at = lifecycle.kept_expiry(key, now)
        kept = f"{kept_at:%-d %B %Y} UTC" if kept_at else "never expires"
        is_kept = kept_at == key.expires_at
        choices = [(KEEP, f"Keep as it is ({kept})" if is_kept else f"Until {kept}, as the policy asks")]
        soon = key.expires_at is not None and key.expires_at <= now + RENEW_WITHIN
        if self.renewed is not None and (key.expires_at is None or key.expires_at < self.renewed):
            choices.append((RENEW, f"Renew until {self.renewed:%-d %B %Y} UTC"))
        if key.state_at(now) == KeyState.EXPIRED:
            choices = [choice for choice in choices if choice[0] == RENEW] or choices
        field.choices = choices
        field.initial = RENEW if soon and len(choices) > 1 else choices[0][0]

    def clean(self) -> dict[str, Any]:
        # An error at a hidden field would be seen by nobody.
        if "current" in self.errors:
            raise forms.ValidationError("This page is incomplete; open it again.")
        return super().clean() or self.cleaned_data

    def values(self) -> dict[str, Any]:
        """The arguments of `lifecycle.rotate_key`. A secret of no key or of another is a conflict."""
        secret = self.key.secrets.filter(pk=self.cleaned_data["current"]).first()
        if secret is None:
            raise lifecycle.Conflict("This secret has already been replaced; reload the key's page.")
        return {
            "overlap": dt.timedelta(seconds=self.cleaned_data["overlap"]),
            "current": secret,
            "expires_at": self.renewed if self.cleaned_data["expiry"] == RENEW else lifecycle.UNSET,
        }


class ExtendOverlapForm(RefusableForm):
    """How long the old secret is to work from now on; what it does anyway is not offered."""

    OVERLAPS = ((DAY, "24 hours"), (7 * DAY, "7 days"), (30 * DAY, "30 days"))  # seconds
    overlap = forms.TypedChoiceField(
        label="From now on it works for", coerce=int, widget=forms.RadioSelect, choices=()
    )

    def __init__(self, stops_at: dt.datetime, now: dt.datetime, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["overlap"]
        assert isinstance(field, forms.ChoiceField)
        longer = [(seconds, text) for seconds, text in self.OVERLAPS if _later(now, seconds) > stops_at]
        field.choices = longer or [self.OVERLAPS[-1]]
        field.initial = field.choices[0][0]

    def overlap_from_now(self) -> dt.timedelta:
        return dt.timedelta(seconds=self.cleaned_data["overlap"])


def _later(now: dt.datetime, seconds: int) -> dt.datetime:
    return now + dt.timedelta(seconds=seconds)


class AskForScopeForm(RefusableForm):
    """A scope that a key gets by approval alone, and what it is for."""

    scope = forms.ChoiceField(label="Scope")
    reason = forms.CharField(
        max_length=200,
        label="What it is for",
        help_text="The provider’s staff read it before they decide.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Refunds from our back office"}),
    )

    def __init__(self, key: Key, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["scope"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [
            (scope.name, f"{scope.name}: {scope.description}" if scope.description else scope.name)
            for scope in askable(key)
        ]


def askable(key: Key) -> QuerySet[Scope]:
    """What its policy gives a key by approval and the key neither has nor is asked for."""
    scopes = key.organization.policy.approval_scopes.order_by("name")
    waiting = key.scope_requests.filter(state=RequestState.PENDING).values("scope")
    return scopes.exclude(pk__in=waiting).exclude(pk__in=key.scopes.values("pk"))


class RevokeKeyForm(RefusableForm):
    """Why a key is ended."""

    reason = forms.CharField(
        required=False,
        max_length=200,
        label="Reason",
        help_text="Kept in the key’s history.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Found in a public repository"}),
    )


class LabelForm(RefusableForm):
    """An entry of the metadata of several keys at once: to be set, or removed."""

    name = forms.CharField(
        max_length=MAX_METADATA_KEY,
        label="Name",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "team"}),
        error_messages={"required": "Give the label a name."},
    )
    value = forms.CharField(
        required=False,
        max_length=MAX_METADATA_VALUE,
        label="Value",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "payments"}),
    )
    remove = forms.BooleanField(required=False, label="Remove this label from the keys that have it")

    def labels(self) -> dict[str, str | None]:
        """The argument of `lifecycle.edit_key`."""
        given = self.cleaned_data
        return {given["name"]: None if given["remove"] else given["value"]}


class CanaryForm(RefusableForm):
    """A new canary."""

    name = forms.CharField(
        max_length=100,
        label="Name",
        help_text="Where you plant it, so that the alarm tells where somebody has been.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Wiki page “Deployment”"}),
        error_messages={"required": "Give the canary a name."},
    )
    environment = forms.ChoiceField(
        label="Environment", choices=Environment.choices, initial=Environment.LIVE, widget=forms.RadioSelect
    )
