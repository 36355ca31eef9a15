"""From where secrets are used: a bounded list of addresses and user agents for each, written by the drain.

It alone adds to and reads that list; the drain calls it in the transaction that counts the calls, so that a
call is in both once. It never sees a refused call (those are in `usage.refusal_log`) and no request waits
for it.
"""

import datetime as dt
import ipaddress
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import batched
from typing import Final, NamedTuple, Self

from django.conf import settings
from django.db import connection
from django.db.models import Count, F, Max, QuerySet, Sum

from keys.models import Key, Secret
from keys.verdicts import Code
from usage import bulk
from usage.models import Refusal, SecretUse, Source
from usage.models.sources import OTHER
from usage.rollups import moment
from usage.traits import BROWSER, PLAIN, unpack

QUIET: Final = dt.timedelta(hours=24)  # without a call, and a secret is taken to be in nobody's hands
LAG: Final = dt.timedelta(hours=1)  # counted no further than so long ago, and nobody can say
MOST: Final = 50  # of one secret are kept apart: those seen last
_CHUNK: Final = 500  # rows in one statement
_PREFIX: Final = {4: 24, 6: 48}  # bits of a network, by the address's version

_LOOK: Final = 200  # refusals that are looked through for where from
_FROM: Final = ("secret_id", "address", "user_agent")

# Secret, address or network, user agent.
type Place = tuple[int, str, str]

_ADD = """
INSERT INTO usage_source
  (secret_id, address, user_agent, calls, first_seen, last_seen, browser_at, plain_at)
{rows}
ON CONFLICT (secret_id, address, user_agent) DO UPDATE SET
  calls = usage_source.calls + EXCLUDED.calls,
  first_seen = CASE WHEN EXCLUDED.first_seen < usage_source.first_seen
    THEN EXCLUDED.first_seen ELSE usage_source.first_seen END,
  last_seen = CASE WHEN EXCLUDED.last_seen > usage_source.last_seen
    THEN EXCLUDED.last_seen ELSE usage_source.last_seen END,
  browser_at = CASE WHEN usage_source.browser_at IS NULL OR EXCLUDED.browser_at > usage_source.browser_at
    THEN EXCLUDED.browser_at ELSE usage_source.browser_at END,
  plain_at = CASE WHEN usage_source.plain_at IS NULL OR EXCLUDED.plain_at > usage_source.plain_at
    THEN EXCLUDED.plain_at ELSE usage_source.plain_at END
"""
_ADD_SCOPES = """
INSERT INTO usage_scopeuse (key_id, scope, last_needed) {rows}
ON CONFLICT (key_id, scope) DO UPDATE SET
  last_needed = CASE WHEN EXCLUDED.last_needed > usage_scopeuse.last_needed
    THEN EXCLUDED.last_needed ELSE usage_scopeuse.last_needed END
"""
_KNOWN = """
SELECT secret_id, address, user_agent FROM usage_source
WHERE (secret_id, address, user_agent) IN ({rows})
"""


@dataclass(slots=True)
class _Sum:
    """Calls of one source, and when the first and the last of them was; and the last with each trait."""

    calls: int
    first: dt.datetime
    last: dt.datetime
    browser: dt.datetime | None = None
    plain: dt.datetime | None = None

    def add(self, other: Self) -> None:
        self.calls += other.calls
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.browser = max(filter(None, (self.browser, other.browser)), default=None)
        self.plain = max(filter(None, (self.plain, other.plain)), default=None)


def store(seen: Mapping[Place, Sequence[int]]) -> None:
    """Add accepted calls to the lists, and note which scopes they asked for: place (with the user agent's
    text as the record has it) → calls, time of the first, of the last in µs, key.

    Inside the caller's transaction, after it has added to the secrets' last uses: whoever holds a secret's
    row there is alone with its list, so that the bound is exact however many drains run.
    """
    found: dict[Place, _Sum] = {}
    needed: dict[tuple[int, str], dt.datetime] = {}
    for (secret, address, text), (calls, first, last, key) in seen.items():
        context, at = unpack(text), moment(last)
        browser = at if BROWSER in context.traits else None
        plain = at if PLAIN in context.traits else None
        _add(found, (secret, _shown(address), context.agent), _Sum(calls, moment(first), at, browser, plain))
        for scope in context.scopes:
            needed[key, scope] = max(needed.get((key, scope), at), at)
    if crowded := _crowded(found):
        places: dict[int, list[Place]] = {secret: [] for secret in crowded}
        for place in found:
            if place[0] in places:
                places[place[0]].append(place)
        for secret in crowded:
            _make_room(secret, places[secret], found)
    time = connection.ops.adapt_datetimefield_value
    rows = [(place, found[place]) for place in sorted(found)]
    bulk.execute(
        _ADD,
        [
            (*place, each.calls, *map(time, (each.first, each.last, each.browser, each.plain)))
            for place, each in rows
        ],
    )
    bulk.execute(_ADD_SCOPES, [(*who, time(needed[who])) for who in sorted(needed)])


def _add(found: dict[Place, _Sum], place: Place, more: _Sum) -> None:
    if place in found:
        found[place].add(more)
    else:
        found[place] = more


def _shown(address: str) -> str:
    return network_of(address) if address and settings.SOURCES_PRECISION == "network" else address


@lru_cache(maxsize=8192)
def network_of(address: str) -> str:
    """The /24 or /48 that an address is in; what is no address stays as it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((parsed, _PREFIX[parsed.version]), strict=False))


def _crowded(found: Mapping[Place, _Sum]) -> list[int]:
    """The secrets that would have more sources than are kept, in order."""
    new = Counter(secret for secret, _, _ in found.keys() - _known(found))
    kept: dict[int, int] = {}
    for some in batched(new, _CHUNK):
        rows = Source.objects.filter(secret__in=some).exclude(address=OTHER).order_by()
        kept.update(rows.values_list("secret_id").annotate(count=Count("calls")))
    return sorted(secret for secret, count in new.items() if count + kept.get(secret, 0) > MOST)


def _known(found: Mapping[Place, _Sum]) -> set[Place]:
    """Those that have a row."""
    return set(bulk.execute(_KNOWN, found))


def _make_room(secret: int, places: Iterable[Place], found: dict[Place, _Sum]) -> None:
    """Leave the sources of a secret that were seen last, and sum up the others under OTHER; `places` are its
    own among those that were found."""
    rows = {(secret, row.address, row.user_agent): row for row in Source.objects.filter(secret=secret)}
    other = secret, OTHER, ""
    last: dict[Place, dt.datetime] = {place: row.last_seen for place, row in rows.items()}
    for place in places:
        last[place] = max(last.get(place, found[place].last), found[place].last)
    last.pop(other, None)
    dropped = sorted(last, key=lambda place: (last[place], place), reverse=True)[MOST:]
    for place in dropped:
        if (each := found.pop(place, None)) is not None:
            _add(found, other, each)
        if (row := rows.get(place)) is not None:
            summed = _Sum(row.calls, row.first_seen, row.last_seen, row.browser_at, row.plain_at)
            _add(found, other, summed)
    Source.objects.filter(pk__in=[place for place in dropped if place in rows]).delete()


# --- read -----------------------------------------------------------------------------------------


class LateUse(NamedTuple):
    """Calls with a secret after rotation had ended it. They were refused."""

    secret: Secret
    calls: int
    last: dt.datetime
    address: str  # of the last that has one
    user_agent: str


class Standing(StrEnum):
    """Does anybody still use a secret that rotation has replaced?"""

    USED = "used"
    QUIET = "quiet"  # nobody has since the rotation, which is not long ago
    SAFE = "safe"  # nobody has for QUIET
    UNKNOWN = "unknown"  # not everything is counted yet


class OldUse(NamedTuple):
    """What became of a replaced secret since it was: its last call, allowed or refused, and from where."""

    standing: Standing
    last: dt.datetime | None
    sources: list[Source]


def old_use(old: Secret, since: dt.datetime, through: dt.datetime | None, now: dt.datetime) -> OldUse:
    """How a secret that was replaced at `since` has been used from then on, as far as `through`, until when
    everything is counted."""
    moments = [
        *SecretUse.objects.filter(secret=old, last_used_at__gte=since).values_list("last_used_at", flat=True),
        # A client that runs into a limit has the old secret, too.
        Refusal.objects.filter(key=old.key_id, secret=old, at__gte=since).aggregate(last=Max("at"))["last"],
    ]
    last = max((moment for moment in moments if moment is not None), default=None)
    if through is None or through < now - LAG:
        standing = Standing.UNKNOWN if last is None or last < now - QUIET else Standing.USED
    elif through - (last or since) >= QUIET:
        standing = Standing.SAFE
    else:
        standing = Standing.QUIET if last is None else Standing.USED
    return OldUse(standing, last, list(of_secret(old).filter(last_seen__gte=since)))


def of_key(key: Key) -> QuerySet[Source]:
    """From where a key's secrets were used, last seen first; the rest behind them."""
    return _last_first(Source.objects.filter(secret__key=key)).select_related("secret__key")


def of_secret(secret: Secret) -> QuerySet[Source]:
    """From where one secret was used, last seen first; the rest behind them."""
    return _last_first(Source.objects.filter(secret=secret)).select_related("secret__key")


def _last_first(sources: QuerySet[Source]) -> QuerySet[Source]:
    return sources.order_by("-last_seen", "address", "user_agent")


def used_after_end(key: Key, since: dt.datetime) -> list[LateUse]:
    """The secrets of a key that rotation has ended and that were still tried after it, as far back as
    refused calls are listed; the one tried last first."""
    refused = Refusal.objects.filter(
        key=key,
        at__gte=since,
        outcome=Code.REVOKED.name,
        secret__stops_at__lte=F("at"),
        secret__key__revoked_at=None,
    )
    sums = (
        refused.order_by().values_list("secret").annotate(rows=Count("pk"), more=Sum("more"), last=Max("at"))
    )
    totals = {secret: (rows + more, last) for secret, rows, more, last in sums}
    secrets = {each.pk: each for each in Secret.objects.filter(pk__in=totals).select_related("key")}
    # The newest comes last, and so is the one that stays.
    told = list(refused.exclude(address="").order_by("-at", "-id").values_list(*_FROM)[:_LOOK])
    wherefrom = {pk: (address, agent) for pk, address, agent in reversed(told)}
    found = [
        LateUse(secrets[pk], calls, last, *wherefrom.get(pk, ("", "")))
        for pk, (calls, last) in totals.items()
    ]
    return sorted(found, key=lambda each: each.last, reverse=True)
