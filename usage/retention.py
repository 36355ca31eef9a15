"""What is kept no longer: ids of old events, old held calls, sources not seen for long, and the hours
of usage that is long past.

Every transaction is small, so that nobody waits for it. No sum ever changes: hours are merged into their day,
and ids go only when events with them would be refused as too late. Nothing here decides what counts.
"""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from usage import counting, rollups
from usage.events import REMEMBERED
from usage.models import Event, Hold, ResponseRollup, Rollup, Source, Subscription

SECONDS: Final = 10.0
BATCH: Final = 5000  # rows in one transaction
_CHUNK: Final = 500  # rows in one statement, which SQLite bounds
_DAYS: Final = 100  # organizations' days found at once


def once(*, stop: Callable[[], bool] = lambda: False, seconds: float = SECONDS) -> None:
    """Do what is due, for about so long; the rest is the next time's, for journals wait to be drained.
    `stop` is asked after each transaction."""
    now, deadline = timezone.now(), time.monotonic() + seconds
    for _ in forget(now):
        if stop() or time.monotonic() >= deadline:
            return
    if settings.USAGE_DETAIL_DAYS:
        for _ in fold(now - dt.timedelta(days=settings.USAGE_DETAIL_DAYS)):
            if stop() or time.monotonic() >= deadline:
                return


def forget(now: dt.datetime) -> Iterator[int]:
    """Delete the ids of events and the held calls that can no longer matter, and sources that were not seen
    for SOURCES_DAYS; yields rows a transaction."""
    yield from _delete(Event, "received_at", now - REMEMBERED)
    yield from _delete(Hold, "at", now - REMEMBERED)
    yield from _delete(Source, "last_seen", now - dt.timedelta(days=settings.SOURCES_DAYS))


def fold(before: dt.datetime) -> Iterator[tuple[int, dt.datetime]]:
    """Merge the hours of each UTC day that is over by `before` into its first; yields (organization,
    midnight) once each is done. One organization's day is one transaction. Where a subscription begins or
    ends within the day, the hours before and after are merged apart: they have different prices."""
    cutoff = _midnight(before)
    for model in (Rollup, ResponseRollup):
        while days := _unfolded(model, cutoff):
            for organization, midnight in days:
                with transaction.atomic():
                    counting.alone()
                    edges = [midnight, *_edges(organization, midnight), midnight + dt.timedelta(days=1)]
                    for start, end in pairwise(edges):
                        rollups.fold(organization, start, end)
                yield organization, midnight


def _unfolded(model: type[Rollup | ResponseRollup], cutoff: dt.datetime) -> list[tuple[int, dt.datetime]]:
    """Some days of organizations that are still in hours."""
    edge = Subscription.objects.filter(organization=OuterRef("organization_id")).filter(
        Q(start=OuterRef("hour")) | Q(end=OuterRef("hour"))
    )
    rows = model.objects.filter(hour__lt=cutoff).exclude(hour__hour=0).exclude(Exists(edge))
    hours = rows.values_list("organization_id", "hour").distinct()[: _DAYS * 23]
    return sorted({(organization, _midnight(hour)) for organization, hour in hours})


def _edges(organization: int, midnight: dt.datetime) -> list[dt.datetime]:
    """The hours within a day at which a subscription of the organization begins or ends, in order."""
    rows = Subscription.objects.filter(organization=organization).values_list("start", "end")
    day = midnight + dt.timedelta(days=1)
    return sorted({edge for row in rows for edge in row if edge is not None and midnight < edge < day})


def _delete(model: type[Event | Hold | Source], field: str, before: dt.datetime) -> Iterator[int]:
    while True:
        with transaction.atomic():
            rows = model.objects.filter(**{f"{field}__lt": before}).order_by(field)
            # What a drain is just adding to is not old.
            rows = rows.select_for_update(skip_locked=True)
            keys = list(rows.values_list("pk", flat=True)[:BATCH])
            for start in range(0, len(keys), _CHUNK):
                model.objects.filter(pk__in=keys[start : start + _CHUNK]).delete()
        if not keys:
            return
        yield len(keys)


def _midnight(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
