"""What a key may do and for how long: the forms of a new key, an edited one, and settings that are tried."""

import datetime as dt
from typing import Any, Final

from django import forms
from django.http import QueryDict

from keys import lifecycle
from keys import networks as network_rules
from keys import quotas as quota_rules
from keys import rates as rate_rules
from keys.compliance import longest_days
from keys.forms.fields import (
    MAX_TEXT,
    LinesField,
    MetadataField,
    RefusableForm,
    ScopeChoice,
    ScopesField,
    group_scopes,
)
from keys.models import Environment, Key, Organization, Scope

PRESETS: Final = (7, 30, 60, 90)  # days
KEEP, NEVER, CUSTOM = "keep", "never", "custom"
RATES_HELP: Final = "Per second, minute, hour or day, one a line, e.g. 600/minute."
QUOTAS_HELP: Final = "Hard limits in a UTC day or month, one a line, e.g. 5000/day."
TRIED: Final = "tried"  # in an address with settings that are only tried


class AmountsForm(RefusableForm):
    """How much may be called."""

    rates = LinesField(
        parse=rate_rules.parse,
        label="Rate limits",
        rows=2,
        placeholder="10/second",
        help_text=f"{RATES_HELP} Empty: none of its own.",
    )
    quotas = LinesField(
        parse=quota_rules.parse,
        label="Quotas",
        rows=2,
        placeholder="100000/month",
        help_text=f"{QUOTAS_HELP} Empty: none of its own.",
    )


class LimitsForm(AmountsForm):
    """What a key may do, from where and how much: the settings that refuse calls."""

    scopes = ScopesField(label="Scopes")
    networks = LinesField(
        parse=network_rules.normalise,
        label="Allowed networks",
        placeholder="203.0.113.0/24",
        help_text="Addresses or CIDR networks, one a line. Empty: calls may come from anywhere.",
    )

    @property
    def _scopes(self) -> ScopesField:
        field = self.fields["scopes"]
        assert isinstance(field, ScopesField)
        return field

    def scope_groups(self) -> list[tuple[str, list[ScopeChoice]]]:
        """For the template; see `group_scopes`."""
        return group_scopes(self["scopes"])


class KeySettingsForm(LimitsForm):
    """What a new key and an edited one have in common."""

    name = forms.CharField(
        max_length=100,
        label="Name",
        help_text="Where the key will be used, so that you recognise it later.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Production backend"}),
        error_messages={"required": "Give the key a name."},
    )
    expiry = forms.ChoiceField(label="Expires")
    expires_on = forms.DateField(
        required=False,
        label="Expiry date",
        help_text="For a date of your own: the key works until the end of that day (UTC).",
        widget=forms.DateInput(attrs={"type": "date"}),
    )
    metadata = MetadataField(
        label="Metadata",
        help_text="Labels of your own to find and group keys by, one a line: name = value.",
    )

    def __init__(self, organization: Organization, now: dt.datetime, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.organization = organization
        self.now = now
        self.longest = lifecycle.longest_expiry(organization, now)
        self._scopes.offer(lifecycle.allowed_scopes(organization).order_by("name"))
        if organization.policy.networks_required:
            self.fields["networks"].help_text = "Addresses or CIDR networks, one a line. Live keys need one."
        attrs = self.fields["expires_on"].widget.attrs
        attrs["min"] = (now + dt.timedelta(days=1)).date().isoformat()
        if self.longest is not None:
            attrs["max"] = self.longest.date().isoformat()

    def _offer_expiries(self, first: list[tuple[str, str]]) -> None:
        """`first`, then the presets that the policy lets, a date, and never where it is let."""
        field = self.fields["expiry"]
        assert isinstance(field, forms.ChoiceField)
        default = self._default_days()
        longest = None if self.longest is None else (self.longest - self.now).days
        days = sorted({d for d in (*PRESETS, default) if longest is None or d <= longest})
        choices = first + [(str(d), f"In {d} days" if d > 1 else "In 1 day") for d in days]
        choices.append((CUSTOM, "On a date…"))
        if longest is None and not self.organization.policy.expiry_required:
            choices.append((NEVER, "Never"))
        field.choices = choices

    def _default_days(self) -> int:
        default = lifecycle.default_expiry(self.organization, self.now)
        return 90 if default is None else max(1, (default - self.now).days)

    def policy_notes(self) -> list[str]:
        """What the organization's policy asks of every key, said before anything is chosen."""
        policy, longest = self.organization.policy, longest_days(self.organization.policy)
        notes = []
        if longest is not None:
            notes.append(f"Keys live for {_days(longest)} at most, counted anew when they are renewed.")
        elif policy.expiry_required:
            notes.append("Every key has an expiry.")
        if policy.networks_required:
            notes.append("Live keys are limited to networks.")
        by_approval = list(policy.approval_scopes.order_by("name").values_list("name", flat=True))
        if by_approval:
            need, them = ("needs", "it") if len(by_approval) == 1 else ("need", "them")
            names = ", ".join(by_approval)
            notes.append(f"{names} {need} the provider’s approval: ask for {them} on the key’s page.")
        if policy.rotate_days is not None:
            notes.append(f"Secrets are rotated every {_days(policy.rotate_days)}.")
        if policy.idle_days is not None:
            notes.append(f"Keys without a call for {_days(policy.idle_days)} are disabled, announced before.")
        if policy.brownout_days is not None:
            last = _days(policy.brownout_days)
            notes.append(f"For its last {last} a key has brownouts: announced refusals of two minutes.")
        return notes

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if (
            cleaned.get("expiry") == CUSTOM
            and not cleaned.get("expires_on")
            and "expires_on" not in self.errors
        ):
            self.add_error("expires_on", "Choose the day on which the key expires.")
        return cleaned

    def expires_at(self) -> Any:
        """What was chosen, as lifecycle takes it: a moment, None for never, UNSET for as it is."""
        choice = self.cleaned_data["expiry"]
        if choice == KEEP:
            return lifecycle.UNSET
        if choice == NEVER:
            return None
        if choice == CUSTOM:
            return end_of_day(self.cleaned_data["expires_on"], self.longest)
        return self.now + dt.timedelta(days=int(choice))


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def end_of_day(day: dt.date, longest: dt.datetime | None) -> dt.datetime:
    """The last second of `day` in UTC; on the last day that the policy lets, the last moment it lets."""
    if longest is not None and day == longest.date():
        return longest
    return dt.datetime.combine(day, dt.time(23, 59, 59), dt.UTC)


class NewKeyForm(KeySettingsForm):
    """A new key."""

    environment = forms.ChoiceField(
        label="Environment", choices=Environment.choices, initial=Environment.LIVE, widget=forms.RadioSelect
    )

    def __init__(self, organization: Organization, now: dt.datetime, *args: Any, **kwargs: Any) -> None:
        super().__init__(organization, now, *args, **kwargs)
        held = Scope.objects.filter(keys__organization=organization, keys__revoked_at=None)
        self._scopes.offer(self._scopes.scopes, set(held.order_by().values_list("name", flat=True)))
        self._offer_expiries([])
        self.fields["expiry"].initial = str(self._default_days())

    def policy_notes(self) -> list[str]:
        """As above, and how many keys there may be."""
        limit = self.organization.policy.max_keys
        if limit is None:
            return super().policy_notes()
        used = self.organization.keys.filter(revoked_at=None).count()
        return [*super().policy_notes(), f"{used} of {limit} keys are in use."]

    def values(self) -> dict[str, Any]:
        """The arguments of `lifecycle.create_key`."""
        names = ("name", "environment", "scopes", "networks", "rates", "quotas", "metadata")
        return {name: self.cleaned_data[name] for name in names} | {"expires_at": self.expires_at()}


def prefilled(query: QueryDict) -> dict[str, Any]:
    """A new key's first values from an address, `?name=&scopes=`; scopes that are not offered are left out by
    the form."""
    scopes = query.get("scopes", "")[:MAX_TEXT].replace(",", " ").split()
    return {"name": query.get("name", "").replace("\x00", "")[:100], "scopes": scopes}


class EditKeyForm(KeySettingsForm):
    """An existing key's settings; `initial` has what is to be shown instead of a setting."""

    def __init__(self, key: Key, now: dt.datetime, *args: Any, **kwargs: Any) -> None:
        held = list(key.scopes.all())
        kwargs["initial"] = {
            "name": key.name,
            "scopes": [scope.name for scope in held],
            "expiry": KEEP,
            "networks": key.networks,
            "rates": key.rates,
            "quotas": key.quotas,
            "metadata": key.metadata,
        } | kwargs.get("initial", {})
        super().__init__(key.organization, now, *args, **kwargs)
        allowed = {scope.name: scope for scope in (*held, *self._scopes.scopes)}
        self._scopes.offer(allowed[name] for name in sorted(allowed))
        kept = "Keep: " + (f"{key.expires_at:%-d %B %Y} UTC" if key.expires_at else "never")
        self._offer_expiries([(KEEP, kept)])

    def values(self) -> dict[str, Any]:
        """The arguments of `lifecycle.edit_key`."""
        names = ("name", "scopes", "networks", "rates", "quotas", "metadata")
        return {name: self.cleaned_data[name] for name in names} | {"expires_at": self.expires_at()}


class TryForm(LimitsForm):
    """Stricter settings of a key, to see what they would refuse. It offers the scopes that the key holds."""

    def __init__(self, key: Key, query: QueryDict) -> None:
        held = sorted(key.scopes.all(), key=lambda scope: scope.name)
        initial = {
            "scopes": [scope.name for scope in held],
            "networks": key.networks,
            "rates": key.rates,
            "quotas": key.quotas,
        }
        super().__init__(query if TRIED in query else None, initial=initial)
        self._scopes.offer(held)


def tried(query: QueryDict) -> dict[str, Any]:
    """The settings that were tried, as the edit form's first values; nothing if none were."""
    if TRIED not in query:
        return {}
    return {"scopes": query.getlist("scopes")} | {
        name: query.get(name, "")[:MAX_TEXT] for name in ("networks", "rates", "quotas")
    }
