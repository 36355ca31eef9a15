"""Thirty days of believable usage, for the demo that `quickstart` seeds.

The same start gives the same numbers. They are stored by the code that stores drained calls, so every page,
sum and export treats them as it treats real ones. Nothing but the demo calls this.
"""

import datetime as dt
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from django.db import transaction

from keys.models import Secret
from keys.verdicts import Code
from usage import counting, sources
from usage.meters import REQUESTS
from usage.records import CALL, Record
from usage.refusal_log import Entries
from usage.rollups import Sums

DAYS = 30
LISTED = dt.timedelta(days=2)  # so long refused calls are listed
SPOOL = "demo1958abc"  # of no process
HOUR = dt.timedelta(hours=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Traffic:
    """How one key is called with one of its secrets, from the making of that secret on.

    `peak`: calls in its busiest hour; `night` and `weekend`: the share of it that is left then; `shares`:
    how the calls divide over resources; `refused`: the share of calls refused, by code; `ends`: calls from
    then on are all refused with `ending`, and fade out over some days.
    """

    secret: Secret
    peak: int
    shares: Mapping[str, float]
    refused: Mapping[Code, float] = field(default_factory=dict)
    night: float = 0.3
    weekend: float = 0.6
    ends: dt.datetime | None = None
    ending: Code = Code.EXPIRED
    address: str = "203.0.113.10"
    user_agent: str = ""


def seed_usage(traffic: Sequence[Traffic], now: dt.datetime) -> None:
    """Add the calls of the `DAYS` days before `now` to the roll-ups and the secrets' last uses, and list some
    of those that were refused lately."""
    dice = random.Random(1958)  # noqa: S311  for looks; nothing secret comes of it
    sums, refusals, sequence = Sums(), Entries(), 0
    this_hour = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    hour = this_hour - dt.timedelta(days=DAYS)
    spikes = {dice.randrange(DAYS) for _ in range(3)}  # days on which somebody calls too fast
    while hour <= this_hour:
        elapsed = min((now - hour) / HOUR, 1.0)
        spike = (this_hour - hour).days in spikes and 13 <= hour.hour <= 15
        for each in traffic:
            for code, resource, calls in _calls(each, hour, elapsed, dice, spike=spike):
                # A last use is a moment in the hour, not its end, and never later than now.
                at = min(hour + HOUR * 0.97, now - dt.timedelta(seconds=20 + each.peak % 90))
                record = _record(each, code, resource, calls, max(at, hour))
                if not calls:
                    continue
                sums.add(record)
                if code is not Code.VALID and this_hour - hour < LISTED:
                    sequence += 1
                    refusals.add(record._replace(sequence=sequence, calls=1))
        hour += HOUR
    with transaction.atomic():
        counting.share()
        sums.store()
        sources.store(sums.sources)
        refusals.store(SPOOL)


def _calls(
    each: Traffic, hour: dt.datetime, elapsed: float, dice: random.Random, *, spike: bool
) -> list[tuple[Code, str, int]]:
    """(code, resource, calls) of one hour."""
    wobble = dice.uniform(0.85, 1.15)
    if hour < each.secret.created_at:
        return []
    daylight = (1 - math.cos((hour.hour - 3) / 24 * 2 * math.pi)) / 2  # 0 at 3:00, 1 at 15:00
    level = each.night + (1 - each.night) * daylight
    if hour.weekday() >= 5:
        level *= each.weekend
    total = round(each.peak * level * wobble * elapsed)
    if each.ends is not None and hour + HOUR > each.ends:
        fading = 0.5 ** (max(hour - each.ends, dt.timedelta(0)) / dt.timedelta(days=1))
        return [(each.ending, next(iter(each.shares)), round(total * fading))]
    calls = []
    for resource, share in each.shares.items():
        accepted = round(total * share)
        for code, part in each.refused.items():
            refused = round(accepted * part * (12 if spike and code is Code.RATE_LIMITED else 1))
            calls.append((code, resource, refused))
            accepted -= refused
        calls.append((Code.VALID, resource, max(accepted, 0)))
    return calls


def _record(each: Traffic, code: Code, resource: str, calls: int, at: dt.datetime) -> Record:
    return Record(
        kind=CALL,
        sequence=0,
        time=(at - EPOCH) // dt.timedelta(microseconds=1),
        payload=b"",
        end=0,
        organization=each.secret.key.organization_id,
        key=each.secret.key_id,
        secret=each.secret.pk,
        cost=calls,
        calls=calls,
        code=code.number,
        meter=REQUESTS.name,
        resource=resource,
        address=each.address,
        user_agent=each.user_agent,
    )
