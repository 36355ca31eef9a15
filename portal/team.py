"""The team page, its forms, and invitations with their mails.

Who may do what is lifecycle's; here an invitation gets its mail in the same transaction, and what a person
has confirmed as theirs is looked up. A mail's link lets nobody in: it says where to sign in, and as whom.
"""

import datetime as dt
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from allauth.account.models import EmailAddress
from django import forms
from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.paginator import Page, Paginator
from django.db import transaction
from django.db.models import Count, OuterRef, Subquery
from django.db.models.functions import Coalesce
from django.urls import reverse

from keys import lifecycle
from keys.audit import Actor
from keys.forms import RefusableForm
from keys.lifecycle.invitations import PAUSE
from keys.models import Invitation, Membership, Organization
from keys.permissions import ACT_SUMMARY, ROLE_SUMMARY, TABLE, Act, Role, allows
from portal import outbox
from portal.accounts import signup_policy
from portal.models import User

PAGE: Final = 50
LISTED: Final = 100  # invitations


class RoleRow(NamedTuple):
    """A role in the table of what each may do."""

    title: str
    summary: str


class ActRow(NamedTuple):
    """An act, and for each role whether it may."""

    title: str
    allowed: list[bool]


class Waiting(NamedTuple):
    """An invitation that nobody has accepted."""

    invitation: Invitation
    expired: bool
    may_resend: bool
    may_end: bool


# --- forms ----------------------------------------------------------------------------------------


def roles_given_by(actor: Actor) -> list[tuple[str, str]]:
    """The roles that this person may give, each with what it may do, the least first."""
    may_own = actor.role is not None and allows(actor.role, Act.TRANSFER_OWNERSHIP)
    return [
        (role.value, f"{role.value.capitalize()}: {ROLE_SUMMARY[role]}")
        for role in reversed(Role)
        if role is not Role.OWNER or may_own
    ]


class RoleForm(RefusableForm):
    """A member's role."""

    role = forms.ChoiceField(
        label="Role",
        widget=forms.RadioSelect,
        error_messages={"required": "Choose a role.", "invalid_choice": "Choose one of these roles."},
    )

    def __init__(self, actor: Actor, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["role"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = roles_given_by(actor)


class InviteForm(RoleForm):
    """Who is asked to join, and as what."""

    field_order = ("email", "role")
    email = forms.CharField(
        max_length=254,
        label="Email address",
        widget=forms.EmailInput(
            attrs={"autocomplete": "off", "autofocus": True, "placeholder": "colleague@example.com"}
        ),
        error_messages={"required": "Enter an address."},
    )


class _MemberField(forms.ModelChoiceField):  # type: ignore[type-arg]  # not subscriptable at run time
    def label_from_instance(self, obj: Membership) -> str:
        return f"{obj.user} ({obj.get_role_display()})"


class TransferForm(RefusableForm):
    """Who is to be the owner."""

    to = _MemberField(
        Membership._default_manager.none(),
        label="New owner",
        empty_label="Choose a member",
        error_messages={"required": "Choose a member.", "invalid_choice": "Choose one of the members."},
    )
    agreed = forms.BooleanField(
        label="I understand that I become an admin, and that only the new owner can give it back.",
        error_messages={"required": "Confirm it, if you mean it."},
    )

    def __init__(self, organization: Organization, membership: Membership, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["to"]
        assert isinstance(field, forms.ModelChoiceField)
        others = organization.memberships.exclude(pk=membership.pk).filter(user__is_active=True)
        field.queryset = others.select_related("user").order_by("user__email")


# --- what the pages show --------------------------------------------------------------------------


def members(organization: Organization, number: str | None) -> Page[Any]:
    """A page of the members (memberships), each with `made`: how many keys of theirs are not revoked."""
    own = organization.keys.filter(created_by=OuterRef("user"), revoked_at=None).order_by()
    made = own.values("created_by").annotate(count=Count("pk")).values("count")
    rows = organization.memberships.select_related("user").order_by("created_at", "id")
    return Paginator(rows.annotate(made=Coalesce(Subquery(made), 0)), PAGE).get_page(number)


def role_rows() -> list[RoleRow]:
    return [RoleRow(role.value.capitalize(), ROLE_SUMMARY[role]) for role in Role]


def act_rows() -> list[ActRow]:
    """The table of `keys.permissions`, act by act."""
    return [ActRow(title, [act in TABLE[role] for role in Role]) for act, title in ACT_SUMMARY.items()]


def waiting(organization: Organization, actor: Actor, now: dt.datetime) -> list[Waiting]:
    """The invitations that may still be accepted, or sent again."""
    rows = organization.invitations.filter(accepted_at=None, withdrawn_at=None).order_by("-sent_at", "-id")
    given = {role for role, _ in roles_given_by(actor)}
    return [
        Waiting(
            invitation=each,
            expired=not each.is_open_at(now),
            may_resend=each.role in given and now >= each.sent_at + PAUSE,
            may_end=each.role in given,
        )
        for each in rows[:LISTED]
    ]


def keys_left(organization: Organization, membership: Membership, who: str = "this member") -> str:
    """What becomes of this member's keys when the member goes, in words that call the member `who`."""
    count = organization.keys.filter(created_by_id=membership.user_id, revoked_at=None).count()
    if count == 0:
        return f"No key that still works was made by {who}."
    keys = f"1 key that {who} made keeps" if count == 1 else f"{count} keys that {who} made keep"
    return (
        f"{keys} working: keys are the organization’s. A member who has a secret still has it afterwards, so "
        "Attention says of each that its maker has left, until you rotate it."
    )


# --- invitations and their mails ------------------------------------------------------------------


def invite(
    actor: Actor, organization: Organization, *, email: str, role: str, now: dt.datetime
) -> Invitation:
    """As lifecycle's, with its mail. Raises Invalid, Conflict or Forbidden."""
    with transaction.atomic():
        invitation = lifecycle.invite(actor, organization, email=email, role=role, now=now)
        _mail(invitation, now)
    return invitation


def resend(actor: Actor, invitation: Invitation, *, now: dt.datetime) -> Invitation:
    """As lifecycle's, with another mail; one that still waits is sent with the new date instead."""
    with transaction.atomic():
        invitation = lifecycle.resend_invitation(actor, invitation, now=now)
        _take_back(invitation)
        _mail(invitation, now)
    return invitation


def withdraw(actor: Actor, invitation: Invitation, *, now: dt.datetime) -> Invitation:
    """As lifecycle's; a mail that still waits is not sent."""
    with transaction.atomic():
        invitation = lifecycle.withdraw_invitation(actor, invitation, now=now)
        _take_back(invitation)
    return invitation


def accept(person: User, invitation: Invitation, *, now: dt.datetime) -> Membership:
    """As lifecycle's, with the addresses that this person has confirmed."""
    return lifecycle.accept_invitation(person, invitation, confirmed=confirmed(person), now=now)


def confirmed(person: User) -> set[str]:
    """The addresses, in lower case, that are shown to be this person's."""
    rows = EmailAddress.objects.filter(user=person, verified=True)
    return {email.lower() for email in rows.values_list("email", flat=True)}


def find(public_id: str) -> Invitation | None:
    """The invitation of this id, in whatever state."""
    return Invitation.objects.select_related("organization").filter(public_id=public_id).first()


def welcome(person: User | AnonymousUser, invitation: Invitation, now: dt.datetime) -> dict[str, Any]:
    """What the invitation's page says to whoever opens it. `state`: ended, member, stranger (not signed in),
    other (signed in without the address), welcome."""
    is_member, is_theirs = False, False
    if isinstance(person, User):
        is_member = invitation.organization.memberships.filter(user=person).exists()
        is_theirs = invitation.email in confirmed(person)
    if is_member:
        state = "member"
    elif not invitation.is_open_at(now):
        state = "ended"
    elif not isinstance(person, User):
        state = "stranger"
    else:
        state = "welcome" if is_theirs else "other"
    policy = signup_policy()
    return {
        "invitation": invitation,
        "state": state,
        "sender": _sender(invitation),
        "summary": ROLE_SUMMARY[Role(invitation.role)],
        "may_sign_up": policy.by_invitation or (policy.is_open and policy.admits(invitation.email)),
    }


def _sender(invitation: Invitation) -> str:
    return settings.PORTAL_NAME if invitation.by_provider else invitation.invited_by_label


def _once(invitation: Invitation) -> str:
    return f"invitation:{invitation.public_id}:"


def _mail(invitation: Invitation, now: dt.datetime) -> None:
    context: Mapping[str, object] = {
        "organization": invitation.organization.name,
        "sender": _sender(invitation),
        "role": invitation.get_role_display(),
        "summary": ROLE_SUMMARY[Role(invitation.role)],
        "email": invitation.email,
        "until": invitation.expires_at,
        "url": f"{settings.PORTAL_URL}{reverse('invitation', args=[invitation.public_id])}",
    }
    once = f"{_once(invitation)}{invitation.sent_at.timestamp():.6f}"
    outbox.queue(once, "invitation", context, [invitation.email], now, organization=invitation.organization)


def _take_back(invitation: Invitation) -> None:
    outbox.rewrite_waiting(_once(invitation), "invitation", lambda mail: None)
