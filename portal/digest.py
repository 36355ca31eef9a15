"""The weekly digest: what is amiss with an organization's keys, to its owners and admins.

It goes out once a week and only where something was raised in it that no digest has told of, so that nobody
learns to delete it unread. It queues mails and nothing else; what is amiss is `usage.watch`'s to say.
"""

import datetime as dt
from collections.abc import Container
from typing import Final

from django.conf import settings
from django.db import transaction
from django.urls import reverse

from keys.models import Organization
from keys.permissions import Role
from portal import outbox
from portal.models import Mail
from usage import watch
from usage.models import Signal

WEEK: Final = dt.timedelta(days=7)
HOUR: Final = 7  # UTC, of a Monday; later in the week if no worker ran then
LINES: Final = 10
_ONCE: Final = "digest:"
ROLES: Final = (Role.OWNER, Role.ADMIN)


def send_due(now: dt.datetime) -> None:
    """Queue this week's digests that are not queued yet; by several workers at once each goes once."""
    week = now.astimezone(dt.UTC)
    if week.weekday() == 0 and week.hour < HOUR:
        return
    prefix = f"{_ONCE}{week:%G-W%V}:"
    lately = Mail.objects.filter(once__startswith=_ONCE, queued_at__gt=now - WEEK)
    told = {tuple(fact) for about in lately.values_list("about", flat=True) for fact in about}
    new = Signal.objects.shown(now).filter(raised_at__gt=now - WEEK, organization__suspended_at=None)
    due = {signal.organization_id for signal in new.iterator() if _fact(signal) not in told}
    queued = Mail.objects.filter(once__startswith=prefix).values_list("once", flat=True)
    due -= {int(once.removeprefix(prefix)) for once in queued}
    for organization in Organization.objects.filter(pk__in=due).order_by("pk").iterator():
        with transaction.atomic():
            _queue(organization, f"{prefix}{organization.pk}", told, now)


def _fact(signal: Signal) -> tuple[int, str]:
    """What was told of it; raised anew it is news again."""
    return signal.pk, signal.raised_at.isoformat()


def _queue(organization: Organization, once: str, told: Container[object], now: dt.datetime) -> None:
    shown = organization.signals.shown(now)
    count = shown.count()
    if not count:
        return
    first = shown.select_related("key").order_by("-points", "-raised_at", "pk")[:LINES]
    url = settings.PORTAL_URL + reverse("attention", args=[organization.slug])
    context = {
        "organization": organization.name,
        "count": count,
        "more": count - len(first),
        "lines": [
            {
                "key": signal.key.name,
                "title": watch.title(signal),
                "sentence": signal.evidence.get("sentence", ""),
                "is_new": signal.raised_at > now - WEEK and _fact(signal) not in told,
            }
            for signal in first
        ],
        "url": url,
    }
    to = outbox.recipients(organization, ROLES)
    about = [_fact(signal) for signal in shown.filter(raised_at__gt=now - WEEK)]
    outbox.queue(once, "digest", context, to, now, organization=organization, about=about)
