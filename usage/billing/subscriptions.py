"""Who is on which plan, from which hour to which. One function an act, one transaction, audited; staff only.

Subscriptions of an organization never overlap, and nothing before the earliest open period changes: this
module alone writes them. It prices nothing.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q, QuerySet

from keys import audit, lifecycle
from keys.audit import SYSTEM, Actor
from keys.lifecycle import Conflict, Invalid
from keys.lifecycle.actors import require_staff
from keys.lifecycle.locks import lock_organization
from keys.models import Organization
from usage import counting
from usage.billing import periods, terms
from usage.billing.periods import Period
from usage.models import PlanVersion, Subscription

_HOUR: Final = dt.timedelta(hours=1)
_LATEST: Final = dt.timedelta(days=3660)


def next_hour(now: dt.datetime) -> dt.datetime:
    """The first full UTC hour that has not begun."""
    return _this_hour(now) + _HOUR


def in_force(organization: Organization, at: dt.datetime) -> Subscription | None:
    """The organization's subscription in the hour of this moment."""
    rows = _of(organization).filter(start__lte=at).filter(Q(end=None) | Q(end__gt=at))
    return rows.select_related("version__plan__policy").first()


def now_and_next(
    organization: Organization, now: dt.datetime
) -> tuple[Subscription | None, Subscription | None]:
    """The subscription in force, and the one that begins next."""
    return among(terms.since(organization, now), now)


def among(
    subscriptions: Sequence[Subscription], now: dt.datetime
) -> tuple[Subscription | None, Subscription | None]:
    """The same of what `terms.since` has read."""
    begun = [each for each in subscriptions if each.start <= now]
    current = next((each for each in begun if each.end is None or each.end > now), None)
    return current, next((each for each in subscriptions if each.start > now), None)


def subscribe(
    actor: Actor,
    organization: Organization,
    version: PlanVersion,
    *,
    at: dt.datetime | None = None,
    seen: int | None = None,
    now: dt.datetime,
) -> Subscription:
    """Put an organization on a published version from an hour on (the next full one), ending what it has
    been on. The plan's policy is applied at once where that is the next hour or earlier, and by
    `apply_due` in its hour where it is later. What was planned for later is a Conflict: cancel it first.

    `seen` is what the decision was taken upon: the primary key of what it has been on, 0 for nothing; another
    is a Conflict."""
    require_staff(actor)
    with transaction.atomic():
        subscription, before = change(organization, version, at=at, now=now)
        if seen is not None and seen != (before.pk if before else 0):
            raise Conflict("The organization's plan has been changed meanwhile; look at it again.", "version")
        if subscription.start <= next_hour(now):
            _apply_policy(actor, subscription, now)
        audit.append(
            "subscription.started",
            actor=actor,
            at=now,
            organization=subscription.organization,
            data={
                "plan": version.plan.slug,
                "version": version.number,
                "start": subscription.start.astimezone(dt.UTC).isoformat(),
                "before": None
                if before is None
                else [before.version.plan.slug, before.version.number, before.pk],
            },
        )
    return subscription


def change(
    organization: Organization,
    version: PlanVersion,
    *,
    at: dt.datetime | None = None,
    now: dt.datetime,
) -> tuple[Subscription, Subscription | None]:
    """What `subscribe` does to subscriptions alone: the new one, and what it ends. For `subscribe`, and for a
    preview that rolls it back."""
    at = next_hour(now) if at is None else at
    with transaction.atomic():
        organization = lock_organization(organization)
        _require_open_hour(at, now)
        version = PlanVersion.objects.select_related("plan__policy").get(pk=version.pk)
        if version.published_at is None:
            raise Conflict("This version is a draft; publish it first.", "version")
        if version.plan.archived_at is not None:
            raise Conflict("This plan is archived; nobody new subscribes to it.", "version")
        if _of(organization).filter(start__gt=at).exists():
            raise Conflict("There is a later subscription already; cancel it first.", "at")
        before = in_force(organization, at)
        if before is not None:
            _end(before, at)
        _require_currency(organization, version.currency, Period.of(at))
        subscription = Subscription.objects.create(
            organization=organization, version=version, start=at, created_at=now
        )
    return subscription, before


def cancel(
    actor: Actor, subscription: Subscription, *, at: dt.datetime | None = None, now: dt.datetime
) -> Subscription:
    """End a subscription at an hour (the next full one); one that has not begun by then never was. The
    organization's policy stays as it is."""
    require_staff(actor)
    with transaction.atomic():
        subscription = ended(subscription, at=at, now=now)
        end = subscription.end or now
        audit.append(
            "subscription.ended",
            actor=actor,
            at=now,
            organization=subscription.organization,
            data={
                "plan": subscription.version.plan.slug,
                "version": subscription.version.number,
                "end": end.astimezone(dt.UTC).isoformat(),
            },
        )
    return subscription


def ended(subscription: Subscription, *, at: dt.datetime | None = None, now: dt.datetime) -> Subscription:
    """What `cancel` does to subscriptions alone. For `cancel`, and for a preview that rolls it back."""
    at = next_hour(now) if at is None else at
    with transaction.atomic():
        organization = lock_organization(subscription.organization)
        rows = Subscription.objects.filter(organization=organization).select_related("organization")
        subscription = rows.select_related("version__plan").get(pk=subscription.pk)
        at = max(at, subscription.start)
        if subscription.end is not None and subscription.end <= at:
            raise Conflict("This subscription has an earlier end already.", "at")
        _require_open_hour(at, now)
        _end(subscription, at)
    return subscription


def apply_due(now: dt.datetime) -> int:
    """Apply the policies of plans whose subscriptions have begun since they were made; how many."""
    due = Subscription.objects.filter(policy_applied_at=None, start__lte=now)
    due = due.filter(Q(end=None) | Q(end__gt=now)).select_related("organization")
    applied = 0
    for found in due.order_by("organization_id", "start"):
        with transaction.atomic():
            organization = lock_organization(found.organization)
            rows = _of(organization).filter(pk=found.pk, policy_applied_at=None)
            subscription = (
                rows.filter(Q(end=None) | Q(end__gt=now))
                .select_related("organization", "version__plan__policy")
                .first()
            )
            if subscription is not None:
                _apply_policy(SYSTEM, subscription, now)
                applied += 1
    return applied


def _of(organization: Organization) -> QuerySet[Subscription]:
    """Those of the organization that run for an hour at least."""
    return Subscription.objects.filter(organization=organization).filter(Q(end=None) | Q(end__gt=F("start")))


def _end(subscription: Subscription, at: dt.datetime) -> None:
    subscription.end = at
    subscription.save(update_fields=["end"])


def _apply_policy(actor: Actor, subscription: Subscription, now: dt.datetime) -> None:
    policy = subscription.version.plan.policy
    lifecycle.apply_policy(actor, subscription.organization, policy, now=now)
    subscription.policy_applied_at = now
    subscription.save(update_fields=["policy_applied_at"])


def _require_open_hour(at: dt.datetime, now: dt.datetime) -> None:
    if not isinstance(at, dt.datetime) or at.tzinfo is None or at != _this_hour(at):
        raise Invalid("A subscription begins and ends at a full hour in UTC.", "at")
    counting.share()  # no month is cut before this is written, or it is seen here
    first = periods.earliest_open()
    if at < first.start:
        raise Conflict(f"What was before {first.start:%-d %B %Y} is billed and closed.", "at")
    if at > now + _LATEST:
        raise Invalid("That is too far away.", "at")
    days = settings.USAGE_DETAIL_DAYS
    if days and at.astimezone(dt.UTC).hour and at < now - dt.timedelta(days=days):
        raise Invalid("So long ago usage is kept by the day; choose midnight in UTC.", "at")


def _require_currency(organization: Organization, currency: str, period: Period) -> None:
    rows = _of(organization).filter(start__lt=period.end).filter(Q(end=None) | Q(end__gt=period.start))
    others = rows.exclude(version__currency=currency).values_list("version__currency", flat=True)
    if other := others.first():
        raise Conflict(
            f"{period} is billed in {other}; another currency can begin with another month.", "version"
        )


def _this_hour(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
