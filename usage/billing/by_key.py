"""What each key's usage of an open month costs so far: its shares of the month's lines, without the lines.

They are the shares that `usage.billing.rating` gives them, so that all keys' together are what the lines come
to, to the minor unit. It only reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db.models import Min, QuerySet, Sum

from keys.models import Environment, Organization
from keys.verdicts import Code
from usage.billing import corrections, money, rating, statement, terms
from usage.billing.lines import Line, callers, currency_of
from usage.billing.periods import Period
from usage.billing.rating import Terms, Used
from usage.models import Rollup


@dataclass(slots=True)
class KeySum:
    """What is added up of one key: minor units, and by meter its smallest unit."""

    name: str = ""
    amount: int = 0
    quantities: dict[str, int] = field(default_factory=dict)

    def add(self, meter: str, quantity: int, amount: int) -> None:
        self.quantities[meter] = self.quantities.get(meter, 0) + quantity
        self.amount += amount


class ByKey(NamedTuple):
    """Live keys by public id; amounts in minor units of `currency`, which is empty without a plan."""

    currency: str
    keys: dict[str, KeySum]


def of_organization(organization: Organization, period: Period, agreed: Mapping[int, Terms]) -> ByKey:
    """An open month's usage so far, rated by its `agreed` terms. Two queries, and more where usage came late
    for a month that is closed."""
    rows = Rollup.objects.filter(
        organization=organization, booked_period=period.first_day, outcome=Code.VALID.name
    )
    sums = list(_sums(rows, agreed, period))
    corrected: list[Line] = []
    start = period.start
    if any(row[-1] < start for row in sums):
        sums = list(_sums(rows.filter(hour__gte=start), agreed, period))
        corrected = list(corrections.lines(period, organization, statement=statement.lines_of))
    currency = currency_of(agreed) or min((line.currency for line in corrected if line.currency), default="")
    found = _rated(organization, sums, agreed)
    for line in corrected:
        if line.key and line.environment != Environment.TEST and (line.currency or currency) == currency:
            amount = money.in_minor(line.amount, currency) if line.amount and currency else 0
            each = found.setdefault(line.key, KeySum(line.key_name))
            each.add(line.meter, line.quantity, amount)
    return ByKey(currency, found)


# Any: a row of mixed types, whose annotations no type names.
def _sums(rollups: QuerySet[Rollup], agreed: Mapping[int, Terms], period: Period) -> QuerySet[Any, Any]:
    """Of each key, meter, resource and subscription the quantity and the first hour."""
    rows = rollups.annotate(agreed=terms.in_force(agreed, period))
    grouped = rows.values("key_id", "meter", "resource", "agreed")
    sums = grouped.annotate(sum=Sum("quantity"), first=Min("hour")).order_by()
    return sums.values_list("key_id", "meter", "resource", "agreed", "sum", "first")


def _rated(
    organization: Organization, sums: Sequence[tuple[Any, ...]], agreed: Mapping[int, Terms]
) -> dict[str, KeySum]:
    named = callers({row[0] for row in sums}, organization)
    live = [
        Used(subscription, named[key].public_id, True, meter, resource, int(quantity))
        for key, meter, resource, subscription, quantity, _ in sums
        if named[key].environment != Environment.TEST
    ]
    names = {caller.public_id: caller.name for caller in named.values()}
    found: dict[str, KeySum] = {}
    for rated in rating.rate(live, agreed):
        for share in rated.shares:
            each = found.get(share.key) or found.setdefault(share.key, KeySum(names[share.key]))
            each.add(rated.meter, share.quantity, share.amount)
    return found
