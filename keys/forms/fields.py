"""Fields and the form that the pages about keys are made of: how a thing is written, one entry a line."""

from collections.abc import Callable, Collection, Iterable
from typing import Any, Final, NamedTuple

from django import forms

from keys.lifecycle import Refused
from keys.models import Scope
from keys.scopes import PORTAL

MAX_TEXT: Final = 10_000  # characters of a field with one entry a line
MAX_MISTAKES: Final = 5  # said of one field
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
