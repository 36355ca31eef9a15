"""What a month brings in by plan, for staff: so far while it is open, as it was billed once it is closed.

An organization's whole month counts under the plan that it was on last. Open months are rated without their
keys, which change no sum; late usage of earlier months is added when the month is closed. It only reads.
"""

from collections import Counter
from typing import NamedTuple

from django.db.models import Sum

from usage.billing import money, rating, so_far, statement, terms
from usage.billing.lines import currency_of
from usage.billing.months import MINOR
from usage.billing.periods import Period
from usage.billing.rating import Used
from usage.models import ClosedPeriod, Credit, OrganizationRollup, StatementLine


class Revenue(NamedTuple):
    """What one plan brings in, in one currency; minor units."""

    plan: str  # empty: organizations that were on none, which corrections still concern
    currency: str
    organizations: int
    fees: int
    usage: int
    corrections: int

    @property
    def total(self) -> int:
        return self.fees + self.usage + self.corrections

    @property
    def texts(self) -> dict[str, str]:
        """Each amount as text."""
        amounts = {"fees": self.fees, "usage": self.usage, "corrections": self.corrections}
        return {
            name: money.as_text(amount, self.currency)
            for name, amount in (amounts | {"total": self.total}).items()
        }


type Sums = Counter[tuple[str, str, str]]  # (organization's slug, currency, kind) → minor units


def by_plan(period: Period) -> list[Revenue]:
    """The month's revenue, in a fixed number of queries: the plan that brings in most of a currency first."""
    closed = statement.closed(period)
    sums = _open(period) if closed is None else _closed(closed)
    plans = dict(
        terms.in_period(period)
        .order_by("start", "id")  # the last one stays
        .values_list("organization__slug", "version__plan__name")
    )
    found: dict[tuple[str, str], Counter[str]] = {}
    members: dict[tuple[str, str], set[str]] = {}
    for (slug, currency, kind), amount in sums.items():
        place = plans.get(slug, ""), currency
        found.setdefault(place, Counter())[kind] += amount
        members.setdefault(place, set()).add(slug)
    rows = [
        Revenue(*place, len(members[place]), amounts["fee"], amounts["usage"], amounts["correction"])
        for place, amounts in found.items()
    ]
    return sorted(rows, key=lambda row: (row.currency, -row.total, row.plan))


def _closed(closed: ClosedPeriod) -> Sums:
    rows = StatementLine.objects.filter(closed=closed).exclude(currency="").order_by()
    sums = rows.values("organization", "currency", "kind").annotate(minor=Sum(MINOR))
    return Counter(
        {
            (slug, currency, kind): int(minor)
            for slug, currency, kind, minor in sums.values_list("organization", "currency", "kind", "minor")
        }
    )


def _open(period: Period) -> Sums:
    agreed = terms.of_period(period)
    names = dict(terms.in_period(period).values_list("organization_id", "organization__slug"))
    used: dict[int, list[Used]] = {}
    rows = OrganizationRollup.objects.filter(booked_period=period.first_day, hour__gte=period.start)
    for row in so_far.live_usage(rows):
        each = so_far.as_used(row)
        if each.subscription is not None:
            used.setdefault(row[0], []).append(each)
    sums: Sums = Counter()
    for organization, mine in agreed.items():
        slug, currency = names[organization], currency_of(mine) or ""
        sums[slug, currency, "fee"] += sum(
            fee.amount for each in mine.values() if (fee := rating.fee(each, period))
        )
        sums[slug, currency, "usage"] += sum(
            each.amount for each in rating.rate(used.get(organization, []), mine)
        )
    credits = Credit.objects.filter(booked_period=period.first_day).order_by()
    for slug, currency, amount in credits.values_list("organization__slug", "currency", "amount"):
        sums[slug, currency, "correction"] -= amount
    return sums
