"""Who is in an organization, and as what: adding, changing, removing, handing over.

Whoever makes or unmakes an owner must be one. An organization always keeps an owner who can sign in;
invitations are next door.
"""

import datetime as dt

from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, transaction

from keys import audit
from keys.audit import Actor
from keys.lifecycle.actors import require
from keys.lifecycle.locks import lock_organization
from keys.lifecycle.refusals import Conflict, Invalid
from keys.models import Membership, Organization
from keys.permissions import Act, Role


def add_member(
    actor: Actor, organization: Organization, user: AbstractBaseUser, role: str, *, now: dt.datetime
) -> Membership:
    """Give a person a role. Someone who is a member already is a Conflict."""
    require_role_change(actor, organization, role)
    try:
        with transaction.atomic():
            organization = lock_organization(organization)
            membership = Membership.objects.create(
                organization=organization, user_id=user.pk, role=Role(role).value
            )
            audit.append(
                "member.added",
                actor=actor,
                at=now,
                organization=organization,
                data={"member": user.get_username(), "role": membership.role},
            )
    except IntegrityError:
        raise Conflict("This person is a member already.", "user") from None
    return membership


def change_role(actor: Actor, membership: Membership, role: str, *, now: dt.datetime) -> Membership:
    """Change a member's role. The last owner stays an owner."""
    require_role_change(actor, membership.organization, role)
    with transaction.atomic():
        organization = lock_organization(membership.organization)
        found = organization.memberships.select_related("user").filter(pk=membership.pk).first()
        if found is None:
            raise Conflict("This person is no longer a member.")
        membership = found
        require_role_change(actor, organization, membership.role)
        if membership.role != role:
            _keep_an_owner(membership)
            before, membership.role = membership.role, Role(role).value
            membership.save(update_fields=["role"])
            audit.append(
                "member.role_changed",
                actor=actor,
                at=now,
                organization=organization,
                data={"member": membership.user.get_username(), "role": [before, membership.role]},
            )
    return membership


def remove_member(actor: Actor, membership: Membership, *, now: dt.datetime) -> None:
    """End a membership; anyone may leave. The keys they made stay. The last owner cannot go."""
    leaves = actor.kind == "user" and actor.id == membership.user_id
    if not leaves:
        require_role_change(actor, membership.organization)
    with transaction.atomic():
        organization = lock_organization(membership.organization)
        found = organization.memberships.select_related("user").filter(pk=membership.pk).first()
        if found is None:
            return
        if not leaves:
            require_role_change(actor, organization, found.role)
        _keep_an_owner(found)
        found.delete()
        audit.append(
            "member.removed",
            actor=actor,
            at=now,
            organization=organization,
            data={"member": found.user.get_username(), "role": found.role},
        )


def transfer_ownership(
    actor: Actor, organization: Organization, to: Membership, *, now: dt.datetime
) -> Membership:
    """Make another member the owner and the acting owner an admin, in one step. Returns the new owner's."""
    require(actor, Act.TRANSFER_OWNERSHIP, organization)
    with transaction.atomic():
        organization = lock_organization(organization)
        members = organization.memberships.select_related("user")
        before = members.filter(user_id=actor.id or 0, role=Role.OWNER.value).first()
        after = members.filter(pk=to.pk).first()
        if before is None or actor.kind != "user":
            raise Conflict("Only an owner can transfer ownership.")
        if after is None:
            raise Conflict("This person is no longer a member.", "to")
        if after.pk == before.pk:
            raise Invalid("Choose somebody else.", "to")
        if not after.user.is_active:
            raise Conflict("This person cannot sign in any more.", "to")
        before.role, after.role = Role.ADMIN.value, Role.OWNER.value
        for membership in (before, after):
            membership.save(update_fields=["role"])
        audit.append(
            "organization.transferred",
            actor=actor,
            at=now,
            organization=organization,
            data={
                "owner": [each.user.get_username() for each in (before, after)],
                "roles": {each.user.get_username(): each.role for each in (before, after)},
            },
        )
    return after


def require_role_change(actor: Actor, organization: Organization, *roles: str) -> None:
    """MANAGE_TEAM, and for making or unmaking an owner also TRANSFER_OWNERSHIP."""
    require(actor, Act.MANAGE_TEAM, organization)
    for role in roles:
        if role not in {member.value for member in Role}:
            raise Invalid("There is no such role.", "role")
        if role == Role.OWNER.value:
            require(actor, Act.TRANSFER_OWNERSHIP, organization)


def is_only_owner(membership: Membership) -> bool:
    """Would the organization be left without an owner who can sign in?"""
    if membership.role != Role.OWNER.value:
        return False
    owners = membership.organization.memberships.filter(role=Role.OWNER.value, user__is_active=True)
    return not owners.exclude(pk=membership.pk).exists()


def _keep_an_owner(leaving: Membership) -> None:
    if is_only_owner(leaving):
        raise Conflict("An organization needs an owner; make someone else one first.")
