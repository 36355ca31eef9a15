"""Scopes and policies in the admin: what staff define for all organizations."""

import copy
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils import timezone

from keys import effects, lifecycle
from keys.admin.base import LifecycleAdmin, LifecycleForm, actor
from keys.admin.effects import AgreedField, require_agreement
from keys.admin.fields import LinesField
from keys.models import Policy, Scope


class ScopeForm(LifecycleForm[Scope]):
    """Its fields are the admin's."""


@admin.register(Scope)
class ScopeAdmin(LifecycleAdmin[Scope]):
    form = ScopeForm
    fields = ("name", "description")
    list_display = ("name", "description", "created_at")
    search_fields = ("name", "description")

    def get_readonly_fields(self, request: HttpRequest, obj: Scope | None = None) -> tuple[str, ...]:
        return ("name",) if obj else ()

    def perform(self, request: HttpRequest, form: Any, obj: Scope, change: bool) -> Scope:
        description = form.cleaned_data["description"]
        if change:
            return lifecycle.edit_scope(actor(request), obj, description=description, now=timezone.now())
        return lifecycle.create_scope(
            actor(request), name=form.cleaned_data["name"], description=description, now=timezone.now()
        )


class PolicyForm(LifecycleForm[Policy]):
    rates = LinesField(
        help_text="For all keys of an organization together, one a line: 10/second, 1000/hour."
    )

    quotas = LinesField(
        help_text="Hard limits for all keys of an organization together in a UTC day or month, one a line: "
        "100000/month, or 5000000 input_tokens/month for another meter than requests."
    )

    agreed = AgreedField()

    class Meta:
        model = Policy
        exclude = ()

    def clean(self) -> dict[str, Any] | None:
        """A change of a policy that has keys says first what it does to them."""
        cleaned = super().clean()
        if self.instance.pk is not None and not self.errors and self.refused is None:
            before = Policy.objects.get(pk=self.instance.pk)
            after = copy.copy(before)
            for name, value in self.changes().items():
                if name not in ("scopes", "approval_scopes"):
                    setattr(after, name, value)
            let = (*self.cleaned_data["scopes"], *self.cleaned_data["approval_scopes"])
            names = [scope.name for scope in let]
            require_agreement(self, effects.of_policy(before, after, names, timezone.now()))
        return cleaned

    def changes(self) -> dict[str, Any]:
        changed = super().changes()
        changed.pop("agreed", None)
        return changed


@admin.register(Policy)
class PolicyAdmin(LifecycleAdmin[Policy]):
    form = PolicyForm
    fieldsets = (
        (None, {"fields": ("name", "slug", "agreed")}),
        ("Scopes", {"fields": ("all_scopes", "scopes", "approval_scopes")}),
        (
            "Life of a key",
            {
                "fields": (
                    *("default_lifetime_days", "max_lifetime_days", "expiry_required"),
                    *("rotate_days", "idle_days", "brownout_days"),
                )
            },
        ),
        ("Limits", {"fields": ("max_keys", "networks_required", "rates", "quotas")}),
    )
    list_display = ("name", "slug", "default_lifetime_days", "max_lifetime_days", "max_keys", "all_scopes")
    search_fields = ("name", "slug")
    filter_horizontal: ClassVar[tuple[str, ...]] = ("scopes", "approval_scopes")

    def get_readonly_fields(self, request: HttpRequest, obj: Policy | None = None) -> tuple[str, ...]:
        return ("slug",) if obj else ()

    def perform(self, request: HttpRequest, form: Any, obj: Policy, change: bool) -> Policy:
        if change:
            return lifecycle.edit_policy(actor(request), obj, now=timezone.now(), **form.changes())
        fields = {name: value for name, value in form.cleaned_data.items() if name != "agreed"}
        return lifecycle.create_policy(actor(request), now=timezone.now(), **fields)
