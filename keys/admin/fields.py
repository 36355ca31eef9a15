"""Form fields for the lists that keys and policies hold, in the admin; and a filter by organization.

They shape text and never judge it: what a network, a rate or a label may be is `keys.lifecycle`'s to say.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.forms import Field
from django.http import HttpRequest

from keys import forms


class LinesField(forms.LinesField):
    """One entry a line, in the admin's width; knows whether a person changed it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs["class"] = "vLargeTextField"

    def has_changed(self, initial: Any, data: Any) -> bool:
        return _differs(self, initial or [], data)


class MetadataField(forms.MetadataField):
    """As above, for `name = value`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.widget.attrs["class"] = "vLargeTextField"

    def has_changed(self, initial: Any, data: Any) -> bool:
        return _differs(self, initial or {}, data)


def _differs(field: Field, initial: Any, data: Any) -> bool:
    try:
        return bool(initial != field.clean(data))
    except ValidationError:
        return True


class Autocomplete(AutocompleteSelect):
    """Django's, which fails when a form is shown again with a choice that cannot be an id."""

    def optgroups(self, name: str, value: Sequence[str], attrs: dict[str, Any] | None = None) -> Any:
        return super().optgroups(name, [each for each in value if not each or may_be_id(each)], attrs)


def may_be_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


class OrganizationFilter(admin.ListFilter):
    """By slug, typed: a portal may have more organizations than a sidebar can list."""

    title = "organization"
    template = "admin/organization_filter.html"
    parameter_name = "organization"
    lookup = "organization__slug"

    def __init__(
        self,
        request: HttpRequest,
        params: dict[str, Any],
        model: type[Model],
        model_admin: Any,
    ) -> None:
        super().__init__(request, params, model, model_admin)
        values = params.pop(self.parameter_name, [""])
        self.slug = str(values[-1]).strip()
        if self.slug:
            self.used_parameters[self.parameter_name] = self.slug

    def expected_parameters(self) -> list[str | None]:
        return [self.parameter_name]

    def has_output(self) -> bool:
        return True

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{self.lookup: self.slug}) if self.slug else queryset

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """One "choice": what the template's form needs."""
        others = [
            (name, value)
            for name, values in changelist.filter_params.items()
            if name != self.parameter_name
            for value in values
        ]
        if changelist.query:
            others.append(("q", changelist.query))
        yield {
            "selected": bool(self.slug),
            "display": self.slug,
            "others": others,
            "remove": changelist.get_query_string(remove=[self.parameter_name]),
        }
