"""Trials: stricter limits that refuse nothing and are held against every accepted call from a moment on.

One function an act, one transaction, audited. A trial ends when somebody applies or discards it, or by
itself; what it comes to is `usage.shadow`'s to say, and who is told is `portal.trials`'.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.db import transaction

from keys import audit, lifecycle
from keys import quotas as quota_rules
from keys import rates as rate_rules
from keys.audit import Actor
from keys.lifecycle import Conflict, Invalid, rules
from keys.lifecycle.actors import require, require_staff, user_id
from keys.lifecycle.locks import lock_key, lock_organization
from keys.models import Key, Organization
from keys.permissions import Act
from usage import shadow
from usage.models import Outcome, Trial
from usage.shadow import Proposal, Shadow

DAYS: Final = (7, 14, 30)  # that a trial may run
MOST: Final = 20  # of an organization at once
KEEP: Final = dt.timedelta(days=180)  # after its end
PATIENCE: Final = dt.timedelta(days=1)  # with journals that are not counted up to a trial's end


def start(actor: Actor, key: Key, *, days: int, now: dt.datetime, **settings: Iterable[str]) -> Trial:
    """Try other settings of a key: its `scopes`, `networks`, `rates` and `quotas`, all of them. Raises
    Invalid as their edit would."""
    with transaction.atomic():
        organization = _begin(actor, key.organization, days)
        key = lock_key(key)
        if key.revoked_at is not None:
            raise Conflict("A revoked key refuses every call.")
        tried = shadow.propose(key, **{name: list(values) for name, values in settings.items()})
        before = _settings(key)
        after = {"scopes": sorted(tried.scopes), "networks": list(tried.networks), **_texts(tried)}
        if not set(tried.scopes).issubset(before["scopes"]):
            raise Invalid("A trial takes scopes away and gives none.", "scopes")
        return _start(actor, organization, key, before, after, days, now)


def start_for_all(
    actor: Actor,
    organization: Organization,
    *,
    rates: Iterable[str],
    quotas: Iterable[str],
    days: int,
    now: dt.datetime,
) -> Trial:
    """Try other limits that all keys of an organization share. Raises Invalid as an edit of its policy."""
    with transaction.atomic():
        organization = _begin(actor, organization, days)
        after = _texts(propose_for_all(rates, quotas))
        return _start(actor, organization, None, _limits(organization), after, days, now)


def propose_for_all(rates: Iterable[str], quotas: Iterable[str]) -> Proposal:
    """Limits of a whole organization, as an edit of its policy would take them. Raises Invalid."""
    return Proposal(
        rates=[rate_rules.parse(text) for text in rules.clean_rates(rates)],
        quotas=[quota_rules.parse(text) for text in rules.clean_quotas(quotas)],
    )


def judge(trial: Trial, since: dt.datetime) -> Shadow:
    """What a running trial's settings would have refused since a moment; in a fixed number of queries."""
    after = {name: values for name, (_, values) in trial.changes.items()}
    if trial.key is None:
        facts = shadow.facts_of_organization(trial.organization, since)
    else:
        facts = shadow.facts_of_key(trial.key, since)
    limits = propose_for_all(after.get("rates", ()), after.get("quotas", ()))
    # A setting that stays as it is refuses what it refused before.
    tried = limits._replace(scopes=after.get("scopes", facts.held), networks=after.get("networks", ()))
    return shadow.judge(tried, facts)


def apply(actor: Actor, trial: Trial, *, now: dt.datetime) -> Trial:
    """Make the tried settings those of the key; staff also those of an organization, if its policy is its
    own. Raises Conflict where they were changed meanwhile."""
    require(actor, Act.EDIT_KEY, trial.organization)
    with transaction.atomic():
        organization = lock_organization(trial.organization)
        trial = _running(trial)
        key = None if trial.key is None else lock_key(trial.key)
        current = _limits(organization) if key is None else _settings(key)
        if any(current[name] != before for name, (before, _) in trial.changes.items()):
            raise Conflict("These settings were changed since the trial began; discard it and start another.")
        after = {name: values for name, (_, values) in trial.changes.items()}
        result = shadow.sentences(judge(trial, trial.started_at))
        if key is None:
            _apply_to_all(actor, organization, after, now)
        else:
            lifecycle.edit_key(actor, key, now=now, **after)
        return _end(actor, trial, Outcome.APPLIED, "trial.applied", result, now)


def discard(actor: Actor, trial: Trial, *, now: dt.datetime) -> Trial:
    """End a trial and change nothing."""
    require(actor, Act.EDIT_KEY, trial.organization)
    with transaction.atomic():
        lock_organization(trial.organization)
        trial = _running(trial)
        result = shadow.sentences(judge(trial, trial.started_at))
        return _end(actor, trial, Outcome.DISCARDED, "trial.discarded", result, now)


def end_due(
    through: dt.datetime | None,
    now: dt.datetime,
    tell: Callable[[Trial], None],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """End the trials whose time is over, and in the same transaction `tell` of each; how many. One waits
    until everything up to its end is counted, which it is up to `through`, though not for ever."""
    known = min(now, max(through or now, now - PATIENCE))
    due = Trial.objects.running().filter(ends_at__lte=known).order_by("ends_at", "pk")
    ended = 0
    for trial in due.select_related("organization"):
        if stop():
            break
        with transaction.atomic():
            lock_organization(trial.organization)
            try:
                trial = _running(trial)
            except Conflict:  # another worker was here, or somebody who has decided
                continue
            result = shadow.sentences(judge(trial, trial.started_at))
            tell(_end(audit.SYSTEM, trial, Outcome.OVER, "trial.ended", result, now))
            ended += 1
    return ended


def forget(now: dt.datetime) -> None:
    """Delete trials that ended long ago; what was done stays in the history."""
    Trial.objects.filter(ended_at__lt=now - KEEP).delete()


def _begin(actor: Actor, organization: Organization, days: int) -> Organization:
    require(actor, Act.EDIT_KEY, organization)
    if days not in DAYS:
        raise Invalid(f"A trial runs for {', '.join(map(str, DAYS[:-1]))} or {DAYS[-1]} days.", "days")
    organization = lock_organization(organization)
    if organization.trials.running().count() >= MOST:
        raise Conflict(f"At most {MOST} trials run at once; end one first.")
    return organization


def _start(
    actor: Actor,
    organization: Organization,
    key: Key | None,
    before: dict[str, list[str]],
    after: dict[str, list[str]],
    days: int,
    now: dt.datetime,
) -> Trial:
    changes = {name: [before[name], values] for name, values in after.items() if values != before[name]}
    if not changes:
        raise Invalid("These are the settings as they are: change what you want to try.")
    if organization.trials.running().filter(key=key).exists():
        raise Conflict("A trial is running here already; end it first.")
    trial = Trial.objects.create(
        organization=organization,
        key=key,
        changes=changes,
        started_at=now,
        started_by_id=user_id(actor),
        started_label=actor.label[:254],
        ends_at=now + dt.timedelta(days=days),
    )
    ends = trial.ends_at.astimezone(dt.UTC).isoformat(timespec="seconds")
    _append("trial.started", actor, trial, {"changes": changes, "ends_at": ends}, now)
    return trial


def _running(trial: Trial) -> Trial:
    """The trial as it is now. Raises Conflict if it has ended; hold its organization."""
    found = Trial.objects.select_related("organization__policy", "key__organization").get(pk=trial.pk)
    if found.ended_at is not None:
        raise Conflict("This trial has ended already.")
    return found


def _end(
    actor: Actor, trial: Trial, outcome: Outcome, act: str, result: list[str], now: dt.datetime
) -> Trial:
    trial.ended_at, trial.outcome, trial.result = now, outcome, result
    trial.save(update_fields=["ended_at", "outcome", "result"])
    _append(act, actor, trial, {"refuses": result}, now)
    return trial


def _append(act: str, actor: Actor, trial: Trial, data: dict[str, Any], now: dt.datetime) -> None:
    audit.append(act, actor=actor, at=now, organization=trial.organization, key=trial.key, data=data)


def _apply_to_all(actor: Actor, organization: Organization, limits: dict[str, Any], now: dt.datetime) -> None:
    require_staff(actor)
    policy = organization.policy
    if policy.organizations.exclude(pk=organization.pk).exists() or policy.plans.exists():
        raise Conflict(
            f"The policy “{policy.name}” is not this organization's alone; give it one of its own first."
        )
    lifecycle.edit_policy(actor, policy, now=now, **limits)


def _settings(key: Key) -> dict[str, list[str]]:
    return {
        "scopes": sorted(key.scopes.values_list("name", flat=True)),
        "networks": key.networks,
        "rates": key.rates,
        "quotas": key.quotas,
    }


def _limits(organization: Organization) -> dict[str, list[str]]:
    return {"rates": organization.policy.rates, "quotas": organization.policy.quotas}


def _texts(tried: Proposal) -> dict[str, list[str]]:
    return {"rates": [each.text for each in tried.rates], "quotas": [each.text for each in tried.quotas]}
