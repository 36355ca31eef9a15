"""What an organization's billing pages show: its plan and prices, the month so far with an estimate of its
end, and the statements of months that are closed.

They add up the same lines as the export, so that page and file agree to the cent. Nothing is priced here, and
nothing written.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from keys.models import Environment, Organization
from portal import key_costs
from portal.key_costs import KeyCost
from portal.pages import QuotaRow, quota_rows
from usage import meters
from usage.billing import (
    Line,
    Period,
    accounts,
    forecast,
    money,
    months,
    plans,
    price_words,
    so_far,
    statement,
    subscriptions,
    terms,
)
from usage.billing.by_key import KeySum
from usage.billing.lines import currency_of
from usage.billing.price_words import PriceWords, units
from usage.billing.rating import Terms
from usage.billing.so_far import Booked, Month
from usage.billing.statement import Totals
from usage.exports import FORMATS
from usage.meters import Meter
from usage.models import BillingDetails, ClosedPeriod, Credit, Subscription

KEYS_PRINTED = 500
MONTHS_SHOWN = 36


class BillRow(NamedTuple):
    """One row of the bill: what, how much of it in units, and amounts as text."""

    title: str
    resource: str
    about: str  # the month that a correction is of, or that it is of test keys
    tier: str  # where rows are by tier
    quantity: str
    included: str
    unit_price: str  # as above
    amount: str
    free: bool  # listed, and never priced: test environments


@dataclass(frozen=True, slots=True)
class Bill:
    """A month's lines added up; amounts are text in `currency`, and empty without one."""

    currency: str
    fee: str
    used: str
    corrected: int  # of `used`, in minor units
    total: str
    others: list[str]  # what corrections of months in other currencies come to, with the currency
    rows: list[BillRow]
    by_key: list[KeyCost]
    more_keys: int


class MonthRow(NamedTuple):
    """One row of the list of statements."""

    period: Period
    closed_at: dt.datetime | None  # None: it is over, and not closed yet
    amounts: list[str]  # with their currencies


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
    account: BillingDetails | None
    credits: list[Credit]
    months: list[MonthRow]
    complete_through: dt.datetime | None


@dataclass(frozen=True, slots=True)
class StatementPage:
    """One closed month of one organization, to be read on paper too."""

    period: Period
    statement: ClosedPeriod
    bill: Bill
    account: BillingDetails | None
    credits: list[Credit]
    sha256: str  # of the organization's own CSV
    lines: int


class Row(NamedTuple):
    """What the lines of one row have in common."""

    kind: str
    test: bool
    meter: str
    about: str
    tier: str
    unit_price: str
    currency: str


@dataclass(frozen=True, slots=True)
class _Account:
    """What is known of an organization before its months are rated, each thing read once."""

    organization: Organization
    known: Mapping[str, Meter]
    subscriptions: list[Subscription]  # of some open months, and later ones
    credits: list[Credit]  # which these months carry
    booked: Mapping[Period, Booked]  # what was used in each of them

    @classmethod
    def of(cls, organization: Organization, months: Sequence[Period], known: Mapping[str, Meter]) -> Self:
        """Four queries."""
        since = min(each.start for each in months)
        return cls(
            organization,
            known,
            terms.since(organization, since),
            _credits(organization, months),
            so_far.booked_to(organization, months),
        )

    def terms_in(self, period: Period) -> dict[int, Terms]:
        return terms.among(self.subscriptions, period)

    def credits_in(self, period: Period) -> list[Credit]:
        return [each for each in self.credits if each.booked_period == period.first_day]

    def month(self, period: Period) -> Month:
        mine, credits = self.terms_in(period), self.credits_in(period)
        return so_far.lines_of(self.organization, period, self.booked[period], mine, credits, self.known)

    def bill(self, month: Month, period: Period) -> Bill:
        return add_up(month.lines, self.known, currency_of(self.terms_in(period)) or "")


def page(organization: Organization, now: dt.datetime) -> BillingPage:
    """The current month, as far as it is counted, and the statements of earlier ones."""
    period, known = Period.of(now), meters.read()
    billed_to, complete_through = accounts.billed_to_now(organization)
    through = min(complete_through or now, now)
    closed = months.of_organization(organization, MONTHS_SHOWN)
    waits = all(each.period != period.previous for each in closed)  # the last month, to be closed
    account = _Account.of(organization, [period.previous, period] if waits else [period], known)
    mine, month = account.terms_in(period), account.month(period)
    bill = account.bill(month, period)
    current, later = subscriptions.among(account.subscriptions, now)
    return BillingPage(
        subscription=current,
        next=later,
        monthly_fee=money.as_text(current.version.fee, current.version.currency) if current else "",
        prices=_prices(current, known) if current else [],
        period=period,
        day=through.astimezone(dt.UTC).day if through >= period.start else 1,
        days=(period.end - period.start).days,
        bill=bill,
        estimate=money.as_text(
            forecast.whole_month(month.used, mine, period, through) + bill.corrected, bill.currency
        )
        if bill.currency
        else "",
        quotas=quota_rows(organization, now),
        account=billed_to,
        credits=account.credits_in(period),
        months=[*(_waiting(account, period.previous) if waits else []), *_statements(closed)],
        complete_through=complete_through,
    )


def bill_of(organization: Organization, period: Period, known: Mapping[str, Meter]) -> Bill:
    """A month as it was billed, or, while it is open, as it stands; then without its keys."""
    closed = statement.closed(period)
    if closed is not None:
        return add_up(statement.frozen(closed, organization), known)
    account = _Account.of(organization, [period], known)
    return account.bill(account.month(period), period)


class Own(NamedTuple):
    """What is one organization's of a closed month."""

    closed: ClosedPeriod
    lines: list[Line]
    totals: Totals
    csv: bytes  # as the export has it


def own_statement(organization: Organization, period: Period) -> Own | None:
    """The organization's lines of a month; None if the month is not closed, or has nothing of it."""
    closed = statement.closed(period)
    if closed is None:
        return None
    totals = Totals()
    lines = list(totals.of(statement.frozen(closed, organization)))
    return Own(closed, lines, totals, b"".join(totals.through(FORMATS["csv"](lines)))) if lines else None


def currency(organization: Organization, now: dt.datetime) -> str:
    """What the current month is billed in; empty without a plan."""
    return currency_of(terms.of_period(Period.of(now), organization).get(organization.pk, {})) or ""


def statement_page(organization: Organization, period: Period) -> StatementPage | None:
    """The statement to be read; None as above."""
    own = own_statement(organization, period)
    if own is None:
        return None
    return StatementPage(
        period=period,
        statement=own.closed,
        bill=add_up(own.lines, meters.read(), by_tier=True),
        account=accounts.billed_to(organization, own.closed),
        credits=_credits(organization, [period]),
        sha256=own.totals.sha256.hexdigest(),
        lines=own.totals.lines,
    )


def manifest(organization: Organization, period: Period) -> dict[str, Any] | None:
    """What stands beside the organization's CSV; None as above."""
    own = own_statement(organization, period)
    if own is None:
        return None
    return statement.manifest(period, own.closed, None, own.totals, organization)


def _credits(organization: Organization, months: Sequence[Period]) -> list[Credit]:
    """What is credited on these months' bills, with the reasons."""
    rows = organization.credits.filter(booked_period__in=[each.first_day for each in months])
    return list(rows.order_by("given_at", "id"))


def _waiting(account: _Account, last: Period) -> list[MonthRow]:
    """The last month while it is not closed yet, if there is anything in it."""
    bill = account.bill(account.month(last), last)
    amounts = [f"{bill.total} {bill.currency}"] if bill.currency else []
    return [MonthRow(last, None, [*amounts, *bill.others])] if bill.rows else []


def _statements(closed: Iterable[months.Month]) -> list[MonthRow]:
    return [
        MonthRow(
            each.period,
            each.closed_at,
            [f"{money.as_text(amount, currency)} {currency}" for currency, amount in each.amounts.items()],
        )
        for each in closed
        if each.has_lines
    ]


def _prices(subscription: Subscription, known: Mapping[str, Meter]) -> list[PriceWords]:
    version = subscription.version
    return price_words.words(map(plans.spec_of, version.prices.all()), known, version.currency)


@dataclass(slots=True)
class _Sum:
    """What is added up of the lines of one row."""

    quantity: int = 0
    included: int = 0
    amount: int = 0


def add_up(
    lines: Iterable[Line],
    known: Mapping[str, Meter],
    currency: str = "",
    *,
    keys_shown: int = KEYS_PRINTED,
    by_tier: bool = False,
) -> Bill:
    """One organization's lines of one month as rows by what they are for, and by key. Corrections may be of
    months in other currencies: those are added up apart."""
    lines = list(lines)
    currency = currency or _currency(lines)
    rows: dict[Row, _Sum] = {}
    keys: dict[str, KeySum] = {}
    sums: Counter[tuple[str, str]] = Counter()
    for line in lines:
        amount = money.in_minor(line.amount, line.currency) if line.amount and line.currency else 0
        row = _row_of(line, line.currency or currency, by_tier=by_tier)
        each = rows.setdefault(row, _Sum())
        each.quantity += line.quantity
        each.included += line.included or 0
        each.amount += amount
        sums[row.currency, line.kind] += amount
        if line.key and line.environment != Environment.TEST and row.currency == currency:
            keys.setdefault(line.key, KeySum(line.key_name)).add(line.meter, line.quantity, amount)

    def text(amount: int) -> str:
        return money.as_text(amount, currency) if currency else ""

    fee, corrected = sums[currency, "fee"], sums[currency, "correction"]
    used = sums[currency, "usage"] + corrected
    of_keys = sum(each.amount for each in keys.values())
    dearest = key_costs.dearest(keys) if currency else []
    return Bill(
        currency=currency,
        fee=text(fee),
        used=text(used),
        corrected=corrected,
        total=text(fee + used),
        others=[
            f"{money.as_text(amount, other)} {other}"
            for (other, _), amount in sorted(sums.items())
            if other != currency
        ],
        rows=[
            _shown(row, each, known, text(each.amount) if row.currency == currency else _foreign(row, each))
            for row, each in sorted(rows.items(), key=lambda item: _rank(item[0]))
        ],
        by_key=key_costs.rows(dearest[:keys_shown], known, currency, of_keys),
        more_keys=max(len(dearest) - keys_shown, 0),
    )


def _currency(lines: Iterable[Line]) -> str:
    """What the month itself is billed in, or else what a correction is."""
    found = [(line.kind == "correction", line.currency) for line in lines if line.currency]
    return min(found)[1] if found else ""


def _foreign(row: Row, each: _Sum) -> str:
    return f"{money.as_text(each.amount, row.currency)} {row.currency}"


def _row_of(line: Line, currency: str, *, by_tier: bool) -> Row:
    return Row(
        kind=line.kind,
        test=line.environment == Environment.TEST,
        meter=line.meter,
        about=(line.resource if line.kind == "usage" else line.original_period) or "",
        tier=(line.tier or "") if by_tier else "",
        unit_price=(line.unit_price or "") if by_tier else "",
        currency=currency,
    )


def _rank(row: Row) -> tuple[int, bool, str, str, int, str, str]:
    """Fees first, then usage, tests below what is live, corrections last."""
    kind = ["fee", "usage", "correction"].index(row.kind)
    return (kind, row.test, row.meter, row.about, int(row.tier or 0), row.unit_price, row.currency)


def _shown(row: Row, each: _Sum, known: Mapping[str, Meter], amount: str) -> BillRow:
    title, about, quantity = key_costs.title(row.meter, known), "", units(each.quantity, known.get(row.meter))
    match row.kind:
        case "fee":
            title, quantity = "Monthly fee", ""
            hours = each.quantity // 3600
            about = f"for {hours} hour{'s' * (hours != 1)} of the month" if row.unit_price else ""
        case "correction":
            title = title if row.meter else "Credit"
            about = f"correction of {row.about}" if row.meter else f"for {row.about}" if row.about else ""
            quantity = quantity if row.meter else ""
        case _ if row.test:
            about = "by test keys, free"
    return BillRow(
        title=title,
        resource=row.about if row.kind == "usage" else "",
        about=about,
        tier=row.tier,
        quantity=quantity,
        included=units(each.included, known.get(row.meter)) if each.included else "",
        unit_price="" if row.test else row.unit_price,
        amount=amount,
        free=row.test,
    )
