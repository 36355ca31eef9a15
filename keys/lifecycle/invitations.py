"""Invitations to an organization: sent, sent again, withdrawn, accepted once; forgotten long afterwards.

Nothing here sends mail, and an invitation is no secret: accepting one takes an address that the person has
confirmed, which the caller says. It can do no more than whoever sent it may still do.
"""

import datetime as dt
from collections.abc import Callable, Collection
from typing import Final

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import IntegrityError, transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle import rules
from keys.lifecycle.actors import is_trusted, user_id
from keys.lifecycle.locks import lock_organization
from keys.lifecycle.members import require_role_change
from keys.lifecycle.refusals import Conflict, Forbidden, Invalid
from keys.models import Invitation, Membership, Organization
from keys.permissions import Act, Role, allows

LIFETIME: Final = dt.timedelta(days=7)
MOST_A_DAY: Final = 50  # invitations of an organization: mail in others' names is not to be had for free
PAUSE: Final = dt.timedelta(hours=1)  # between two mails of the same invitation
EMAIL_LENGTH: Final = 254
KEEP: Final = dt.timedelta(days=90)  # after its end; what became of it stays in the audit
_BATCH: Final = 500


def invite(
    actor: Actor, organization: Organization, *, email: str, role: str, now: dt.datetime
) -> Invitation:
    """Ask an address to join with a role. One that is a member or is asked already is a Conflict."""
    require_role_change(actor, organization, role)
    email = _clean_email(email)
    with transaction.atomic():
        organization = lock_organization(organization)
        _refuse_needless(organization, email, now)
        organization.invitations.filter(
            email=email, accepted_at=None, withdrawn_at=None, expires_at__lte=now
        ).update(withdrawn_at=now)  # it makes room for this one
        invitation = Invitation.objects.create(
            organization=organization,
            email=email,
            role=Role(role).value,
            created_at=now,
            sent_at=now,
            expires_at=now + LIFETIME,
            **_sender(actor),
        )
        _note("member.invited", actor, invitation, now, expires_at=invitation.expires_at.isoformat())
    return invitation


def resend_invitation(actor: Actor, invitation: Invitation, *, now: dt.datetime) -> Invitation:
    """Mail it again, to be accepted until LIFETIME from now; whoever does so answers for it."""
    require_role_change(actor, invitation.organization, invitation.role)
    with transaction.atomic():
        invitation = _locked(invitation)
        _refuse_ended(invitation)
        if now < invitation.sent_at + PAUSE:
            raise Conflict("It was sent less than an hour ago; wait a little before you send it again.")
        for field, value in _sender(actor).items():
            setattr(invitation, field, value)
        invitation.sent_at, invitation.expires_at = now, now + LIFETIME
        invitation.save(update_fields=["sent_at", "expires_at", *_sender(actor)])
        _note(
            "member.invitation_resent", actor, invitation, now, expires_at=invitation.expires_at.isoformat()
        )
    return invitation


def withdraw_invitation(actor: Actor, invitation: Invitation, *, now: dt.datetime) -> Invitation:
    """End an invitation that nobody has accepted. One that was withdrawn already stays as it is."""
    require_role_change(actor, invitation.organization, invitation.role)
    with transaction.atomic():
        invitation = _locked(invitation)
        if invitation.accepted_at is not None:
            raise Conflict("It has been accepted; remove the member instead.")
        if invitation.withdrawn_at is None:
            invitation.withdrawn_at = now
            invitation.save(update_fields=["withdrawn_at"])
            _note("member.invitation_withdrawn", actor, invitation, now)
    return invitation


def accept_invitation(
    person: AbstractBaseUser, invitation: Invitation, *, confirmed: Collection[str], now: dt.datetime
) -> Membership:
    """Join. `confirmed` has the addresses, in lower case, that `person` has shown to be theirs."""
    actor = Actor("user", person.get_username(), person.pk)
    try:
        with transaction.atomic():
            invitation = _locked(invitation)
            if invitation.email not in confirmed:
                raise Forbidden(f"This invitation is for {invitation.email}.")
            _refuse_ended(invitation)
            if now >= invitation.expires_at:
                raise Conflict("This invitation has expired; ask for another.")
            if not sender_may_still(invitation):
                raise Conflict("Whoever invited you may no longer do so; ask for another invitation.")
            membership = Membership.objects.create(
                organization=invitation.organization, user_id=person.pk, role=invitation.role
            )
            invitation.accepted_at, invitation.accepted_by_id = now, person.pk
            invitation.save(update_fields=["accepted_at", "accepted_by"])
            audit.append(
                "member.joined",
                actor=actor,
                at=now,
                organization=invitation.organization,
                data={
                    "member": person.get_username(),
                    "role": membership.role,
                    "invited_by": invitation.invited_by_label,
                },
            )
    except IntegrityError:
        raise Conflict("You are a member already.") from None
    return membership


def forget_invitations(*, now: dt.datetime, stop: Callable[[], bool] = lambda: False) -> int:
    """Delete invitations that could last be accepted longer ago than KEEP, in small transactions; how many.
    `stop` is asked before each."""
    forgotten = 0
    old = Invitation.objects.filter(expires_at__lt=now - KEEP)
    while not stop():
        # Asked again as each is deleted: one that is sent again meanwhile stays.
        count, _ = old.filter(pk__in=old.order_by("pk").values("pk")[:_BATCH]).delete()
        forgotten += count
        if count < _BATCH:
            break
    return forgotten


def sender_may_still(invitation: Invitation) -> bool:
    """Could whoever sent it send it now? The provider always can."""
    if invitation.by_provider:
        return True
    members = invitation.organization.memberships.filter(user__is_active=True)
    sender = members.filter(user_id=invitation.invited_by_id or 0).first()
    needed = [Act.MANAGE_TEAM]
    if invitation.role == Role.OWNER.value:
        needed.append(Act.TRANSFER_OWNERSHIP)
    return sender is not None and all(allows(sender.role, act) for act in needed)


def _clean_email(value: str) -> str:
    text = rules.clean_text(value, field="email", label="The address", maximum=EMAIL_LENGTH).lower()
    try:
        validate_email(text)
    except ValidationError:
        raise Invalid("That is no email address.", "email") from None
    return text


def _refuse_needless(organization: Organization, email: str, now: dt.datetime) -> None:
    if organization.memberships.filter(user__email=email).exists():
        raise Conflict(f"{email} is a member already.", "email")
    invitations = organization.invitations
    if invitations.filter(email=email, accepted_at=None, withdrawn_at=None, expires_at__gt=now).exists():
        raise Conflict(
            f"{email} is invited already. It can be sent again an hour after its last mail.",
            "email",
        )
    if invitations.filter(created_at__gt=now - dt.timedelta(days=1)).count() >= MOST_A_DAY:
        raise Conflict(f"{MOST_A_DAY} invitations a day are the most; go on tomorrow.")


def _refuse_ended(invitation: Invitation) -> None:
    if invitation.accepted_at is not None:
        raise Conflict("This invitation has been accepted already.")
    if invitation.withdrawn_at is not None:
        raise Conflict("This invitation has been withdrawn.")


def _sender(actor: Actor) -> dict[str, int | str | bool | None]:
    return {
        "invited_by_id": user_id(actor),
        "invited_by_label": actor.label[:EMAIL_LENGTH],
        "by_provider": is_trusted(actor),
    }


def _locked(invitation: Invitation) -> Invitation:
    """The row as it is now, ours until commit, with its organization."""
    organization = lock_organization(invitation.organization)
    found = organization.invitations.filter(pk=invitation.pk).first()
    if found is None:
        raise Conflict("This invitation ended long ago; send another.")
    found.organization = organization
    return found


def _note(act: str, actor: Actor, invitation: Invitation, now: dt.datetime, **data: str) -> None:
    audit.append(
        act,
        actor=actor,
        at=now,
        organization=invitation.organization,
        data={"member": invitation.email, "role": invitation.role} | data,
    )
