"""What stricter settings of a key, or of a whole organization, would have refused, held against what is kept
of the accepted calls.

`facts_of_…` read and `judge` decides from that alone; both tell no more than the data do. It writes nothing
and no gateway asks it.
"""

import datetime as dt
import ipaddress
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from keys import quotas as quota_rules
from keys import rates as rate_rules
from keys.lifecycle import rules
from keys.models import Environment, Key, Organization
from keys.networks import normalise
from keys.quotas import Quota
from keys.rates import Rate
from usage import reports, sources
from usage.models import ScopeUse, Source
from usage.reports import Hour
from usage.traits import UNKNOWN

DAYS: Final = 30  # of UTC, today is one of them
_HOUR: Final = 3600  # seconds
_DAY: Final = dt.timedelta(days=1)

type Block = ipaddress.IPv4Network | ipaddress.IPv6Network


class Proposal(NamedTuple):
    """Settings to be tried, as `lifecycle.edit_key` or `edit_policy` would store them."""

    scopes: Collection[str] = ()
    networks: Sequence[str] = ()  # empty: anywhere
    rates: Sequence[Rate] = ()
    quotas: Sequence[Quota] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of accepted calls since a moment; hours go back to the first of its month, and those that
    are whole since then are judged."""

    since: dt.datetime
    held: Collection[str] = ()  # scopes
    sources: Sequence[Source] = ()
    needed: Mapping[str, dt.datetime] = field(default_factory=dict)  # scope → when a call last asked for it
    hours: Sequence[Hour] = ()
    spends_quotas: bool = True  # test keys spend none


class Outside(StrEnum):
    YES = "yes"
    PERHAPS = "perhaps"  # only its network is known, or nothing: summed up with others


class Place(NamedTuple):
    """A source that the networks would have shut out."""

    source: Source
    outside: Outside


class Need(NamedTuple):
    """A scope that the key would not have had, and when a call last asked for it."""

    scope: str
    last: dt.datetime


class OverRate(NamedTuple):
    """What a rate would have refused at least, whatever the shorter windows were like."""

    rate: Rate
    calls: int
    spans: int  # hours, or days for a rate by the day, in which that was so
    unit: str
    last: dt.datetime | None  # begin of the last of them


class OverQuota(NamedTuple):
    """What was accepted beyond a quota. Quantities are in the meter's smallest unit."""

    quota: Quota
    over: int  # since the facts begin; what was used before counts as used
    spans: int  # days or months in which that was so
    most: int  # that was used in one of them
    start: dt.datetime | None  # of that one


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a proposal would have refused."""

    since: dt.datetime
    places: list[Place]  # the last seen first
    needs: list[Need]  # the last asked for first
    unknown_scopes: dt.datetime | None  # when calls last asked for scopes that were not kept
    rates: list[OverRate]  # one for each that was proposed
    quotas: list[OverQuota]  # likewise

    @property
    def refuses(self) -> bool:
        """Is anything known that it would have refused for certain?"""
        return bool(
            self.needs
            or any(quota.over for quota in self.quotas)
            or any(place.outside is Outside.YES for place in self.places)
            or any(rate.calls for rate in self.rates)
        )

    @property
    def is_unsure(self) -> bool:
        """Is there a place of which that is not known?"""
        return any(place.outside is Outside.PERHAPS for place in self.places)

    @property
    def may_refuse(self) -> bool:
        """Is there anything at all?"""
        return self.refuses or bool(self.places or self.unknown_scopes)


def propose(
    key: Key, scopes: Iterable[str], networks: Sequence[str], rates: Iterable[str], quotas: Iterable[str]
) -> Proposal:
    """The settings as an edit of the key would take them. Raises Invalid as the edit would."""
    # What stays as it is was allowed when it was chosen.
    if list(networks) != key.networks:
        networks = rules.clean_networks(key.organization, key.environment, networks)
    return Proposal(
        frozenset(scopes),
        networks,
        [rate_rules.parse(text) for text in rules.clean_rates(rates)],
        [quota_rules.parse(text) for text in rules.clean_quotas(quotas)],
    )


def days_back(now: dt.datetime) -> dt.datetime:
    """The first moment of the last DAYS."""
    return quota_rules.period("day", now)[0] - (DAYS - 1) * _DAY


def facts_of_key(key: Key, since: dt.datetime) -> Facts:
    """What is known of a key's calls; in a fixed number of queries."""
    return Facts(
        since=since,
        held=[scope.name for scope in key.scopes.all()],
        sources=list(sources.of_key(key).filter(last_seen__gte=since)),
        needed=dict(ScopeUse.objects.filter(key=key).values_list("scope", "last_needed")),
        hours=reports.hourly(key, quota_rules.period("month", since)[0]),
        spends_quotas=key.environment != Environment.TEST,
    )


def facts_of_organization(organization: Organization, since: dt.datetime) -> Facts:
    """What is known of the calls of all its keys together, for limits that they share; one query."""
    return Facts(since, hours=reports.hourly_of_all(organization, quota_rules.period("month", since)[0]))


def look_back(key: Key, proposal: Proposal, now: dt.datetime) -> Shadow:
    """What it would have refused of a key's calls in the last DAYS."""
    return judge(proposal, facts_of_key(key, days_back(now)))


def look_back_on_all(organization: Organization, proposal: Proposal, now: dt.datetime) -> Shadow:
    """The same of the calls of all keys together."""
    return judge(proposal, facts_of_organization(organization, days_back(now)))


def judge(proposal: Proposal, facts: Facts) -> Shadow:
    """What the proposal would have refused of these calls."""
    dropped = set(facts.held) - set(proposal.scopes)
    needed = {scope: at for scope, at in facts.needed.items() if at >= facts.since}
    needs = [Need(scope, at) for scope, at in needed.items() if scope in dropped]
    return Shadow(
        since=facts.since,
        places=_places(proposal.networks, facts.sources),
        needs=sorted(needs, key=lambda need: (need.last, need.scope), reverse=True),
        unknown_scopes=needed.get(UNKNOWN) if dropped else None,
        rates=[_over_rate(rate, facts) for rate in proposal.rates],
        quotas=[_over_quota(quota, facts) for quota in proposal.quotas],
    )


def _places(networks: Sequence[str], found: Iterable[Source]) -> list[Place]:
    if not networks:
        return []
    allowed = [ipaddress.ip_network(text) for text in networks]
    judged = [(source, _outside(source, allowed)) for source in found]
    return [Place(source, outside) for source, outside in judged if outside is not None]


def _outside(source: Source, allowed: Sequence[Block]) -> Outside | None:
    """As `keys.networks.contains` decides of a call: an unknown address is in no network."""
    if source.is_other:
        return Outside.PERHAPS
    try:
        block = ipaddress.ip_network(normalise(source.address))
    except ValueError:
        return Outside.YES
    touching = [each for each in allowed if each.version == block.version and each.overlaps(block)]
    if not touching:
        return Outside.YES
    return None if any(each.prefixlen <= block.prefixlen for each in touching) else Outside.PERHAPS


def _over_rate(rate: Rate, facts: Facts) -> OverRate:
    """Windows are aligned to the epoch, so an hour holds a whole number of those that are shorter."""
    seconds = max(rate.seconds, _HOUR)
    most = rate.limit * (seconds // rate.seconds)
    spent: Counter[int] = Counter()
    for hour in facts.hours:
        if hour.at >= facts.since:
            spent[int(hour.at.timestamp()) // seconds * seconds] += hour.calls
    over = {start: calls - most for start, calls in spent.items() if calls > most}
    last = dt.datetime.fromtimestamp(max(over), dt.UTC) if over else None
    unit = "hour" if seconds == _HOUR else "day"
    return OverRate(rate, sum(over.values()), len(over), unit, last)


def _over_quota(quota: Quota, facts: Facts) -> OverQuota:
    used: Counter[dt.datetime] = Counter()
    before: Counter[dt.datetime] = Counter()
    for hour in facts.hours:
        start, end = quota_rules.period(quota.unit, hour.at)
        if hour.meter == quota.meter and end > facts.since and facts.spends_quotas:
            used[start] += hour.quantity
            if hour.at < facts.since:
                before[start] += hour.quantity
    over = {start: used[start] - max(before[start], quota.limit) for start in used}
    over = {start: quantity for start, quantity in over.items() if quantity > 0}
    most = max((used[start] for start in over), default=0)
    busiest = max((start for start in over if used[start] == most), default=None)
    return OverQuota(quota, sum(over.values()), len(over), most, busiest)


def sentences(found: Shadow) -> list[str]:
    """What it would have refused in words, for mails and lists; nothing where nothing is known."""
    certain = sum(place.outside is Outside.YES for place in found.places)
    perhaps = len(found.places) - certain
    told = [f"Calls from {_count(certain, 'address', 'addresses')} outside the networks."] if certain else []
    if perhaps:
        told.append(f"Perhaps calls from {_count(perhaps, 'source', 'sources')} known only in part.")
    if found.needs:
        told.append(f"Calls that asked for {', '.join(need.scope for need in found.needs)}.")
    if found.unknown_scopes:
        told.append("Perhaps calls that asked for other scopes.")
    told += [f"At least {over.calls:,} beyond {over.rate.text}." for over in found.rates if over.calls]
    told += [f"{over.over:,} beyond {over.quota.text}." for over in found.quotas if over.over]
    return told


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
