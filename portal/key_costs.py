"""What each key costs: a page of the table for the month so far, and the rows of a statement's.

The dearest come first. Nothing is priced here, and nothing written.
"""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.core.paginator import Page, Paginator

from keys.models import Organization
from portal.pages import PAGE, percent
from usage import meters, reports
from usage.billing import Period, by_key, money, terms
from usage.billing.by_key import KeySum
from usage.billing.price_words import units
from usage.meters import Meter


class KeyCost(NamedTuple):
    """One row of the table."""

    public_id: str
    name: str
    used: list[str]
    share: str  # of what all keys cost
    amount: str


@dataclass(frozen=True, slots=True)
class KeyCosts:
    """Everything on the page; the amounts are text in `currency`, which is empty without a plan."""

    period: Period
    currency: str
    total: str
    rows: list[KeyCost]
    page: Page[Any]
    complete_through: dt.datetime | None


def costs(organization: Organization, number: str | None, now: dt.datetime) -> KeyCosts:
    """The current month of all live keys, as far as it is counted, and a page of them."""
    period, known = Period.of(now), meters.read()
    complete_through = reports.complete_through()  # before the sums are read: they hold at least this much
    agreed = terms.of_period(period, organization).get(organization.pk, {})
    found = by_key.of_organization(organization, period, agreed)
    keys = dearest(found.keys) if found.currency else []
    total = sum(each.amount for _, each in keys)
    # Any: pairs of an id and its sum.
    page: Page[Any] = Paginator(keys, PAGE).get_page(number)
    return KeyCosts(
        period=period,
        currency=found.currency,
        total=money.as_text(total, found.currency) if found.currency else "",
        rows=rows(page.object_list, known, found.currency, total),
        page=page,
        complete_through=complete_through,
    )


def dearest(keys: Mapping[str, KeySum]) -> list[tuple[str, KeySum]]:
    return sorted(keys.items(), key=lambda item: (-item[1].amount, item[0]))


def rows(
    keys: Iterable[tuple[str, KeySum]], known: Mapping[str, Meter], currency: str, total: int
) -> list[KeyCost]:
    """The rows of these keys, by public id; `total` is what all of them cost, in minor units."""
    return [
        KeyCost(
            key,
            each.name,
            [
                f"{title(meter, known)}: {units(quantity, known.get(meter))}"
                for meter, quantity in sorted(each.quantities.items())
            ],
            percent(each.amount, total),
            money.as_text(each.amount, currency),
        )
        for key, each in keys
    ]


def title(meter: str, known: Mapping[str, Meter]) -> str:
    return known[meter].title if meter in known else meter
