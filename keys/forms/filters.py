"""The key list's search, filters and order."""

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from keys.models import Environment, KeyState


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
