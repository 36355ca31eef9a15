"""An organization's closed months and what each came to, added up by the database from frozen lines.

Amounts have all the digits of their currency, so without the point they are whole minor units, which a
database sums exactly. It reads statements only; lines are `usage.billing.statement`'s.
"""

import datetime as dt
from typing import NamedTuple

from django.db.models import BigIntegerField, Case, F, FilteredRelation, Q, Sum, Value, When
from django.db.models.functions import Cast, Replace

from keys.models import Organization
from usage.billing.periods import Period
from usage.models import ClosedPeriod


def minor(lines: str = "") -> Case:
    """The amounts of statements' lines, found by this path. One without a currency has none, or one of 0."""
    digits = Replace(F(f"{lines}amount"), Value("."), Value(""))
    return Case(
        When(**{f"{lines}currency": ""}, then=Value(0)),
        default=Cast(digits, BigIntegerField()),
        output_field=BigIntegerField(),
    )


MINOR = minor()


class Month(NamedTuple):
    """What one organization's statement of a month comes to, in minor units by currency."""

    period: Period
    closed_at: dt.datetime | None
    amounts: dict[str, int]  # none: nobody subscribed
    has_lines: bool  # of this organization


def of_organization(organization: Organization, limit: int) -> list[Month]:
    """The latest closed months, the newest first, with what its lines come to; one query."""
    closed = ClosedPeriod.objects.exclude(closed_at=None)
    mine = FilteredRelation("statement_lines", condition=Q(statement_lines__organization=organization.slug))
    rows = (
        closed.filter(pk__in=closed.order_by("-period").values("pk")[:limit])
        .annotate(mine=mine)
        .order_by("-period", "mine__currency")
        .values("period", "closed_at", "mine__currency")
        .annotate(sum=Sum(minor("mine__")))
    )
    found: dict[dt.date, Month] = {}
    for day, closed_at, currency, amount in rows.values_list("period", "closed_at", "mine__currency", "sum"):
        month = Month(Period(day.year, day.month), closed_at, {}, has_lines=currency is not None)
        month = found.setdefault(day, month)
        if currency:
            month.amounts[currency] = int(amount)
    return list(found.values())
