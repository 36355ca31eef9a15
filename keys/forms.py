"""Forms of the pages about keys: what people type, turned into the arguments of `keys.lifecycle`.

They know how a thing is written in a field (one network a line, an expiry as a preset) and nothing of
what is allowed: policy is lifecycle's alone, and its refusals are shown at the field they name. A form
never writes.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from django import forms
from django.db.models import QuerySet
from django.http import QueryDict

from keys import lifecycle
from keys import networks as network_rules
from keys import quotas as quota_rules
from keys import rates as rate_rules
from keys.compliance import longest_days
from keys.lifecycle import Refused
from keys.lifecycle.rules import MAX_METADATA_KEY, MAX_METADATA_VALUE
from keys.models import Environment, Key, KeyState, Organization, RequestState, Scope
from keys.scopes import PORTAL

PRESETS = (7, 30, 60, 90)  # days
KEEP, RENEW, NEVER, CUSTOM = "keep", "renew", "never", "custom"
RENEW_WITHIN = dt.timedelta(days=30)
TRIED = "tried"  # in an address with settings that are only tried
MAX_TEXT = 10_000  # characters of a field with one entry a line
MAX_MISTAKES = 5  # said of one field
# lifecycle's field → the form's, where the two differ.
_FIELDS = {"expires_at": "expiry"}


class RefusableForm(forms.Form):
    """A form that can say why lifecycle refused."""

    def refuse(self, refusal: Refused) -> None:
        """Show the refusal at its field, or above the form."""
        field = _FIELDS.get(refusal.field, refusal.field)
        self.add_error(field if field in self.fields else None, refusal.sentence)


class LinesField(forms.CharField):
    """A text with one entry a line (or between commas), as a list.

    What `parse` cannot read (ValueError) is said here, so that one answer names the mistakes of all fields:
    lifecycle, which parses them again, stops at the first.
    """

    def __init__(
        self,
        *,
        parse: Callable[[str], object] = str,
        rows: int = 3,
        placeholder: str = "",
        **kwargs: Any,
    ) -> None:
        self.parse = parse
        widget = forms.Textarea(
            attrs={"rows": rows, "placeholder": placeholder, "spellcheck": "false", "autocapitalize": "off"}
        )
        super().__init__(required=False, max_length=MAX_TEXT, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return value if isinstance(value, str) or value is None else "\n".join(value)

    def clean(self, value: Any) -> list[str]:
        text: str = super().clean(value)
        entries = [part.strip() for part in text.replace(",", "\n").splitlines() if part.strip()]
        mistakes = []
        for entry in entries:
            try:
                self.parse(entry)
            except ValueError as error:
                mistakes.append(str(error))
        if mistakes:
            raise forms.ValidationError([*dict.fromkeys(mistakes)][:MAX_MISTAKES])
        return entries


class MetadataField(forms.CharField):
    """`name = value`, one a line, as a dictionary."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "placeholder": "team = payments", "spellcheck": "false"})
        super().__init__(required=False, max_length=MAX_TEXT, widget=widget, **kwargs)

    def prepare_value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return "\n".join(f"{name} = {text}" for name, text in value.items())
        return value

    def clean(self, value: Any) -> dict[str, str]:
        text: str = super().clean(value)
        entries: dict[str, str] = {}
        for line in text.splitlines():
            if not line.strip():
                continue
            name, equals, rest = line.partition("=")
            name = name.strip()
            if not equals or not name:
                raise forms.ValidationError("Write each entry as name = value, one a line.")
            if name in entries:
                raise forms.ValidationError(f"“{name[:40]}” is there twice.")
            entries[name] = rest.strip()
        return entries


class ScopesField(forms.MultipleChoiceField):
    """Scopes as check boxes, grouped by resource in the template."""

    widget = forms.CheckboxSelectMultiple

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            required=False,
            error_messages={"invalid_choice": "One of these scopes cannot be held by keys here."},
            **kwargs,
        )

    def offer(self, scopes: Iterable[Scope], held: Collection[str] | None = None) -> None:
        """`held` are the names of those that the organization's keys have, where that is to be said."""
        self.scopes = list(scopes)
        self.held = held
        self.choices = [(scope.name, scope.name) for scope in self.scopes]


class ScopeChoice(NamedTuple):
    """One check box of the scopes, for the template."""

    name: str
    description: str
    checked: bool
    is_new: bool = False  # no key of the organization has it


def group_scopes(bound: forms.BoundField) -> list[tuple[str, list[ScopeChoice]]]:
    """A scopes field's choices by resource: [(resource, [choice, …]), …]."""
    field = bound.field
    assert isinstance(field, ScopesField)
    chosen = set(bound.value() or [])
    groups: dict[str, list[ScopeChoice]] = {}
    for scope in field.scopes:
        resource = scope.name.rpartition(":")[0]
        is_new = bool(field.held) and scope.name not in (field.held or ())
        choice = ScopeChoice(scope.name, scope.description, scope.name in chosen, is_new)
        groups.setdefault(resource, []).append(choice)
    # The portal's own machine API after what the customer came for.
    return sorted(groups.items(), key=lambda group: (group[0] + ":").startswith(PORTAL))


class AmountsForm(RefusableForm):
    """How much may be called."""

    rates = LinesField(
        parse=rate_rules.parse,
        label="Rate limits",
        rows=2,
        placeholder="10/second",
        help_text="Per second, minute, hour or day, one a line, e.g. 600/minute. Empty: none of its own.",
    )
    quotas = LinesField(
        parse=quota_rules.parse,
        label="Quotas",
        rows=2,
        placeholder="100000/month",
        help_text="Hard limits in a UTC day or month, one a line, e.g. 5000/day. Empty: none of its own.",
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
        by_approval = ", ".join(policy.approval_scopes.order_by("name").values_list("name", flat=True))
        if by_approval:
            notes.append(f"By the provider’s approval, to ask for on the key’s page: {by_approval}.")
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


def prefilled(query: QueryDict) -> dict[str, Any]:
    """A new key's first values from an address, `?name=&scopes=`; scopes that are not offered are left out by
    the form."""
    scopes = query.get("scopes", "")[:MAX_TEXT].replace(",", " ").split()
    return {"name": query.get("name", "").replace("\x00", "")[:100], "scopes": scopes}


def tried(query: QueryDict) -> dict[str, Any]:
    """The settings that were tried, as the edit form's first values; nothing if none were."""
    if TRIED not in query:
        return {}
    return {"scopes": query.getlist("scopes")} | {
        name: query.get(name, "")[:MAX_TEXT] for name in ("networks", "rates", "quotas")
    }


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


class RotateKeyForm(RefusableForm):
    """How the old secret ends, and whether the key lives longer."""

    OVERLAPS = (
        (24 * 3600, "24 hours"),
        (3600, "1 hour"),
        (7 * 86_400, "7 days"),
        (0, "Not at all: it leaked"),
    )  # seconds
    overlap = forms.TypedChoiceField(
        label="The old secret keeps working for",
        choices=OVERLAPS,
        coerce=int,
        initial=24 * 3600,
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

    OVERLAPS = ((24 * 3600, "24 hours"), (7 * 86_400, "7 days"), (30 * 86_400, "30 days"))  # seconds
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


class KeyFilterForm(forms.Form):
    """The key list's search, filters and order; a value that makes no sense is as if not given."""

    SORTS = (
        ("", "Newest first"),
        ("created", "Oldest first"),
        ("name", "Name"),
        ("-used", "Used last"),
        ("used", "Unused longest"),
        ("-calls", "Most calls"),
        ("calls", "Fewest calls"),
        ("expires", "Expires first"),
    )
    q = forms.CharField(
        required=False,
        max_length=200,
        label="Search keys",
        widget=forms.TextInput(
            attrs={
                "type": "search",
                "class": "input",
                "placeholder": "Name, last four, label",
                "aria-label": "Search keys by name, last four characters, id or label",
                "autocomplete": "off",
            }
        ),
    )
    state = forms.ChoiceField(
        required=False,
        choices=[("", "All states"), *KeyState.choices],
        widget=forms.Select(attrs={"class": "input", "aria-label": "State"}),
    )
    environment = forms.ChoiceField(
        required=False,
        choices=[("", "Live and test"), *Environment.choices],
        widget=forms.Select(attrs={"class": "input", "aria-label": "Environment"}),
    )
    scope = forms.ChoiceField(
        required=False, widget=forms.Select(attrs={"class": "input", "aria-label": "Scope"})
    )
    sort = forms.ChoiceField(
        required=False,
        choices=SORTS,
        widget=forms.Select(attrs={"class": "input", "aria-label": "Order"}),
    )
    label = forms.CharField(required=False, max_length=300, widget=forms.HiddenInput)

    def __init__(self, query: Mapping[str, Any], scopes: Iterable[str]) -> None:
        super().__init__(query)
        field = self.fields["scope"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "All scopes"), *((name, name) for name in scopes)]

    def chosen(self) -> dict[str, str]:
        """The values that make sense; the others are as if not given."""
        self.is_valid()
        return {name: str(self.cleaned_data.get(name) or "") for name in self.fields}
