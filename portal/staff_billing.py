"""What `/staff/billing/` shows: a month's revenue by plan, the months with their states, credits given.

It reads in a fixed number of queries and changes nothing: months are closed by command, credits are given in
the admin.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from keys.lifecycle import Conflict
from usage import reports
from usage.billing import Period, closing, money, revenue
from usage.billing.revenue import Revenue
from usage.models import ClosedPeriod, Credit, Verification

MONTHS = 12
CREDITS = 10


class MonthState(NamedTuple):
    """One row of the list of months."""

    period: Period
    closed: ClosedPeriod | None
    state: str  # closed, ready, waits, open
    text: str  # what is waited for, or to be done
    verified: Verification | None = None


class Sum(NamedTuple):
    """What a currency adds up to, over all plans."""

    currency: str
    amount: str


class CreditRow(NamedTuple):
    """A credit with its amount as text."""

    credit: Credit
    amount: str


@dataclass(frozen=True, slots=True)
class StaffBilling:
    """Everything on the page."""

    period: Period
    closed: ClosedPeriod | None
    revenue: list[Revenue]
    sums: list[Sum]
    months: list[MonthState]
    journals: Verification | None
    credits: list[CreditRow]
    complete_through: dt.datetime | None


def page(period: Period, now: dt.datetime) -> StaffBilling:
    """The page about one month that has begun."""
    rows = revenue.by_plan(period)
    totals: dict[str, int] = {}
    for row in rows:
        totals[row.currency] = totals.get(row.currency, 0) + row.total
    closed = _newest_closed()
    verified = Verification.objects.in_bulk([*map(str, closed), Verification.JOURNALS])
    given = Credit.objects.select_related("organization").order_by("-id")[:CREDITS]
    return StaffBilling(
        period=period,
        closed=next((each for each in closed if each.period == period.first_day and each.closed_at), None),
        revenue=rows,
        sums=[Sum(currency, money.as_text(amount, currency)) for currency, amount in totals.items()],
        months=_months(closed, verified, now),
        journals=verified.get(Verification.JOURNALS),
        credits=[CreditRow(each, money.as_text(each.amount, each.currency)) for each in given],
        complete_through=reports.complete_through(),
    )


def months(now: dt.datetime) -> list[MonthState]:
    """How the months stand, the newest first."""
    closed = _newest_closed()
    return _months(closed, Verification.objects.in_bulk([*map(str, closed)]), now)


def _newest_closed() -> list[ClosedPeriod]:
    return list(ClosedPeriod.objects.order_by("-period")[:MONTHS])


def _months(
    closed: list[ClosedPeriod], verified: Mapping[str, Verification], now: dt.datetime
) -> list[MonthState]:
    """The newest first: the current one, those that are over and not closed, and what is closed."""
    current = Period.of(now)
    done = [_closed(each, verified.get(str(each))) for each in closed]
    first = done[0].period.next if done else closing.first_month() or current
    over: list[MonthState] = []
    month = first
    while month < current and len(over) < MONTHS:
        waits = MonthState(month, None, "waits", f"{first} is closed first")
        over.append(_over(month, now) if month == first else waits)
        month = month.next
    return [MonthState(current, None, "open", "It is not over"), *reversed(over), *done]


def _closed(each: ClosedPeriod, verified: Verification | None) -> MonthState:
    period = Period(each.period.year, each.period.month)
    if each.closed_at is None:
        return MonthState(period, None, "waits", f"Cut, and not yet written: close_period {period}")
    return MonthState(period, each, "closed", "", verified)


def _over(period: Period, now: dt.datetime) -> MonthState:
    try:
        closing.require_closable(period, now)
    except Conflict as conflict:
        return MonthState(period, None, "waits", conflict.sentence)
    return MonthState(period, None, "ready", f"Everything is counted: close_period {period}")
