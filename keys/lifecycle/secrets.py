"""Keys and their secrets: create, import, rotate, revoke, disable, enable, edit.

Locks are taken in one order (organization, key, feed), so that acts at once wait and never deadlock.
Plaintext leaves this module only inside `Issued`.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from keys import audit, tokens
from keys.audit import Actor
from keys.lifecycle import grants, rules
from keys.lifecycle.actors import require, user_id
from keys.lifecycle.locks import lock_key, lock_organization
from keys.lifecycle.refusals import Conflict, Invalid
from keys.lifecycle.rules import DEFAULT, UNSET, Choice, Expiry
from keys.models import Key, KeyState, Organization, Secret
from keys.permissions import Act

MAX_OVERLAP = dt.timedelta(days=90)
# Who does not say which secret is to be replaced cannot mean one that is as young as this.
JUST_ROTATED = dt.timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with a new secret. `plaintext` is shown once, by the answer to the request that made it."""

    key: Key
    secret: Secret
    plaintext: str = field(repr=False)


def _iso(moment: dt.datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(dt.UTC).isoformat(timespec="seconds")


def _make_key(
    actor: Actor,
    organization: Organization,
    *,
    name: str,
    environment: str,
    scopes: Iterable[str],
    expires_at: Expiry,
    networks: Iterable[str],
    rates: Iterable[str],
    quotas: Iterable[str],
    metadata: Mapping[str, str] | None,
    now: dt.datetime,
) -> tuple[Key, dict[str, Any]]:
    """The row of a new key, within the organization's policy, and what its event says of it."""
    require(actor, Act.CREATE_KEY, organization)
    organization = lock_organization(organization)
    if organization.suspended:
        raise Conflict("This organization is suspended; it can make no keys.")
    limit = organization.policy.max_keys
    if limit is not None and organization.keys.filter(revoked_at=None).count() >= limit:
        raise Conflict(f"This organization has its {limit} keys; revoke one first.")
    environment = rules.clean_environment(environment)
    granted = rules.clean_scopes(organization, scopes, actor)
    grantor = grants.grantor(actor, now)
    key = Key(
        organization=organization,
        name=rules.clean_text(name, field="name", label="The name", maximum=100),
        environment=environment,
        networks=rules.clean_networks(organization, environment, networks),
        rates=rules.clean_rates(rates),
        quotas=rules.clean_quotas(quotas),
        metadata=rules.clean_metadata(metadata),
        expires_at=rules.clean_expiry(organization, expires_at, now),
        created_at=now,
        created_by_id=user_id(actor),
    )
    if grantor is not None:
        grantor.grant(environment, [scope.name for scope in granted], key.networks)
    key.save(force_insert=True)
    key.scopes.set(granted)
    return key, {
        "name": key.name,
        "environment": key.environment,
        "scopes": [scope.name for scope in granted],
        "networks": key.networks,
        "rates": key.rates,
        "quotas": key.quotas,
        "expires_at": _iso(key.expires_at),
    }


def add_secret(actor: Actor, key: Key, now: dt.datetime) -> Issued:
    """A new secret of a key, inside the act's transaction."""
    minted = tokens.mint(settings.KEY_PREFIX, key.environment)
    secret = Secret(
        key=key,
        digest=minted.digest,
        prefix=minted.prefix,
        hint=minted.hint,
        created_at=now,
        created_by_id=user_id(actor),
    )
    secret.save(force_insert=True)
    return Issued(key, secret, minted.plaintext)


def create_key(
    actor: Actor,
    organization: Organization,
    *,
    name: str,
    environment: str = "live",
    scopes: Iterable[str] = (),
    expires_at: Expiry = DEFAULT,
    networks: Iterable[str] = (),
    rates: Iterable[str] = (),
    quotas: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
    now: dt.datetime,
) -> Issued:
    """A new key with its first secret. Raises Invalid, Conflict or Forbidden."""
    with transaction.atomic():
        key, facts = _make_key(
            actor,
            organization,
            name=name,
            environment=environment,
            scopes=scopes,
            expires_at=expires_at,
            networks=networks,
            rates=rates,
            quotas=quotas,
            metadata=metadata,
            now=now,
        )
        issued = add_secret(actor, key, now)
        audit.append_of(key, "key.created", actor, now, facts | {"secret": issued.secret.display})
    return issued


def import_key(
    actor: Actor,
    organization: Organization,
    *,
    name: str,
    sha256: str,
    hint: str = "",
    environment: str = "live",
    scopes: Iterable[str] = (),
    expires_at: Expiry = DEFAULT,
    networks: Iterable[str] = (),
    rates: Iterable[str] = (),
    quotas: Iterable[str] = (),
    metadata: Mapping[str, str] | None = None,
    now: dt.datetime,
) -> Key:
    """A key that exists elsewhere, by the hex SHA-256 of the whole of it; it goes on working here."""
    try:
        digest = bytes.fromhex(sha256) if len(sha256) == 64 and sha256.isalnum() else b""
    except ValueError:
        digest = b""
    if not digest:
        raise Invalid("The digest must be a SHA-256 in 64 hexadecimal digits.", "sha256")
    if digest in (tokens.digest(""), tokens.digest("\n")):
        raise Invalid("This is the SHA-256 of nothing: where it was made there was no key.", "sha256")
    hint = rules.clean_text(hint, field="hint", label="The hint", maximum=4, required=False)
    try:
        with transaction.atomic():
            key, facts = _make_key(
                actor,
                organization,
                name=name,
                environment=environment,
                scopes=scopes,
                expires_at=expires_at,
                networks=networks,
                rates=rates,
                quotas=quotas,
                metadata=metadata,
                now=now,
            )
            if Secret.objects.filter(digest=digest).exists():
                raise Conflict("A key with this digest is here already.", "sha256")
            Secret.objects.create(
                key=key,
                digest=digest,
                hint=hint,
                imported=True,
                created_at=now,
                created_by_id=user_id(actor),
            )
            audit.append(
                "key.imported", actor=actor, at=now, organization=key.organization, key=key, data=facts
            )
    except IntegrityError:  # imported twice at once
        raise Conflict("A key with this digest is here already.", "sha256") from None
    return key


def rotate_key(
    actor: Actor,
    key: Key,
    *,
    overlap: dt.timedelta,
    current: Secret | None = None,
    expires_at: Expiry = UNSET,
    now: dt.datetime,
) -> Issued:
    """A new secret for the same key; the old one works for `overlap` more.

    `current` is the secret that the caller means to replace. If it has been replaced meanwhile, or an
    earlier overlap still runs, the act is a Conflict: many rotations at once make one successor. Without
    `current`, so is a rotation a few seconds after one that left no overlap. With no overlap at all ("it
    leaked") every older secret stops now, a running overlap's too. `expires_at` renews the key's expiry in
    the same act; by default it stays as it is, or becomes what a policy that came later lets.
    """
    require(actor, Act.ROTATE_KEY, key.organization)
    if not dt.timedelta(0) <= overlap <= MAX_OVERLAP:
        raise Invalid(f"The overlap is between 0 and {MAX_OVERLAP.days} days.", "overlap")
    named = current is not None
    if current is None:
        current = key.secrets.filter(stops_at=None).first()
    with transaction.atomic():
        key = lock_key(key)
        grantor = grants.grantor(actor, now)
        if grantor is not None and grantor.key.pk != key.pk:  # its holder gets what the key has
            grantor.grant_key(key)
        if expires_at is UNSET:
            key.expires_at = rules.kept_expiry(key, now)
        else:
            key.expires_at = rules.clean_expiry(key.organization, expires_at, now)
        _refuse_unless_usable(key, now)
        older = list(key.secrets.filter(stops_at=None) | key.secrets.filter(stops_at__gt=now))
        replaced = next((secret for secret in older if secret.stops_at is None), None)
        if replaced is None or current is None or replaced.pk != current.pk:
            raise Conflict("This secret has already been replaced; reload the key's page.")
        just_made = len(older) == 1 and replaced.created_at > now - JUST_ROTATED
        if not named and just_made and key.secrets.exclude(pk=replaced.pk).exists():
            raise Conflict("This key was rotated a moment ago; to rotate it again, wait ten seconds.")
        if overlap and len(older) > 1:
            raise Conflict("The last rotation's old secret still works; end its overlap first.")
        stops_at = now + overlap
        if key.expires_at is not None:
            stops_at = min(stops_at, key.expires_at)
        Secret.objects.filter(pk__in=[secret.pk for secret in older]).update(stops_at=stops_at)
        issued = add_secret(actor, key, now)
        key.save(update_fields=["expires_at"])
        audit.append_of(
            key,
            "key.rotated",
            actor,
            now,
            {
                "secret": issued.secret.display,
                "replaced": replaced.display,
                "stops_at": _iso(stops_at),
                "expires_at": _iso(key.expires_at),
            },
        )
    return issued


def end_overlap(actor: Actor, key: Key, *, seen: int | None = None, now: dt.datetime) -> Key:
    """Stop the replaced secrets of a key now. Nothing to stop: nothing is written.

    `seen` here and below is the number of the secret that the caller took for the current one: with another
    one the overlap is another, and the act a Conflict.
    """
    require(actor, Act.ROTATE_KEY, key.organization)
    with transaction.atomic():
        key = lock_key(key)
        _refuse_unless_current(key, seen)
        ended = list(key.secrets.filter(stops_at__gt=now))
        if ended:
            key.secrets.filter(stops_at__gt=now).update(stops_at=now)
            shown = {"secrets": [secret.display for secret in ended]}
            audit.append_of(key, "key.overlap_ended", actor, now, shown)
    return key


def extend_overlap(
    actor: Actor, key: Key, *, overlap: dt.timedelta, seen: int | None = None, now: dt.datetime
) -> Key:
    """Let the replaced secret work for `overlap` from now on, at most until the key expires.

    Raises Conflict if none is working any more, Invalid if it would stop no later than it does anyway.
    """
    require(actor, Act.ROTATE_KEY, key.organization)
    if not dt.timedelta(0) < overlap <= MAX_OVERLAP:
        raise Invalid(f"The overlap is at most {MAX_OVERLAP.days} days.", "overlap")
    with transaction.atomic():
        key = lock_key(key)
        _refuse_unless_usable(key, now)
        _refuse_unless_current(key, seen)
        running = _running_overlap(key, now)
        stops_at = now + overlap if key.expires_at is None else min(now + overlap, key.expires_at)
        if stops_at <= max(secret.stops_at or now for secret in running):
            raise Invalid("The old secret works until then already.", "overlap")
        key.secrets.filter(stops_at__gt=now).update(stops_at=stops_at)
        shown = {"secrets": [secret.display for secret in running], "stops_at": _iso(stops_at)}
        audit.append_of(key, "key.overlap_extended", actor, now, shown)
    return key


def roll_back_rotation(actor: Actor, key: Key, *, seen: int | None = None, now: dt.datetime) -> Key:
    """Undo a rotation while its overlap runs: the old secret is the key's current one again, and the new one
    stops now. What else the rotation changed, as the key's expiry, stays. Without an overlap: Conflict."""
    require(actor, Act.ROTATE_KEY, key.organization)
    with transaction.atomic():
        key = lock_key(key)
        _refuse_unless_usable(key, now)
        _refuse_unless_current(key, seen)
        old = _running_overlap(key, now)[0]
        new = key.secrets.get(stops_at=None)
        # In this order: a key has one current secret.
        key.secrets.filter(pk=new.pk).update(stops_at=now)
        key.secrets.filter(pk=old.pk).update(stops_at=None)
        audit.append_of(key, "key.rolled_back", actor, now, {"secret": old.display, "ended": new.display})
    return key


def _refuse_unless_current(key: Key, seen: int | None) -> None:
    if seen is not None and not key.secrets.filter(pk=seen, stops_at=None).exists():
        raise Conflict("This key was rotated again meanwhile, or rolled back; look at its secrets first.")


def _running_overlap(key: Key, now: dt.datetime) -> list[Secret]:
    """The secrets that rotation has replaced and that still work, the newest first; there is at least one."""
    running = list(key.secrets.filter(stops_at__gt=now).select_related("key"))
    if not running:
        raise Conflict("No old secret of this key is working any more.")
    return running


def revoke_key(actor: Actor, key: Key, *, reason: str = "", now: dt.datetime) -> Key:
    """End a key and all its secrets for good. A revoked key stays as it is, first reason and all."""
    require(actor, Act.REVOKE_KEY, key.organization)
    reason = rules.clean_text(reason, field="reason", label="The reason", maximum=200, required=False)
    with transaction.atomic():
        key = lock_key(key)
        grantor = grants.grantor(actor, now)
        if grantor is not None:
            grantor.reach(key.environment)
        if key.revoked_at is None:
            key.revoked_at = now
            key.revoked_reason = reason
            key.save(update_fields=["revoked_at", "revoked_reason"])
            audit.append_of(key, "key.revoked", actor, now, {"reason": reason})
    return key


def disable_key(actor: Actor, key: Key, *, now: dt.datetime) -> Key:
    """Refuse a key until it is enabled again."""
    return _switch(actor, key, "key.disabled", now, now)


def enable_key(actor: Actor, key: Key, *, now: dt.datetime) -> Key:
    """Let a disabled key call again, if it is within its policy; a retired one's days count anew."""
    return _switch(actor, key, "key.enabled", None, now)


def _switch(actor: Actor, key: Key, act: str, disabled_at: dt.datetime | None, now: dt.datetime) -> Key:
    require(actor, Act.EDIT_KEY, key.organization)
    with transaction.atomic():
        key = lock_key(key)
        _refuse_if_revoked(key)
        grantor = grants.grantor(actor, now)
        if grantor is not None and disabled_at is None:
            grantor.grant_key(key)
        elif grantor is not None:
            grantor.reach(key.environment)
        if (key.disabled_at is None) != (disabled_at is None):
            if disabled_at is None:
                rules.require_compliance(key, now)
            key.disabled_at = disabled_at
            key.retires_at = None
            key.save(update_fields=["disabled_at", "retires_at"])
            audit.append_of(key, act, actor, now)
    return key


def edit_key(
    actor: Actor,
    key: Key,
    *,
    now: dt.datetime,
    name: str | Choice = UNSET,
    scopes: Iterable[str] | Choice = UNSET,
    networks: Iterable[str] | Choice = UNSET,
    expires_at: Expiry = UNSET,
    rates: Iterable[str] | Choice = UNSET,
    quotas: Iterable[str] | Choice = UNSET,
    metadata: Mapping[str, str] | Choice | None = UNSET,
    labels: Mapping[str, str | None] | None = None,
) -> Key:
    """Change what is given and leave the rest; the event says each field's old and new value. `labels` are
    entries of the metadata that are set, or with None removed, while its others stay."""
    require(actor, Act.EDIT_KEY, key.organization)
    with transaction.atomic():
        key = lock_key(key)
        _refuse_if_revoked(key)
        grantor = grants.grantor(actor, now)
        changes: dict[str, list[Any]] = {}

        def change(field_name: str, value: Any, show: Any = lambda shown: shown) -> None:
            before = getattr(key, field_name)
            if value != before:
                changes[field_name] = [show(before), show(value)]
                setattr(key, field_name, value)

        if not isinstance(name, Choice):
            change("name", rules.clean_text(name, field="name", label="The name", maximum=100))
        # What stays as it is was allowed when it was chosen; a policy that came later does not undo it.
        if not isinstance(networks, Choice) and list(networks) != key.networks:
            change("networks", rules.clean_networks(key.organization, key.environment, networks))
        if not isinstance(rates, Choice):
            change("rates", rules.clean_rates(rates))
        if not isinstance(quotas, Choice) and list(quotas) != key.quotas:
            change("quotas", rules.clean_quotas(quotas))
        if not isinstance(metadata, Choice):
            change("metadata", rules.clean_metadata(metadata))
        if labels is not None:
            merged = key.metadata | labels
            kept = {label: text for label, text in merged.items() if text is not None}
            change("metadata", rules.clean_metadata(kept))
        if expires_at is not UNSET and expires_at != key.expires_at:
            change("expires_at", rules.clean_expiry(key.organization, expires_at, now), _iso)
        if changes:
            key.save(update_fields=list(changes))
        if not isinstance(scopes, Choice):
            held = sorted(key.scopes.values_list("name", flat=True))
            granted = rules.clean_scopes(key.organization, scopes, actor, held)
            wanted = [scope.name for scope in granted]
            if wanted != held:
                key.scopes.set(granted)
                changes["scopes"] = [held, wanted]
        if changes and grantor is not None:
            grantor.grant_key(key)
        if changes:
            audit.append_of(key, "key.edited", actor, now, {"changes": changes})
    return key


def _refuse_if_revoked(key: Key) -> None:
    if key.revoked_at is not None:
        raise Conflict("This key has been revoked; make a new one.")


def _refuse_unless_usable(key: Key, now: dt.datetime) -> None:
    _refuse_if_revoked(key)
    if key.organization.suspended:
        raise Conflict("This organization is suspended.")
    if key.state_at(now) == KeyState.EXPIRED:
        raise Conflict("This key has expired; give it a new expiry first.")
