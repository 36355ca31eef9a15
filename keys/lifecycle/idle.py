"""Retirement of keys that nobody uses: announced on the key first, then disabled, by the system.

When a key was last used is known to others, who pass it in. The last day is never nearer than the notice,
however old the key is or however short its policy was made; a use in between takes the announcement back.
"""

import datetime as dt
from collections.abc import Callable, Collection, Mapping
from itertools import batched

from django.db import transaction
from django.db.models import Max, Q, QuerySet

from keys import audit
from keys.lifecycle.locks import lock_key
from keys.models import Key, Organization

LONGEST_NOTICE = dt.timedelta(days=14)
BATCH = 500  # keys of which the last use is asked at once

type LastUsed = Callable[[Organization, Collection[int]], Mapping[int, dt.datetime]]


def notice_before(idle_days: int) -> dt.timedelta:
    """How long before its retirement a key's is announced: two weeks, of short policies half their days."""
    return min(LONGEST_NOTICE, dt.timedelta(days=idle_days) / 2)


def retire_idle(last_used: LastUsed, *, through: dt.datetime, now: dt.datetime) -> int:
    """Announce, take back or carry out what is due; returns how many keys changed.

    `last_used(organization, key ids)` says when each was last used, leaving out the never used, and is
    complete up to `through`: what is later nobody knows yet, so nothing is held against a key for it.
    """
    changed = 0
    announced = Key.objects.retiring().order_by().values("organization")
    watched = Organization.objects.filter(suspended_at=None)
    watched = watched.filter(Q(policy__idle_days__isnull=False) | Q(pk__in=announced))
    for organization in watched.select_related("policy").order_by("pk").iterator():
        for ids in batched(_candidates(organization, now), BATCH):
            used = last_used(organization, ids)
            changed += sum(_judge(pk, used.get(pk), min(through, now), now) for pk in ids)
    return changed


def _candidates(organization: Organization, now: dt.datetime) -> QuerySet[Key, int]:
    """The ids of its keys that work and are old enough for an announcement, or have one."""
    keys = organization.keys.filter(disabled_at=None, revoked_at=None)
    keys = keys.filter(Q(expires_at=None) | Q(expires_at__gt=now))
    wanted = Q(retires_at__isnull=False)
    days = organization.policy.idle_days
    if days is not None:
        wanted |= Q(created_at__lte=now - dt.timedelta(days=days) + notice_before(days))
    return keys.filter(wanted).order_by("pk").values_list("pk", flat=True)


def _judge(pk: int, last_used: dt.datetime | None, through: dt.datetime, now: dt.datetime) -> bool:
    """One key's turn, as its row is now: another worker may have been here."""
    with transaction.atomic():
        key = lock_key(Key(pk=pk))
        if key.disabled_at is not None or key.revoked_at is not None:
            return False
        days = key.organization.policy.idle_days
        if days is None:
            return _set(key, "key.retirement_withdrawn", None, now) if key.retires_at else False
        newest = key.secrets.aggregate(newest=Max("created_at"))["newest"]
        idle_from = max(moment for moment in (key.created_at, newest, last_used) if moment is not None)
        notice = notice_before(days)
        retires_at = idle_from + dt.timedelta(days=days)
        is_due = retires_at - notice <= through
        if key.retires_at is None:
            announced = max(retires_at, now + notice)
            return _set(key, "key.retirement_announced", announced, now) if is_due else False
        if not is_due:
            return _set(key, "key.retirement_withdrawn", None, now)
        if max(key.retires_at, retires_at) > through:
            return False
        key.disabled_at = now
        return _set(key, "key.retired", key.retires_at, now)


def _set(key: Key, act: str, retires_at: dt.datetime | None, now: dt.datetime) -> bool:
    key.retires_at = retires_at
    key.save(update_fields=["retires_at", "disabled_at"])
    said = None if retires_at is None else retires_at.astimezone(dt.UTC).isoformat(timespec="seconds")
    days = key.organization.policy.idle_days
    audit.append_of(key, act, audit.SYSTEM, now, {"retires_at": said, "idle_days": days})
    return True
