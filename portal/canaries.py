"""The alarm of canaries: who tried one is found in what the drain counted, and reported once an hour each.

The worker looks; nothing happens in the call itself, which is refused as that of any revoked key. It never
changes a key.
"""

import datetime as dt
from collections import defaultdict
from typing import Final

from keys import oversight
from keys.models import LeakDoor, LeakReport, Secret
from portal import leaks
from usage.models import Refusal, Rollup

BACK: Final = dt.timedelta(days=2)  # that are looked at: a host's journals may come late
_HOUR: Final = dt.timedelta(hours=1)


def ring(now: dt.datetime) -> int:
    """Report the hours in which canaries were tried and that were not reported yet; how many."""
    canaries = list(oversight.canaries().values_list("pk", flat=True))
    if not canaries:
        return 0
    told = defaultdict(set)
    reports = LeakReport.objects.filter(
        key__in=canaries, door=LeakDoor.CANARY, reported_at__gt=now - BACK - _HOUR
    )
    for key_id, hour in reports.values_list("key_id", "source"):
        told[key_id].add(hour)
    used = Rollup.objects.filter(key__in=canaries, hour__gt=now - BACK).values_list("key_id", "hour")
    rung = 0
    for key_id, at in sorted(used.distinct()):
        if f"{at.astimezone(dt.UTC):%Y-%m-%dT%H}" not in told[key_id]:
            secret, place = _first_use(key_id, at)
            leaks.canary_used(secret, place, at, now)
            rung += 1
    return rung


def _first_use(key_id: int, hour: dt.datetime) -> tuple[Secret, str]:
    """The secret that was tried first in this hour, and from where."""
    refusals = Refusal.objects.filter(key=key_id, at__gte=hour, at__lt=hour + _HOUR)
    first = refusals.select_related("secret__key__organization").order_by("at", "id").first()
    if first is None or first.secret is None:  # only summed up, or no longer kept
        return Secret.objects.select_related("key__organization").filter(key=key_id).latest("pk"), ""
    return first.secret, ", ".join(filter(None, [first.address, first.user_agent]))
