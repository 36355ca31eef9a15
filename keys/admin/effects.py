"""Agreement to what a change of policy does: shown first, and agreed to as it was shown.

A form that has nothing to show has no box to tick. What changed between the two looks is shown anew.
"""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from keys.admin.base import change_url
from keys.effects import SHORT, Effect


class _Agreement(forms.CheckboxInput):
    """A box whose value is the effect that it agrees to."""

    def __init__(self) -> None:
        super().__init__(check_test=lambda _: False)

    def value_from_datadict(self, data: Any, files: Any, name: str) -> Any:  # the effect, as text
        return data.get(name, "")

    def format_value(self, value: Any) -> str | None:
        return self.attrs.get("value")


class AgreedField(forms.CharField):
    """In the form that is shown first it is hidden."""

    def __init__(self) -> None:
        super().__init__(required=False, label="Apply it all the same", widget=forms.HiddenInput)


def require_agreement(form: forms.BaseForm, effect: Effect) -> None:
    """Add an error that shows the effect, and the box to tick, unless this very effect was agreed to."""
    if effect.is_nothing or form.cleaned_data.get("agreed") == effect.fingerprint:
        return
    field = form.fields["agreed"]
    field.widget = _Agreement()
    field.widget.attrs["value"] = effect.fingerprint
    form.add_error(None, ValidationError(_shown(effect)))


def _shown(effect: Effect) -> SafeString:
    sentences = " ".join(effect.sentences())
    if not effect.shown:
        return format_html("{} Tick “Apply it all the same” to do it.", sentences)
    keys = format_html_join(
        "",
        '<li><a href="{}">{}</a> of {}: {}</li>',
        (
            (
                change_url(each.key),
                each.key.name,
                each.key.organization.name,
                ", ".join(SHORT[rule] for rule in each.rules),
            )
            for each in effect.shown
        ),
    )
    more = effect.keys - len(effect.shown)
    rest = format_html("<li>and {} more</li>", f"{more:,}") if more else ""
    return format_html("{} Tick “Apply it all the same” below to do it.<ul>{}{}</ul>", sentences, keys, rest)
