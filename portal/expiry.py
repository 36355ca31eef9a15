"""Mails about keys that are going to expire: 30, 7 and 1 days before, and on the last day.

`remind` queues them, to each key's maker and the owners, each once however many workers run. Days are UTC
days, and a key whose day was missed gets the nearest mail and no others. It changes no key.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.urls import reverse

from keys.lifecycle.locks import lock_organization
from keys.models import Key, Organization
from keys.permissions import Role
from portal import outbox
from portal.models import Mail, Reminder
from portal.pages import brownouts_to_come, span

DAYS: Final = (30, 7, 1, 0)  # before the last day
LISTED: Final = 100  # keys in one mail
DAY: Final = dt.timedelta(days=1)
_ONCE: Final = "expiry:"
_TEMPLATE: Final = "expiry"


class Line(NamedTuple):
    """A key in a mail."""

    name: str
    environment: str
    expires_at: dt.datetime
    when: str  # `expires in 6 days`
    url: str
    brownouts: list[dt.datetime]  # when they begin that are to come


def last_day(expires_at: dt.datetime) -> dt.date:
    """The last UTC day on which the key works: midnight is the end of the day before."""
    return (expires_at.astimezone(dt.UTC) - dt.timedelta(microseconds=1)).date()


def due(expires_at: dt.datetime, created_at: dt.datetime, now: dt.datetime) -> int | None:
    """Which of DAYS the key is at: the nearest that has come. None: none yet; or it is over for a day; or the
    key is no older than that day, so that whoever made it knows. A key that was made for a day has none."""
    if expires_at <= now - DAY:
        return None
    left = (last_day(expires_at) - now.astimezone(dt.UTC).date()).days
    days = min((days for days in DAYS if left <= days), default=None)
    if days is None:
        return None
    day = last_day(expires_at) - max(days, 1) * DAY
    return days if created_at.astimezone(dt.UTC).date() < day else None


def remind(now: dt.datetime) -> int:
    """Queue what is due; about how many keys. And bring up to date what still waits to be sent."""
    reminded = sum(_remind(organization, now) for organization in _with_something_due(now))
    outbox.rewrite_waiting(_ONCE, _TEMPLATE, lambda mail: _still_true(mail, now))
    return reminded


def forget(now: dt.datetime) -> None:
    """Delete what is noted of keys that have expired long ago."""
    Reminder.objects.filter(expires_at__lt=now - outbox.KEEP).delete()


def _not_told(days: int, after: dt.datetime, until: dt.datetime) -> QuerySet[Key]:
    """Keys that expire in (after, until], of which nobody was told so late."""
    told = Reminder.objects.filter(key=OuterRef("pk"), expires_at=OuterRef("expires_at"), days__lte=days)
    return Key.objects.filter(
        ~Exists(told),
        revoked_at=None,
        disabled_at=None,
        organization__suspended_at=None,
        expires_at__gt=after,
        expires_at__lte=until,
        # `due` knows it exactly; this keeps out the many that live for an hour.
        created_at__lt=F("expires_at") - max(days, 1) * DAY,
    )


def _windows(now: dt.datetime) -> Iterable[tuple[int, dt.datetime, dt.datetime]]:
    """For each of DAYS, between which two moments (the second included) keys expire that are at it."""
    today = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    until = today + (DAYS[0] + 1) * DAY
    for days, nearer in zip(DAYS, (*DAYS[1:], None), strict=True):
        after = now - DAY if nearer is None else today + (nearer + 1) * DAY
        yield days, after, until
        until = after


def _with_something_due(now: dt.datetime) -> list[Organization]:
    ids: set[int] = set()
    for window in _windows(now):
        ids.update(_not_told(*window).values_list("organization_id", flat=True).distinct())
    return list(Organization.objects.filter(pk__in=ids).order_by("pk"))


def _remind(organization: Organization, now: dt.datetime) -> int:
    """One organization's, in one transaction: whoever comes second finds it done."""
    with transaction.atomic():
        organization = lock_organization(organization)
        if organization.suspended:
            return 0
        found: list[Key] = []
        reminders: list[Reminder] = []
        for window in _windows(now):
            for key in _not_told(*window).filter(organization=organization).select_related("created_by"):
                assert key.expires_at is not None
                days = due(key.expires_at, key.created_at, now)
                if days is not None:
                    found.append(key)
                    reminders.append(Reminder(key=key, expires_at=key.expires_at, days=days, at=now))
        if not found:
            return 0
        Reminder.objects.bulk_create(reminders)
        first = min(reminder.pk for reminder in reminders)
        for number, (keys, addresses) in enumerate(who_gets_what(organization, found)):
            outbox.queue(
                f"{_ONCE}{first}:{number}",
                _TEMPLATE,
                _context(organization, keys, now),
                addresses,
                now,
                organization=organization,
                about=_about(keys),
            )
    return len(found)


def who_gets_what(organization: Organization, keys: Sequence[Key]) -> list[tuple[list[Key], list[str]]]:
    """The owners get all of them, a maker their own; who gets the same keys is in one list of addresses."""
    mine: dict[str, list[Key]] = defaultdict(list)
    owners = outbox.recipients(organization, [Role.OWNER])
    mine.update({address: list(keys) for address in owners})
    makers = {key.created_by_id: key.created_by for key in keys}
    for pk, maker in makers.items():
        for address in outbox.recipients(organization, [], also=[maker]):
            if address not in owners:
                mine[address] = [key for key in keys if key.created_by_id == pk]
    grouped: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for address, wanted in mine.items():
        grouped[tuple(key.pk for key in wanted)].append(address)
    by_id = {key.pk: key for key in keys}
    return [([by_id[pk] for pk in pks], addresses) for pks, addresses in grouped.items()]


def _about(keys: Iterable[Key]) -> list[list[object]]:
    return [[key.pk, key.expires_at and key.expires_at.isoformat()] for key in keys]


def _still_true(mail: Mail, now: dt.datetime) -> tuple[Mapping[str, object], Sequence[object]] | None:
    """Without the keys that were revoked, disabled or given another expiry since it was written."""
    ids = [pk for pk, _ in mail.about]
    rows = Key.objects.filter(pk__in=ids, revoked_at=None, disabled_at=None).in_bulk()
    keys = [rows[pk] for pk in ids if pk in rows]
    keys = [key for key, told in zip(keys, _about(keys), strict=True) if told in mail.about]
    if not keys or mail.organization is None or mail.organization.suspended:
        return None
    return _context(mail.organization, keys, now), _about(keys)


def _context(organization: Organization, keys: Sequence[Key], now: dt.datetime) -> dict[str, object]:
    lines = [_line(organization, key, now) for key in keys]
    lines.sort(key=lambda line: (line.expires_at, line.name))
    return {
        "organization": organization.name,
        "lines": lines[:LISTED],
        "first": lines[0],
        "count": len(lines),
        "more": max(len(lines) - LISTED, 0),
        "has_brownouts": any(line.brownouts for line in lines[:LISTED]),
        "all_url": f"{settings.PORTAL_URL}{reverse('keys', args=[organization.slug])}?state=expiring",
    }


def _line(organization: Organization, key: Key, now: dt.datetime) -> Line:
    assert key.expires_at is not None
    left = key.expires_at - now
    when = f"expires in {span(left)}" if left > dt.timedelta(0) else "has expired"
    path = reverse("key", args=[organization.slug, key.public_id])
    at = key.expires_at.astimezone(dt.UTC)
    coming = brownouts_to_come(organization, key, now)
    return Line(key.name, key.environment, at, when, f"{settings.PORTAL_URL}{path}", coming)
