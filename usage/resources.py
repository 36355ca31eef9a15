"""Which resources are kept apart in roll-ups: at most USAGE_RESOURCES of an organization and meter.

What comes later is booked under `other`, so that labels which never end (paths with an id in them) fill
neither the database nor a bill. It alone decides that, exactly, however many drains run; it never decides
what is counted, nor opens a transaction.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from itertools import batched
from typing import Final, NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from keys.models import Organization
from usage.models import Price, Resource, ResourceBound

logger = logging.getLogger(__name__)

OTHER: Final = "other"
MAX_REMEMBERED: Final = 200_000  # names, in this process
_CHUNK: Final = 500

type Group = tuple[int, str, str]  # organization (primary key), meter, resource
type _Pair = tuple[int, str]  # organization, meter


class _Known(NamedTuple):
    """What is kept of one organization and meter. Once it is `full`, nothing is ever added."""

    names: frozenset[str]
    full: bool

    def answers(self, names: Collection[str]) -> bool:
        return self.full or self.names.issuperset(names)


# Only what was committed. Rows are never removed, so that what is here stays true.
_memory: dict[_Pair, _Known] = {}


def keeps(names: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of these (meter, resource) must keep their names, whatever the bound: those that have a price of
    their own in a published version of a plan."""
    if not names:
        return set()
    priced = Price.objects.filter(version__published_at__isnull=False).exclude(resource="")
    return set(priced.values_list("meter", "resource").distinct()) & set(names)


def bounded(groups: Iterable[Group]) -> dict[Group, str]:
    """The resource under which each of these is to be booked: its own or `other`.

    Call it within the transaction that books them, before that writes a roll-up: it may wait for another such
    transaction. Of names that were
    met before the database is only asked, for those beyond the bound, whether they have a price.
    """
    names: dict[Group, str] = {}
    asked: dict[_Pair, set[str]] = {}
    for group in groups:
        organization, meter, resource = group
        names[group] = resource
        if resource not in ("", OTHER):
            asked.setdefault((organization, meter), set()).add(resource)
    known = _known(asked)
    beyond = [
        (organization, meter, resource)
        for organization, meter, resource in names
        if resource in asked.get((organization, meter), ())
        and resource not in known[organization, meter].names
    ]
    kept = keeps([group[1:] for group in beyond])
    return names | {group: OTHER for group in beyond if group[1:] not in kept}


def reached(organization: Organization | int) -> dict[str, int]:
    """The organization's meters that have an `other` → how many resources they keep apart."""
    bounds = ResourceBound.objects.filter(organization=organization, reached_at__isnull=False)
    return dict(bounds.values_list("meter", "kept"))


def forget() -> None:
    """For tests, whose database is another each time."""
    _memory.clear()


def _known(asked: dict[_Pair, set[str]]) -> dict[_Pair, _Known]:
    known = {pair: _memory[pair] for pair in asked if pair in _memory}
    fresh = dict(_read([pair for pair in asked if pair not in known or not known[pair].answers(asked[pair])]))
    # In order, so that two who do this never wait for each other in a circle.
    for pair in sorted(fresh):
        if not fresh[pair].answers(asked[pair]):
            fresh[pair] = _admit(pair, asked[pair])
    if fresh:
        transaction.on_commit(lambda: _remember(fresh))
    return known | fresh


def _read(pairs: Collection[_Pair]) -> Iterator[tuple[_Pair, _Known]]:
    for some in batched(pairs, _CHUNK):
        organizations = {organization for organization, _ in some}
        names: dict[_Pair, set[str]] = {pair: set() for pair in some}
        # The bounds first: what is full now cannot get more names before these are read.
        bounds = ResourceBound.objects.filter(organization__in=organizations, reached_at__isnull=False)
        reached = set(bounds.values_list("organization_id", "meter"))
        rows = Resource.objects.filter(organization__in=organizations)
        for organization, meter, name in rows.values_list("organization_id", "meter", "name"):
            if (organization, meter) in names:
                names[organization, meter].add(name)
        for pair in some:
            yield pair, _as_known(names[pair], reached=pair in reached)


def _admit(pair: _Pair, wanted: set[str]) -> _Known:
    """Keep as many of the wanted as there is room for; of those that come together, the first by name."""
    organization, meter = pair
    ResourceBound.objects.bulk_create(
        [ResourceBound(organization_id=organization, meter=meter)], ignore_conflicts=True
    )
    bound = ResourceBound.objects.select_for_update().get(pk=pair)
    rows = Resource.objects.filter(organization=organization, meter=meter)
    names = set(rows.values_list("name", flat=True))
    room = max(settings.USAGE_RESOURCES - len(names), 0)
    new = sorted(wanted - names)
    Resource.objects.bulk_create(
        [Resource(organization_id=organization, meter=meter, name=name) for name in new[:room]],
        batch_size=_CHUNK,
    )
    names.update(new[:room])
    ResourceBound.objects.filter(pk=pair).update(kept=len(names))
    if len(new) > room and bound.reached_at is None:
        ResourceBound.objects.filter(pk=pair).update(reached_at=Now())
        logger.warning(
            "Organization %s has more than %s resources on the meter %s: those to come are booked as %r.",
            organization,
            len(names),
            meter,
            OTHER,
        )
    return _as_known(names, reached=len(new) > room or bound.reached_at is not None)


def _as_known(names: Collection[str], *, reached: bool) -> _Known:
    # The setting may have been raised since.
    return _Known(frozenset(names), reached and len(names) >= settings.USAGE_RESOURCES)


def _remember(fresh: dict[_Pair, _Known]) -> None:
    coming = sum(len(known.names) for known in fresh.values())
    if coming + sum(len(known.names) for known in _memory.values()) > MAX_REMEMBERED:
        _memory.clear()
    _memory.update(fresh)
