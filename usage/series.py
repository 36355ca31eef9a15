"""Usage read back: an organization's sums by bucket of time and group, a page at a time.

Summed by the database from the roll-ups in one query a page (from those without keys where no key is asked
about), from where the last page ended on, so that a million rows cost no more queries than one. It reads
nothing else, and never writes.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import Case, CharField, F, Q, QuerySet, Sum, Value, When
from django.db.models.expressions import Combinable
from django.db.models.functions import Substr, TruncDay, TruncMonth

from keys.models import Environment, Key, Organization
from usage import meters
from usage.meters import Meter
from usage.models import OrganizationRollup, Rollup

BUCKETS: Final = ("hour", "day", "month")
# In the order of the roll-ups' primary key, so that hours come sorted from it; group → column.
GROUPS: Final = {
    "key": "key_id",
    "meter": "meter",
    "resource": "resource",
    "outcome": "outcome",
    "environment": "environment",
}
PAGE: Final = 1000  # rows


class Query(NamedTuple):
    """What is asked: [start, end) in whole hours, UTC; `groups` in the order of GROUPS."""

    start: dt.datetime
    end: dt.datetime
    bucket: str
    groups: tuple[str, ...]


class Position(NamedTuple):
    """Where a page ended: the beginning of its last row's bucket, and its groups as columns have them."""

    bucket: dt.datetime
    values: tuple[str | int, ...]


class Row(NamedTuple):
    """Sums of [start, end), cut to what was asked. `groups` has the key's public id; `quantity` is in the
    meter's unit, None unless the rows are grouped by meter: other sums would add apples to pears."""

    start: dt.datetime
    end: dt.datetime
    groups: dict[str, str]
    calls: int
    quantity: str | None


class Page(NamedTuple):
    rows: list[Row]
    last: Position | None  # None: there is no more


def page(
    organization: Organization | int, query: Query, after: Position | None = None, *, size: int = PAGE
) -> Page:
    """The rows that follow `after`, ordered by bucket and groups; at most three queries."""
    columns = [GROUPS[group] for group in query.groups]
    rows = between(organization, query.start, query.end, query.groups)
    if after is not None:
        rows = rows.filter(hour__gte=after.bucket).filter(
            Q(hour__gte=bucket_end(after.bucket, query.bucket)) | _behind(columns, after.values)
        )
    grouped = list(
        rows.annotate(cut=cut_to(query.bucket))
        .values_list("cut", *columns)
        .annotate(calls_sum=Sum("calls"), quantity_sum=Sum("quantity"))
        .order_by("cut", *columns)[: size + 1]
    )
    shown = grouped[:size]
    names = _names({row[1] for row in shown}) if "key" in query.groups else {}
    known = meters.read() if "meter" in query.groups else {}
    last = None
    if len(grouped) > size:
        cut, *values = shown[-1][:-2]
        last = Position(moment(cut), tuple(values))
    return Page([_row(query, row, names, known) for row in shown], last)


# Any: a row of `values_list` with annotations has no type that could be named here.
def _row(query: Query, row: Any, names: Mapping[int, str], known: Mapping[str, Meter]) -> Row:
    cut, *values, calls, quantity = row
    start = moment(cut)
    groups = {
        group: names.get(value, f"unknown-{value}") if group == "key" else value
        for group, value in zip(query.groups, values, strict=True)
    }
    return Row(
        max(start, query.start),
        min(bucket_end(start, query.bucket), query.end),
        groups,
        calls,
        _in_units(known.get(groups["meter"]), quantity) if "meter" in groups else None,
    )


def _names(keys: set[int]) -> dict[int, str]:
    return dict(Key.objects.filter(pk__in=keys).values_list("pk", "public_id"))


def _in_units(meter: Meter | None, quantity: int) -> str:
    """As plain decimals; of a meter that this database has lost, smallest units."""
    return str(quantity) if meter is None else meter.as_text(quantity)


def _behind(columns: list[str], values: tuple[str | int, ...]) -> Q:
    """The rows of one bucket whose groups come after these."""
    found, same = Q(pk__in=[]), Q()
    for column, value in zip(columns, values, strict=True):
        found |= same & Q(**{f"{column}__gt": value})
        same &= Q(**{column: value})
    return found


# Any: rows of either table, of which one has the environment by an annotation.
def between(
    organization: Organization | int, start: dt.datetime, end: dt.datetime, groups: Collection[str]
) -> QuerySet[Any]:
    """The rows of [start, end) that can be grouped by these, as few as do; a single key's must be asked for
    as a group."""
    asked = {"organization": organization, "hour__gte": start, "hour__lt": end}
    if "key" not in groups:
        return OrganizationRollup.objects.filter(**asked)
    rows = Rollup.objects.filter(**asked)
    return rows.annotate(environment=environment_of_key()) if "environment" in groups else rows


def environment_of_key() -> Case:
    """Looked up once for all keys, not joined to each row; empty for a key that this database lost."""

    def of(environment: Environment) -> When:
        keys = Key.objects.filter(environment=environment).values("pk")
        return When(key_id__in=keys, then=Value(str(environment)))

    return Case(of(Environment.TEST), of(Environment.LIVE), default=Value(""), output_field=CharField())


def cut_to(bucket: str) -> Combinable:
    """The beginning of an hour's bucket. SQLite has times as text, whose beginning is it; Django's function
    for it would be called back for each row."""
    if bucket == "hour":
        return F("hour")
    if connection.vendor == "sqlite":
        return Substr("hour", 1, len("2026-06-15" if bucket == "day" else "2026-06"))
    return (TruncDay if bucket == "day" else TruncMonth)("hour", tzinfo=dt.UTC)


def moment(cut: dt.datetime | str) -> dt.datetime:
    if isinstance(cut, dt.datetime):
        return cut.astimezone(dt.UTC)
    return dt.datetime.fromisoformat(f"{cut}-01"[:10]).replace(tzinfo=dt.UTC)


def bucket_end(start: dt.datetime, bucket: str) -> dt.datetime:
    if bucket == "month":
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start + (dt.timedelta(days=1) if bucket == "day" else dt.timedelta(hours=1))
