"""Mails and invitations in the admin: which went to whom, and what became of them.

They are to be read; the one act is to withdraw an invitation, as the customer's own team page does. What is
in a mail is on no page.
"""

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone

from keys.admin.base import EVERYWHERE, LifecycleAdmin, ReadOnly, actor, link
from keys.admin.fields import OrganizationFilter
from keys.models import Invitation
from portal import team
from portal.models import Mail


class MailState(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in ("waiting", "sent", "given up")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Mail]) -> QuerySet[Mail]:
        match self.value():
            case "waiting":
                return queryset.exclude(next_try_at=None)
            case "sent":
                return queryset.exclude(sent_at=None)
            case "given up":
                return queryset.filter(sent_at=None, next_try_at=None)
        return queryset


@admin.register(Mail)
class MailAdmin(ReadOnly, LifecycleAdmin[Mail]):
    """Which mails went, and which did not; never what is in them."""

    list_display = ("subject", "to", "organization", "state", "tries", "error", "queued_at", "sent_at")
    list_filter = (MailState,)
    list_select_related = ("organization",)
    search_fields = ("to", "organization__slug__exact")
    search_help_text = "A part of the recipient's address, or an organization's slug."
    date_hierarchy = "queued_at"
    fields = (
        "subject",
        "to",
        "organization",
        "once",
        "state",
        "tries",
        "error",
        "queued_at",
        "sent_at",
        "next_try_at",
    )
    readonly_fields = fields
    ordering = ("-queued_at", "-id")
    actions = None

    @admin.display(description="state")
    def state(self, mail: Mail) -> str:
        return mail.state


class InvitationState(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state, state.capitalize()) for state in ("open", "expired", "accepted", "withdrawn")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> QuerySet[Invitation]:
        waiting = queryset.filter(accepted_at=None, withdrawn_at=None)
        match self.value():
            case "open":
                return waiting.filter(expires_at__gt=timezone.now())
            case "expired":
                return waiting.filter(expires_at__lte=timezone.now())
            case "accepted":
                return queryset.exclude(accepted_at=None)
            case "withdrawn":
                return queryset.exclude(withdrawn_at=None)
        return queryset


@admin.register(Invitation)
class InvitationAdmin(ReadOnly, LifecycleAdmin[Invitation]):
    """Who is asked to join whom."""

    list_display = ("email", "organization_link", "role", "state", "sender", "sent_at")
    list_filter = (InvitationState, "role", OrganizationFilter)
    search_fields = ("email", "organization__slug__exact")
    search_help_text = "A part of the invited address, or an organization's slug."
    ordering = ("-id",)  # as they were made, by the primary key's index
    sortable_by = ("email", "sent_at")
    fields = (
        *("email", "organization_link", "role", "state", "sender", "created_at", "sent_at"),
        *("expires_at", "accepted_at", "accepted_by", "withdrawn_at"),
    )
    readonly_fields = fields
    actions = ("withdraw",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Invitation]:
        return super().get_queryset(request).select_related("organization", "accepted_by")

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("keys.change_invitation")

    @admin.display(description="organization")
    def organization_link(self, invitation: Invitation) -> str:
        return link(invitation.organization)

    @admin.display(description="invited by")
    def sender(self, invitation: Invitation) -> str:
        return invitation.invited_by_label

    @admin.display(description="state")
    def state(self, invitation: Invitation) -> str:
        return invitation.state_at(timezone.now()).capitalize()

    @admin.action(description="Withdraw…", permissions=["withdraw"], location=EVERYWHERE)
    def withdraw(self, request: HttpRequest, queryset: QuerySet[Invitation]) -> HttpResponseBase | None:
        return self.confirmed(
            request,
            queryset,
            action="withdraw",
            title="Withdraw invitations",
            text="Nobody can accept them any more, and mails about them that still wait are not sent. The "
            "customer sees it among its activity.",
            button="Withdraw",
            act=lambda invitation, data: team.withdraw(actor(request), invitation, now=timezone.now()),
            done="withdrawn.",
        )

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The acts of its organization, among which its own are."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        invitation = self.get_object(request, unquote(object_id))
        query = "?" + urlencode({"organization": invitation.organization.slug}) if invitation else ""
        return redirect(reverse("admin:keys_auditevent_changelist") + query)
