"""The admin's forms for keys: what staff may type when they make, edit or rotate one."""

import datetime as dt

from django import forms
from django.conf import settings

from keys.admin.base import LifecycleForm
from keys.admin.fields import LinesField, MetadataField
from keys.forms.acts import DAY, OVERLAP
from keys.forms.acts import OVERLAPS as MEMBERS_OVERLAPS
from keys.lifecycle import DEFAULT
from keys.lifecycle.rules import Expiry
from keys.models import Key

OVERLAPS = (*MEMBERS_OVERLAPS, (30 * DAY, "30 days"))  # seconds


class KeyEditForm(LifecycleForm[Key]):
    networks = LinesField(help_text="Addresses or CIDR networks, one a line; empty: anywhere.")
    rates = LinesField(help_text="One a line: 10/second, 600/minute; beside the policy's. Empty: none.")
    quotas = LinesField(
        help_text="Hard, in a UTC day or month, one a line: 100000/month; beside the policy's. Empty: none."
    )
    metadata = MetadataField(help_text="The customer's own labels, one a line: name = value.")

    class Meta:
        model = Key
        fields = ("name", "scopes", "networks", "rates", "quotas", "expires_at", "metadata")
        help_texts = {
            "expires_at": "UTC; empty: never.",
            "scopes": "Staff may also grant portal:verify and portal:report.",
        }


class KeyAddForm(KeyEditForm):
    expiry = forms.ChoiceField(
        choices=[("default", "As the policy says"), ("date", "At the moment below"), ("never", "Never")],
        initial="default",
        widget=forms.RadioSelect,
    )

    class Meta(KeyEditForm.Meta):
        fields = ("organization", "environment", *KeyEditForm.Meta.fields)  # type: ignore[assignment]  # longer

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]  # as they came
        days = settings.KEY_DEFAULT_LIFETIME_DAYS
        self.fields["expiry"].help_text = f"Policies that say nothing mean {days} days."
        self.fields["expires_at"].help_text = "UTC."

    def clean(self) -> dict[str, object] | None:
        cleaned = super().clean() or self.cleaned_data
        chosen, moment = cleaned.get("expiry"), cleaned.get("expires_at")
        if chosen == "date" and moment is None and "expires_at" not in self.errors:
            self.add_error("expires_at", "Say when.")
        if chosen in ("default", "never") and moment is not None:
            self.add_error("expiry", "Choose “At the moment below”, or leave the moment empty.")
        return cleaned

    def chosen_expiry(self) -> Expiry:
        match self.cleaned_data["expiry"]:
            case "date":
                moment: dt.datetime = self.cleaned_data["expires_at"]
                return moment
            case "never":
                return None
        return DEFAULT


class RotateForm(forms.Form):
    overlap = forms.TypedChoiceField(
        choices=OVERLAPS,
        coerce=int,
        initial=DAY,
        widget=forms.RadioSelect,
        label=OVERLAP,
    )
    current = forms.IntegerField(min_value=1, max_value=2**63 - 1, widget=forms.HiddenInput)

    def chosen_overlap(self) -> dt.timedelta:
        return dt.timedelta(seconds=self.cleaned_data["overlap"])
