"""The sums behind the usage explorer: what each group used in a range, and the largest bucket by bucket.

Summed by the database from the roll-ups, one query a question, however many keys or hours there are. What
comes back is as long as there are groups, or as there are buckets times `TOP`; it never writes.
"""

import datetime as dt
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from django.db.models import Case, CharField, F, QuerySet, Sum, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from keys.models import Key, Organization
from keys.verdicts import Code
from usage import series
from usage.models import Rollup
from usage.reports import ACCEPTED, Calls

TOP: Final = 6  # groups that have a part of their own in each bucket; the others are one part
# Bucket → the longest range, in days, that is cut into it.
LONGEST: Final = {"hour": 7, "day": 366, "month": 366}

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


def buckets(
    organization: Organization, asked: Asked, by: str, bucket: str, top: Collection[Group] | None = None
) -> dict[tuple[dt.datetime, Group | None], Part]:
    """What the groups in `top` used in each bucket, and all others together under None; without `top` every
    group by itself. (bucket's beginning, group) → sums; buckets without calls are left out. One query."""
    column = series.GROUPS[by]
    group: Combinable = F(column)
    if top is not None:
        wanted = When(**{f"{column}__in": top}, then=group)
        group = Case(wanted) if top else Value(None, output_field=CharField())
    rows = _rows(organization, asked, by).annotate(cut=series.cut_to(bucket), part=group)
    grouped = rows.values_list("cut", "part").annotate(calls_sum=Sum("calls"), quantity_sum=_QUANTITY)
    return {(series.moment(cut), part): Part(*sums) for cut, part, *sums in grouped}


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
    rows = Rollup.objects.filter(organization=organization, hour__gte=asked.start, hour__lt=asked.end)
    if asked.meter:
        rows = rows.filter(meter=asked.meter)
    if asked.key is not None:
        rows = rows.filter(key=asked.key)
    if asked.environment:
        keys = Key.objects.filter(organization=organization, environment=asked.environment)
        rows = rows.filter(key__in=keys.values("pk"))
    return rows.annotate(environment=series.environment_of_key()) if by == "environment" else rows
