"""Requests for scopes in the admin: what customers ask for, and staff's decision, which is an act."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone

from keys import lifecycle
from keys.admin.base import EVERYWHERE, LifecycleAdmin, actor, link
from keys.models import ScopeRequest


class NoteForm(forms.Form):
    """What the customer reads beside the decision."""

    note = forms.CharField(
        required=False,
        max_length=200,
        help_text="The customer sees it, and the audit keeps it. At most 200 characters.",
        widget=forms.TextInput({"class": "vTextField", "autocomplete": "off"}),
    )


@admin.register(ScopeRequest)
class ScopeRequestAdmin(LifecycleAdmin[ScopeRequest]):
    list_display = ("scope", "key_link", "organization_link", "reason", "state", "requested_at")
    list_filter = ("state",)
    search_fields = ("key__public_id__exact", "key__name", "key__organization__name", "scope__name")
    search_help_text = "A key's id or name, an organization's name, or a scope."
    ordering = ("-id",)  # as they were asked, by the primary key's index
    fields = (
        *("scope", "key_link", "organization_link", "reason", "requested_by", "requested_at"),
        *("state", "decided_at", "note"),
    )
    readonly_fields = fields
    actions = ("approve", "deny")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ScopeRequest]:
        return super().get_queryset(request).select_related("key__organization", "scope")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.display(description="organization")
    def organization_link(self, obj: ScopeRequest) -> str:
        return link(obj.key.organization)

    @admin.display(description="key")
    def key_link(self, obj: ScopeRequest) -> str:
        return link(obj.key, obj.key.name)

    def describe(self, obj: ScopeRequest) -> str:
        return f"{obj.scope} for {obj.key.name} of {obj.key.organization}: {obj.reason}"

    @admin.action(description="Approve…", permissions=["change"], location=EVERYWHERE)
    def approve(self, request: HttpRequest, queryset: QuerySet[ScopeRequest]) -> HttpResponseBase | None:
        return self._decided(request, queryset, "approve", "They work with the next call.", "approved.")

    @admin.action(description="Deny…", permissions=["change"], location=EVERYWHERE)
    def deny(self, request: HttpRequest, queryset: QuerySet[ScopeRequest]) -> HttpResponseBase | None:
        return self._decided(request, queryset, "deny", "The keys stay as they are.", "denied.")

    def _decided(
        self, request: HttpRequest, queryset: QuerySet[ScopeRequest], action: str, text: str, done: str
    ) -> HttpResponseBase | None:
        decide = lifecycle.approve_scope if action == "approve" else lifecycle.deny_scope

        def act(asked: ScopeRequest, data: dict[str, Any]) -> object:
            return decide(actor(request), asked, note=data["note"], now=timezone.now())

        return self.confirmed(
            request,
            queryset,
            action=action,
            title=f"{action.title()} requests for scopes",
            text=text,
            button=action.title(),
            harmless=action == "approve",
            form_class=NoteForm,
            act=act,
            done=done,
        )
