"""The weekly digest: what is amiss with an organization's keys, to its owners and admins.

It goes out once a week and only where something new was raised in it, so that nobody learns to delete it
unread. It queues mails and nothing else; what is amiss is `usage.watch`'s to say.
"""

import datetime as dt
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
ROLES: Final = (Role.OWNER, Role.ADMIN)


def send_due(now: dt.datetime) -> None:
    """Queue this week's digests that are not queued yet; by several workers at once each goes once."""
    week = now.astimezone(dt.UTC)
    if week.weekday() == 0 and week.hour < HOUR:
        return
    prefix = f"digest:{week:%G-W%V}:"
    new = Signal.objects.shown(now).filter(raised_at__gt=now - WEEK, organization__suspended_at=None)
    due = set(new.order_by().values_list("organization", flat=True).distinct())
    queued = Mail.objects.filter(once__startswith=prefix).values_list("once", flat=True)
    due -= {int(once.removeprefix(prefix)) for once in queued}
    for organization in Organization.objects.filter(pk__in=due).order_by("pk").iterator():
        with transaction.atomic():
            _queue(organization, f"{prefix}{organization.pk}", now)


def _queue(organization: Organization, once: str, now: dt.datetime) -> None:
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
                "is_new": signal.raised_at > now - WEEK,
            }
            for signal in first
        ],
        "url": url,
    }
    to = outbox.recipients(organization, ROLES)
    outbox.queue(once, "digest", context, to, now, organization=organization)
