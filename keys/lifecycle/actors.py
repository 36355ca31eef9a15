"""Who acts, and whether they may."""

from django.contrib.auth.models import AbstractBaseUser

from keys.audit import Actor
from keys.lifecycle.refusals import Forbidden
from keys.models import Key, Membership, Organization
from keys.permissions import Act, Role, allows

# What a key may do in its own organization; `grants` says how far.
_KEY_ACTS = frozenset({Act.CREATE_KEY, Act.EDIT_KEY, Act.ROTATE_KEY, Act.REVOKE_KEY})
# Outside every organization: held to policy, not to a role.
_TRUSTED = frozenset({"staff", "command", "system"})


def member_actor(user: AbstractBaseUser, membership: Membership) -> Actor:
    """A person acting in one organization, with the role they have there."""
    return Actor("user", user.get_username(), user.pk, membership.organization_id, Role(membership.role))


def staff_actor(user: AbstractBaseUser) -> Actor:
    """The provider's staff, through the admin."""
    return Actor("staff", user.get_username(), user.pk)


def visitor_actor(user: AbstractBaseUser) -> Actor:
    """One of the staff who only looks: of no organization and no role, so that every act refuses them."""
    return Actor("visitor", user.get_username(), user.pk)


def command_actor() -> Actor:
    """Someone with a shell on the server."""
    return Actor("command", "manage.py")


def key_actor(key: Key) -> Actor:
    """A key acting on its organization's keys, itself included."""
    return Actor("key", str(key), key.pk, key.organization_id)


def is_trusted(actor: Actor) -> bool:
    return actor.kind in _TRUSTED


def user_id(actor: Actor) -> int | None:
    """The acting person's id, where a person acts."""
    return actor.id if actor.kind in ("user", "staff") else None


def require(actor: Actor, act: Act, organization: Organization) -> None:
    """Raise Forbidden unless the actor may perform `act` in `organization`."""
    if is_trusted(actor):
        return
    if actor.kind == "key" and actor.organization_id == organization.pk and act in _KEY_ACTS:
        return
    if actor.organization_id != organization.pk or actor.role is None or not allows(actor.role, act):
        raise Forbidden("Your role in this organization does not allow this.")


def require_staff(actor: Actor) -> None:
    """Raise Forbidden for members of organizations."""
    if not is_trusted(actor):
        raise Forbidden("Only the provider's staff can do this.")
