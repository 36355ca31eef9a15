"""The sums behind the usage explorer: what each group used in a range, and the largest bucket by bucket.

Summed by the database from the roll-ups, one query a question, however many keys or hours there are. What
comes back is as long as there are groups, or as there are buckets times `TOP`; it never writes.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from operator import add, sub
from typing import Any, Final, NamedTuple

from django.db.models import Case, CharField, F, QuerySet, Sum, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from keys.models import Key, Organization
from keys.verdicts import Code
from usage import series
from usage.reports import ACCEPTED, Calls

TOP: Final = 6  # groups that have a part of their own in each bucket; the others are one part
# Bucket → the longest range, in days, that is cut into it.
LONGEST: Final = {"hour": 7, "day": 366, "month": 366}

FEW: Final = ("outcome", "meter", "environment")  # what roll-ups have few different ones of

type Group = str | int  # as its column has it: a key's primary key, else a name


class Asked(NamedTuple):
    """Whose calls of [start, end), whole hours in UTC, are asked about; empty and None: all."""

    start: dt.datetime
    end: dt.datetime
    meter: str = ""
    environment: str = ""
    key: int | None = None


class Part(NamedTuple):
    """Calls and quantity of a group in a bucket."""

    calls: int
    quantity: int


class Sums(NamedTuple):
    """Calls of a range by group, and by outcome; quantities are the accepted ones', in the
    meter's smallest unit."""

    groups: dict[Group, Calls]
    outcomes: dict[str, int]


def sums(organization: Organization, asked: Asked, by: str) -> Sums:
    """What each group used; `by` is one of `series.GROUPS`. One query."""
    column = series.GROUPS[by]
    rows = (
        _rows(organization, asked, by)
        .values_list(F(column), F("outcome"))
        .annotate(calls_sum=Sum("calls"), quantity_sum=Sum("quantity"))
    )
    return _sums(rows)


def _sums(rows: Iterable[tuple[Group, str, int, int]]) -> Sums:
    """Of rows by group and outcome."""
    groups: dict[Group, Calls] = {}
    outcomes: dict[str, int] = {}
    for group, outcome, calls, quantity in rows:
        accepted, refused, before = groups.get(group, (0, 0, 0))
        is_accepted = outcome == Code.VALID.name
        groups[group] = Calls(
            accepted + calls * is_accepted,
            refused + calls * (not is_accepted),
            before + quantity * is_accepted,
        )
        outcomes[outcome] = outcomes.get(outcome, 0) + calls
    return Sums(groups, outcomes)


def everything(
    organization: Organization, asked: Asked, by: str, bucket: str
) -> tuple[Sums, dict[tuple[dt.datetime, Group | None], Part]]:
    """Both answers, of every group, by reading the rows once; for what has few groups (`FEW`). One query."""
    column = series.GROUPS[by]
    rows = list(
        _rows(organization, asked, by)
        .annotate(cut=series.cut_to(bucket))
        .values_list("cut", F(column), F("outcome"))
        .annotate(calls_sum=Sum("calls"), quantity_sum=Sum("quantity"))
    )
    parts: dict[tuple[dt.datetime, Group | None], Part] = {}
    for cut, group, outcome, calls, quantity in rows:
        place = series.moment(cut), group
        before = parts.get(place, Part(0, 0))
        counted = quantity if outcome == Code.VALID.name else 0
        parts[place] = Part(before.calls + calls, before.quantity + counted)
    return _sums(tuple(row[1:]) for row in rows), parts


def only(
    parts: Mapping[tuple[dt.datetime, Group | None], Part], top: Collection[Group]
) -> dict[tuple[dt.datetime, Group | None], Part]:
    """The same with all groups but those in `top` together under None."""
    found: dict[tuple[dt.datetime, Group | None], Part] = {}
    for (at, group), part in parts.items():
        place = at, group if group in top else None
        found[place] = Part(*map(sum, zip(found.get(place, Part(0, 0)), part, strict=True)))
    return found


def buckets(
    organization: Organization, asked: Asked, by: str, bucket: str, top: Collection[Group] | None = None
) -> dict[tuple[dt.datetime, Group | None], Part]:
    """What the groups in `top` used in each bucket, and all others together under None; without `top` every
    group by itself. (bucket's beginning, group) → sums; buckets without calls are left out. One query; two
    of keys."""
    if by == "key" and top is not None and asked.key is None:
        return _buckets_of_keys(organization, asked, bucket, top)
    column = series.GROUPS[by]
    group: Combinable = F(column)
    if top is not None:
        wanted = When(**{f"{column}__in": top}, then=group)
        group = Case(wanted) if top else Value(None, output_field=CharField())
    rows = _rows(organization, asked, by).annotate(cut=series.cut_to(bucket), part=group)
    grouped = rows.values_list("cut", "part").annotate(calls_sum=Sum("calls"), quantity_sum=_QUANTITY)
    return {(series.moment(cut), part): Part(*sums) for cut, part, *sums in grouped}


def _buckets_of_keys(
    organization: Organization, asked: Asked, bucket: str, top: Collection[Group]
) -> dict[tuple[dt.datetime, Group | None], Part]:
    """The others are what is left of all keys' sums: two queries for few rows, however many keys there are.
    All are read last, so that they have what was counted in between."""
    found: dict[tuple[dt.datetime, Group | None], Part] = {}
    named: dict[dt.datetime, Part] = {}
    if top:
        of_top = _rows(organization, asked, "key").filter(key__in=top)
        for cut, key, *sums in _by_bucket(of_top, bucket, "key_id"):
            at = series.moment(cut)
            found[at, key] = part = Part(*sums)
            named[at] = Part(*map(add, named.get(at, Part(0, 0)), part))
    for cut, *sums in _by_bucket(_rows(organization, asked, "environment"), bucket):
        at = series.moment(cut)
        others = Part(*map(sub, sums, named.get(at, Part(0, 0))))
        if any(others):
            found[at, None] = others
    return found


# Any: rows with annotations have no type that could be named here.
def _by_bucket(rows: QuerySet[Any], bucket: str, *columns: str) -> QuerySet[Any, Any]:
    cut = rows.annotate(cut=series.cut_to(bucket)).values_list("cut", *columns)
    sums: QuerySet[Any, Any] = cut.annotate(calls_sum=Sum("calls"), quantity_sum=_QUANTITY)
    return sums


def cuts(start: dt.datetime, end: dt.datetime, bucket: str) -> list[dt.datetime]:
    """The beginnings of all buckets that [start, end) touches; the first may lie before `start`."""
    at = start.replace(minute=0, second=0, microsecond=0)
    if bucket != "hour":
        at = at.replace(hour=0)
    if bucket == "month":
        at = at.replace(day=1)
    found = []
    while at < end:
        found.append(at)
        at = series.bucket_end(at, bucket)
    return found


_QUANTITY: Final = Coalesce(Sum("quantity", filter=ACCEPTED), 0)


# Any: a queryset with an annotation that only one of the branches has.
def _rows(organization: Organization, asked: Asked, by: str) -> QuerySet[Any]:
    groups = {by} if asked.key is None else {by, "key"}
    rows = series.between(organization, asked.start, asked.end, groups)
    if asked.meter:
        rows = rows.filter(meter=asked.meter)
    if asked.key is not None:
        rows = rows.filter(key=asked.key)
    if not asked.environment:
        return rows
    if "key" not in groups:
        return rows.filter(environment=asked.environment)
    keys = Key.objects.filter(organization=organization, environment=asked.environment)
    return rows.filter(key__in=keys.values("pk"))
