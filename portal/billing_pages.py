"""What an organization's billing page shows: its plan, the month so far by meter and by key, an estimate.

It adds up the same lines as the export, so that page and file agree to the cent. It prices nothing itself
and never writes.
"""

import datetime as dt
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from keys.models import Organization
from usage import billing, meters, reports
from usage.billing import Line, Period, money, subscriptions, terms
from usage.meters import Meter
from usage.models import Subscription

KEYS_SHOWN = 50


class MeterCost(NamedTuple):
    """One row of the table by meter; quantities in units, the amount as text."""

    title: str
    resource: str
    quantity: str
    included: str
    amount: str


class KeyCost(NamedTuple):
    """One row of the table by key."""

    public_id: str
    name: str
    amount: str


@dataclass(frozen=True, slots=True)
class BillingPage:
    """Everything on the page; amounts are text in `currency`, and empty without a subscription."""

    subscription: Subscription | None
    next: Subscription | None  # which begins later
    period: Period
    currency: str
    monthly_fee: str
    fee: str  # of the whole month
    used: str
    total: str
    estimate: str
    by_meter: list[MeterCost]
    by_key: list[KeyCost]
    more_keys: int
    complete_through: dt.datetime | None


def page(organization: Organization, now: dt.datetime) -> BillingPage:
    """The current month, as far as it is counted."""
    period, known = Period.of(now), meters.read()
    agreed = terms.of_period(period, organization).get(organization.pk, {})
    currency = next((each.currency for each in agreed.values()), "")
    lines = list(billing.lines(period, organization))
    through = reports.complete_through()
    current = subscriptions.in_force(organization, now)
    fee = sum(_minor(line, currency) for line in lines if line.kind == "fee")
    used = sum(_minor(line, currency) for line in lines if line.kind != "fee")
    first = max([period.start, *([min(each.start for each in agreed.values())] if agreed else [])])
    keys = _by_key(lines, currency)
    upcoming = organization.subscriptions.filter(start__gt=now, end=None)

    def text(amount: int) -> str:
        return money.as_text(amount, currency) if currency else ""

    return BillingPage(
        subscription=current,
        next=upcoming.select_related("version__plan").first(),
        period=period,
        currency=currency,
        monthly_fee=money.as_text(current.version.fee, current.version.currency) if current else "",
        fee=text(fee),
        used=text(used),
        total=text(fee + used),
        estimate=text(fee + estimate(used, first, min(through or now, now), period.end)),
        by_meter=_by_meter(lines, known, currency),
        by_key=keys[:KEYS_SHOWN],
        more_keys=max(len(keys) - KEYS_SHOWN, 0),
        complete_through=through,
    )


def estimate(used: int, start: dt.datetime, through: dt.datetime, end: dt.datetime) -> int:
    """What usage comes to by `end` if it goes on as from `start` through `through`; minor units. Until an
    hour has passed, what it is now."""
    elapsed, whole = int((through - start).total_seconds()), int((end - start).total_seconds())
    return used if elapsed < 3600 else money.half_even(used * whole, elapsed)


def _minor(line: Line, currency: str) -> int:
    return money.in_minor(line.amount, currency) if line.amount and line.currency else 0


def _by_meter(lines: list[Line], known: Mapping[str, Meter], currency: str) -> list[MeterCost]:
    sums: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        if line.kind == "usage":
            row = sums.setdefault((line.meter, line.resource or ""), [0, 0, 0])
            row[0] += line.quantity
            row[1] += line.included or 0
            row[2] += _minor(line, currency)
    return [
        MeterCost(
            title=known[name].title if name in known else name,
            resource=resource,
            quantity=_units(quantity, known.get(name)),
            included=_units(included, known.get(name)),
            amount=money.as_text(amount, currency) if currency else "",
        )
        for (name, resource), (quantity, included, amount) in sorted(sums.items())
    ]


def _units(quantity: int, meter: Meter | None) -> str:
    return meter.as_text(quantity) if meter else str(quantity)


def _by_key(lines: list[Line], currency: str) -> list[KeyCost]:
    """The dearest first; keys that cost nothing are left out."""
    names = {line.key: line.key_name for line in lines if line.key}
    amounts: Counter[str] = Counter()
    for line in lines:
        if line.key:
            amounts[line.key] += _minor(line, currency)
    return [
        KeyCost(key, names[key], money.as_text(amount, currency))
        for key, amount in sorted(amounts.items(), key=lambda item: (-item[1], item[0]))
        if amount
    ]
