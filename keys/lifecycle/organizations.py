"""Organizations, and what staff define for them: scopes and policies."""

import datetime as dt
import re
from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import AbstractBaseUser
from django.db import IntegrityError, transaction

from keys import audit, brownouts
from keys import scopes as scope_names
from keys.audit import Actor
from keys.lifecycle import rules
from keys.lifecycle.actors import is_trusted, require, require_staff
from keys.lifecycle.locks import lock_organization
from keys.lifecycle.refusals import Conflict, Forbidden, Invalid
from keys.lifecycle.rules import UNSET, Choice
from keys.models import Membership, Note, Organization, Policy, Scope
from keys.permissions import Act, Role

STANDARD_POLICY = "standard"
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)

# What may be set on a policy, and the words for it.
_POLICY_DAYS = {
    "default_lifetime_days": "The default lifetime",
    "max_lifetime_days": "The longest lifetime",
    "idle_days": "The time without a call",
    "rotate_days": "The age of a secret",
}
_POLICY_SCOPES = ("scopes", "approval_scopes")
_POLICY_FLAGS = ("all_scopes", "expiry_required", "networks_required")


def clean_slug(value: str) -> str:
    if not isinstance(value, str) or len(value) > 50 or not _SLUG.fullmatch(value):
        raise Invalid(
            "A slug is lower-case letters, digits and single hyphens, at most 50 characters.", "slug"
        )
    return value


def standard_policy() -> Policy:
    """The policy of organizations that have been given no other."""
    policy, _ = Policy.objects.get_or_create(slug=STANDARD_POLICY, defaults={"name": "Standard"})
    return policy


def create_organization(
    actor: Actor,
    *,
    slug: str,
    name: str,
    owner: AbstractBaseUser | None = None,
    policy: Policy | None = None,
    now: dt.datetime,
) -> Organization:
    """A new customer, with its owner where one is given."""
    slug = clean_slug(slug)
    name = rules.clean_text(name, field="name", label="The name", maximum=100)
    try:
        with transaction.atomic():
            if Organization.objects.filter(slug=slug).exists():
                raise Conflict("An organization with this slug exists already.", "slug")
            organization = Organization.objects.create(
                slug=slug, name=name, policy=policy or standard_policy()
            )
            if owner is not None:
                Membership.objects.create(organization=organization, user_id=owner.pk, role=Role.OWNER.value)
            audit.append(
                "organization.created",
                actor=actor,
                at=now,
                organization=organization,
                data={
                    "name": name,
                    "slug": slug,
                    "policy": organization.policy.slug,
                    "owner": owner.get_username() if owner is not None else None,
                },
            )
    except IntegrityError:  # made twice at once
        raise Conflict("An organization with this slug exists already.", "slug") from None
    return organization


def edit_organization(
    actor: Actor,
    organization: Organization,
    *,
    now: dt.datetime,
    name: str | Choice = UNSET,
    external_customer: str | Choice = UNSET,
) -> Organization:
    """Change its name, or (staff) its id in the billing system."""
    require(actor, Act.EDIT_ORGANIZATION, organization)
    if external_customer is not UNSET and not is_trusted(actor):
        raise Forbidden("Only staff can change the billing id.")
    with transaction.atomic():
        organization = lock_organization(organization)
        changes: dict[str, list[str]] = {}
        for field, value, label in (
            ("name", name, "The name"),
            ("external_customer", external_customer, "The billing id"),
        ):
            if isinstance(value, Choice):
                continue
            cleaned = rules.clean_text(value, field=field, label=label, maximum=100, required=field == "name")
            if cleaned != getattr(organization, field):
                changes[field] = [getattr(organization, field), cleaned]
                setattr(organization, field, cleaned)
        if changes:
            organization.save(update_fields=list(changes))
            audit.append(
                "organization.edited",
                actor=actor,
                at=now,
                organization=organization,
                data={"changes": changes},
            )
    return organization


def suspend_organization(
    actor: Actor, organization: Organization, *, reason: str, now: dt.datetime
) -> Organization:
    """Refuse every key of an organization until it is resumed. Staff only."""
    return _suspend(actor, organization, "organization.suspended", now, reason, now)


def resume_organization(actor: Actor, organization: Organization, *, now: dt.datetime) -> Organization:
    """End a suspension. Staff only."""
    return _suspend(actor, organization, "organization.resumed", None, "", now)


def _suspend(
    actor: Actor,
    organization: Organization,
    act: str,
    suspended_at: dt.datetime | None,
    reason: str,
    now: dt.datetime,
) -> Organization:
    require_staff(actor)
    reason = rules.clean_text(reason, field="reason", label="The reason", maximum=200, required=False)
    with transaction.atomic():
        organization = lock_organization(organization)
        if organization.suspended != (suspended_at is not None):
            organization.suspended_at = suspended_at
            organization.suspended_reason = reason
            organization.save(update_fields=["suspended_at", "suspended_reason"])
            audit.append(act, actor=actor, at=now, organization=organization, data={"reason": reason})
    return organization


def apply_policy(
    actor: Actor, organization: Organization, policy: Policy, *, now: dt.datetime
) -> Organization:
    """Put an organization under another policy. Keys made under the old one stay as they are."""
    require_staff(actor)
    with transaction.atomic():
        organization = lock_organization(organization)
        if organization.policy_id != policy.pk:
            before = organization.policy.slug
            organization.policy = policy
            organization.save(update_fields=["policy"])
            audit.append(
                "organization.policy_changed",
                actor=actor,
                at=now,
                organization=organization,
                data={"policy": [before, policy.slug]},
            )
    return organization


# --- scopes and policies --------------------------------------------------------------------------


def create_scope(actor: Actor, *, name: str, description: str, now: dt.datetime) -> Scope:
    """Define something that keys may be allowed to do. Staff only."""
    require_staff(actor)
    if not isinstance(name, str) or not scope_names.is_name(name):
        raise Invalid("A scope is written resource:action in lower case, e.g. orders:read.", "name")
    if name.startswith(scope_names.PORTAL):
        raise Invalid("Scopes that begin with portal: are the portal's own.", "name")
    description = _clean_description(description)
    try:
        with transaction.atomic():
            scope = Scope.objects.create(name=name, description=description)
            audit.append(
                "scope.created", actor=actor, at=now, data={"name": name, "description": description}
            )
    except IntegrityError:
        raise Conflict("This scope exists already.", "name") from None
    return scope


def edit_scope(actor: Actor, scope: Scope, *, description: str, now: dt.datetime) -> Scope:
    """Change what people read about a scope; its name never changes. Staff only."""
    require_staff(actor)
    description = _clean_description(description)
    with transaction.atomic():
        scope = Scope.objects.select_for_update(no_key=True).get(pk=scope.pk)
        if scope.description != description:
            before, scope.description = scope.description, description
            scope.save(update_fields=["description"])
            audit.append(
                "scope.edited",
                actor=actor,
                at=now,
                data={"name": scope.name, "description": [before, description]},
            )
    return scope


def add_note(actor: Actor, organization: Organization, text: str, *, now: dt.datetime) -> Note:
    """Write something down about a customer, which it never sees: the event is not of its activity. Staff
    only."""
    require_staff(actor)
    text = rules.clean_text(text, field="text", label="The note", maximum=2000)
    with transaction.atomic():
        note = Note.objects.create(
            organization=organization, text=text, written_by=actor.label[:254], written_at=now
        )
        data = {"organization": organization.slug, "note": note.pk}
        audit.append("note.added", actor=actor, at=now, data=data)
    return note


def create_policy(actor: Actor, *, slug: str, name: str, now: dt.datetime, **fields: Any) -> Policy:
    """A new policy; `fields` as in `edit_policy`. Staff only."""
    require_staff(actor)
    slug = clean_slug(slug)
    chosen = {name: fields.pop(name) for name in _POLICY_SCOPES if fields.get(name) is not None}
    try:
        with transaction.atomic():
            policy = Policy(
                slug=slug, name=rules.clean_text(name, field="name", label="The name", maximum=100)
            )
            facts = _set_policy(policy, fields)
            policy.save(force_insert=True)
            for field, scopes in chosen.items():
                facts[field] = _set_policy_scopes(policy, field, scopes)
            audit.append(
                "policy.created", actor=actor, at=now, data={"policy": slug, "name": policy.name} | facts
            )
    except IntegrityError:
        raise Conflict("A policy with this slug exists already.", "slug") from None
    return policy


def edit_policy(
    actor: Actor,
    policy: Policy,
    *,
    now: dt.datetime,
    scopes: Iterable[Scope] | None = None,
    approval_scopes: Iterable[Scope] | None = None,
    **fields: Any,
) -> Policy:
    """Change a policy for all its organizations. `fields`: name, all_scopes, default_lifetime_days,
    max_lifetime_days, expiry_required, networks_required, idle_days, rotate_days, brownout_days, max_keys,
    rates, quotas. Staff only."""
    require_staff(actor)
    with transaction.atomic():
        policy = Policy.objects.select_for_update(no_key=True).get(pk=policy.pk)
        changes = _set_policy(policy, fields)
        if changes:
            policy.save(update_fields=list(changes))
        for field, chosen in (("scopes", scopes), ("approval_scopes", approval_scopes)):
            if chosen is not None:
                before = sorted(getattr(policy, field).values_list("name", flat=True))
                after = _set_policy_scopes(policy, field, chosen)
                if before != after:
                    changes[field] = [before, after]
        if changes:
            audit.append(
                "policy.edited", actor=actor, at=now, data={"policy": policy.slug, "changes": changes}
            )
    return policy


def _set_policy(policy: Policy, fields: dict[str, Any]) -> dict[str, Any]:
    """Set cleaned values; return {field: [before, after]} of those that changed."""
    cleaned: dict[str, Any] = {}
    for field, value in fields.items():
        if field == "name":
            cleaned[field] = rules.clean_text(value, field=field, label="The name", maximum=100)
        elif field in _POLICY_FLAGS:
            cleaned[field] = bool(value)
        elif field in _POLICY_DAYS:
            cleaned[field] = _clean_whole(value, field, _POLICY_DAYS[field], 1, 36_500)
        elif field == "brownout_days":
            cleaned[field] = _clean_whole(value, field, "The days with brownouts", 1, brownouts.MOST_DAYS)
        elif field == "max_keys":
            cleaned[field] = _clean_whole(value, field, "The number of keys", 0, 10_000_000)
        elif field == "rates":
            cleaned[field] = rules.clean_rates(value)
        elif field == "quotas":
            cleaned[field] = rules.clean_quotas(value)
        else:
            raise Invalid(f"A policy has no {field}.", field)
    changes = {
        field: [getattr(policy, field), value]
        for field, value in cleaned.items()
        if getattr(policy, field) != value
    }
    for field, value in cleaned.items():
        setattr(policy, field, value)
    longest, usual = policy.max_lifetime_days, policy.default_lifetime_days
    if longest is not None and usual is not None and usual > longest:
        raise Invalid("The default lifetime is longer than the longest.", "default_lifetime_days")
    return changes


def _set_policy_scopes(policy: Policy, field: str, scopes: Iterable[Scope]) -> list[str]:
    chosen = list(scopes)
    getattr(policy, field).set(chosen)
    return sorted(scope.name for scope in chosen)


def _clean_whole(value: Any, field: str, label: str, least: int, most: int) -> int | None:
    if value is None or value == "":
        return None
    if not isinstance(value, int) or not least <= value <= most:
        raise Invalid(f"{label} must be a whole number from {least} to {most}.", field)
    return value


def _clean_description(value: str) -> str:
    return rules.clean_text(value, field="description", label="The description", maximum=200, required=False)
