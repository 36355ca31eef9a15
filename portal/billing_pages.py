"""What an organization's billing page shows: its plan and prices, the month so far, an estimate of its end.

It adds up the same lines as the export, so that page and file agree to the cent. It prices nothing itself
and never writes.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from keys.models import Environment, Organization
from portal.pages import QuotaRow, percent, quota_rows
from usage import billing, meters, reports
from usage.billing import Line, Period, forecast, money, plans, price_words, subscriptions, terms
from usage.billing.lines import usage
from usage.billing.price_words import PriceWords, units
from usage.meters import Meter
from usage.models import BillingAccount, Subscription

KEYS_SHOWN = 50


class BillRow(NamedTuple):
    """One row of the bill: what, how much of it in units, and the amount as text."""

    title: str
    resource: str
    about: str  # the month that a correction is of, or that it is of test keys
    quantity: str
    included: str
    amount: str
    free: bool  # listed, and never priced: test environments


class KeyCost(NamedTuple):
    """One row of the table by key."""

    public_id: str
    name: str
    used: list[str]
    share: str  # of what all keys cost
    amount: str


@dataclass(frozen=True, slots=True)
class Bill:
    """A month's lines added up; amounts are text in `currency`, and empty without one."""

    currency: str
    fee: str
    used: str
    total: str
    rows: list[BillRow]
    by_key: list[KeyCost]
    more_keys: int


@dataclass(frozen=True, slots=True)
class BillingPage:
    """Everything on the page."""

    subscription: Subscription | None
    next: Subscription | None  # which begins later
    monthly_fee: str
    prices: list[PriceWords]
    period: Period
    day: int  # of the month, how far it is counted
    days: int
    bill: Bill
    estimate: str
    quotas: list[QuotaRow]
    account: BillingAccount | None
    complete_through: dt.datetime | None


def page(organization: Organization, now: dt.datetime) -> BillingPage:
    """The current month, as far as it is counted."""
    period, known = Period.of(now), meters.read()
    agreed = terms.of_period(period, organization)
    mine = agreed.get(organization.pk, {})
    used = next((each.used for each in usage(period, agreed, organization)), []) if mine else []
    lines = list(billing.lines(period, organization))
    through = min(reports.complete_through() or now, now)
    current, later = subscriptions.now_and_next(organization, now)
    bill = add_up(lines, known, [each.currency for each in mine.values()])
    return BillingPage(
        subscription=current,
        next=later,
        monthly_fee=money.as_text(current.version.fee, current.version.currency) if current else "",
        prices=_prices(current, known) if current else [],
        period=period,
        day=through.astimezone(dt.UTC).day if through >= period.start else 1,
        days=(period.end - period.start).days,
        bill=bill,
        estimate=money.as_text(forecast.whole_month(used, mine, period, through), bill.currency)
        if bill.currency
        else "",
        quotas=quota_rows(organization, now),
        account=BillingAccount._default_manager.filter(organization=organization).first(),
        complete_through=reports.complete_through(),
    )


def _prices(subscription: Subscription, known: Mapping[str, Meter]) -> list[PriceWords]:
    version = subscription.version
    return price_words.words(map(plans.spec_of, version.prices.all()), known, version.currency)


@dataclass(slots=True)
class _Sum:
    """What is added up of the lines of one row, or of one key."""

    quantity: int = 0
    included: int = 0
    amount: int = 0
    by_meter: Counter[str] = field(default_factory=Counter)


def add_up(lines: Iterable[Line], known: Mapping[str, Meter], currencies: Iterable[str] = ()) -> Bill:
    """One organization's lines of one month as rows by what they are for, and by key."""
    currency = next(iter(currencies), "")
    rows: dict[tuple[str, bool, str, str], _Sum] = {}
    keys: dict[str, _Sum] = {}
    names: dict[str, str] = {}
    sums: Counter[str] = Counter()
    for line in lines:
        currency = currency or line.currency or ""
        amount = money.in_minor(line.amount, line.currency) if line.amount and line.currency else 0
        about = (line.resource if line.kind == "usage" else line.original_period) or ""
        test = line.environment == Environment.TEST
        each = rows.setdefault((line.kind, test, line.meter, about), _Sum())
        each.quantity += line.quantity
        each.included += line.included or 0
        each.amount += amount
        sums["fee" if line.kind == "fee" else "used"] += amount
        if line.key and not test:
            names[line.key] = line.key_name
            key = keys.setdefault(line.key, _Sum())
            key.amount += amount
            key.by_meter[line.meter] += line.quantity

    def text(amount: int) -> str:
        return money.as_text(amount, currency) if currency else ""

    of_keys = sum(each.amount for each in keys.values())
    dearest = sorted(keys.items(), key=lambda item: (-item[1].amount, item[0])) if currency else []
    return Bill(
        currency=currency,
        fee=text(sums["fee"]),
        used=text(sums["used"]),
        total=text(sums["fee"] + sums["used"]),
        rows=[
            _row(kind, meter, about, each, known, text(each.amount), free=test)
            for (kind, test, meter, about), each in sorted(rows.items(), key=lambda item: _rank(item[0]))
        ],
        by_key=[
            KeyCost(
                key,
                names[key],
                [
                    f"{_title(name, known)}: {units(quantity, known.get(name))}"
                    for name, quantity in sorted(each.by_meter.items())
                ],
                percent(each.amount, of_keys),
                text(each.amount),
            )
            for key, each in dearest[:KEYS_SHOWN]
        ],
        more_keys=max(len(dearest) - KEYS_SHOWN, 0),
    )


def _rank(row: tuple[str, bool, str, str]) -> tuple[int, bool, str, str]:
    """Fees first, then usage, tests below what is live, corrections last."""
    return (["fee", "usage", "correction"].index(row[0]), *row[1:])


def _row(
    kind: str, meter: str, about: str, each: _Sum, known: Mapping[str, Meter], amount: str, *, free: bool
) -> BillRow:
    if kind == "fee":
        return BillRow("Monthly fee", "", "", "", "", amount, free)
    if kind == "correction" and not meter:
        return BillRow("Credit", "", f"for {about}" if about else "", "", "", amount, free)
    title = _title(meter, known)
    quantity = units(each.quantity, known.get(meter))
    if kind == "correction":
        return BillRow(title, "", f"correction of {about}", quantity, "", amount, free)
    included = units(each.included, known.get(meter)) if each.included else ""
    return BillRow(title, about, "test keys, free" if free else "", quantity, included, amount, free)


def _title(meter: str, known: Mapping[str, Meter]) -> str:
    return known[meter].title if meter in known else meter
