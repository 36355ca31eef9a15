"""An organization's closed months and what each came to, added up by the database from frozen lines.

Amounts have all the digits of their currency, so without the point they are whole minor units, which a
database sums exactly. It reads statements only; lines are `usage.billing.statement`'s.
"""

import datetime as dt
from typing import NamedTuple

from django.db.models import BigIntegerField, Case, F, Sum, Value, When
from django.db.models.functions import Cast, Replace

from keys.models import Organization
from usage.billing.periods import Period
from usage.models import ClosedPeriod, StatementLine

# A line without a currency has no amount, or one of 0.
MINOR = Case(
    When(currency="", then=Value(0)),
    default=Cast(Replace(F("amount"), Value("."), Value("")), BigIntegerField()),
    output_field=BigIntegerField(),
)


class Month(NamedTuple):
    """What one organization's statement of a month comes to, in minor units by currency."""

    period: Period
    closed_at: dt.datetime | None
    amounts: dict[str, int]  # none: nobody subscribed


def of_organization(organization: Organization, limit: int) -> list[Month]:
    """Its latest closed months, the newest first, without those of which it has no line. Two queries."""
    closed = dict(ClosedPeriod.objects.exclude(closed_at=None).values_list("period", "closed_at")[:limit])
    rows = StatementLine.objects.filter(closed__in=list(closed), organization=organization.slug)
    sums = rows.order_by("-closed", "currency").values("closed", "currency").annotate(minor=Sum(MINOR))
    found: dict[dt.date, Month] = {}
    for day, currency, minor in sums.values_list("closed", "currency", "minor"):
        month = found.setdefault(day, Month(Period(day.year, day.month), closed[day], {}))
        if currency:
            month.amounts[currency] = int(minor)
    return list(found.values())
