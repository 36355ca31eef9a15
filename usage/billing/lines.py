"""A month's statement: what is billed, line by line, from the roll-ups.

`lines` alone decides what a bill counts: accepted calls (never refused ones), of both environments, in the
month that they were booked to. It reads; it neither drains nor rounds, and it never sums anything but
integers.
"""

from collections.abc import Iterator, Mapping
from itertools import batched, groupby
from operator import itemgetter
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import CharField, F, FilteredRelation, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Cast, Coalesce, Collate, Concat

from keys.models import Environment, Key, Organization
from keys.verdicts import Code
from usage import meters
from usage.billing import money, rating, terms
from usage.billing.periods import Period
from usage.billing.rating import Fee, Rated, Share, Terms, Used
from usage.meters import Meter
from usage.models import Rollup

CHUNK = 2000  # rows fetched at once
FEE_UNIT = "s"


class Line(NamedTuple):
    """One line of a statement: the columns of the billing export, in their order; None has no value.

    Quantities are in the meter's smallest unit here, and in units once `usage.exports` has written them. The
    resource is the price's, where the usage has a price: empty where one price is for all resources.
    """

    period: str
    organization: str
    organization_name: str
    external_customer: str | None
    key: str
    key_name: str
    environment: str
    meter: str
    resource: str | None
    unit: str | None
    tier: str | None
    quantity: int
    included: int | None
    billable: int
    unit_price: str | None
    amount: str | None
    currency: str | None
    kind: str
    original_period: str | None


class Caller(NamedTuple):
    """A key as lines name it."""

    public_id: str
    name: str
    environment: str


class Billed(NamedTuple):
    """One organization's usage of a period, before it is rated, and how lines name it and its keys."""

    slug: str
    organization_id: int
    organization: Organization | None  # None where only roll-ups know it (a restored database)
    used: list[Used]
    callers: dict[str, Caller]  # by public id


def lines(period: Period, organization: Organization | None = None) -> Iterator[Line]:
    """The lines of the period's own usage and fees, in order of their columns as text, by code points.

    Usage is priced by the subscription in force in its hour. In a month in which nobody subscribes there are
    no prices, and their columns are empty. All is streamed, one organization at a time, from one query.
    """
    known = meters.read()
    agreed = terms.of_period(period, organization)
    priced = bool(agreed) or terms.in_period(period).exists()
    for billed in usage(period, agreed, organization):
        yield from sorted(
            _of_organization(period, billed, agreed.get(billed.organization_id, {}), known, priced=priced),
            key=lambda line: order(line, known),
        )


def usage(
    period: Period, agreed: Mapping[int, Mapping[int, Terms]], organization: Organization | None = None
) -> Iterator[Billed]:
    """What each organization used in the period's own hours and was booked to it, in order of their slugs;
    those that have only a subscription (`agreed`, as `terms.of_period` has it) are there without usage."""
    idle = Organization.objects.in_bulk(list(agreed))
    waiting = sorted(idle.values(), key=lambda each: each.slug, reverse=True)
    rows = Rollup.objects.filter(booked_period=period.first_day, hour__gte=period.start)
    if organization is not None:
        rows = rows.filter(organization=organization)
    for billed in used_in(rows):
        while waiting and waiting[-1].slug <= billed.slug:
            without = waiting.pop()
            if without.slug != billed.slug:
                yield Billed(without.slug, without.pk, without, [], {})
        yield billed
    for without in reversed(waiting):
        yield Billed(without.slug, without.pk, without, [], {})


def used_in(rows: QuerySet[Rollup]) -> Iterator[Billed]:
    """What each organization used by these roll-ups, in order of their slugs; refused calls never count."""
    for (slug, organization_id), group in groupby(_rows(rows), key=itemgetter("slug", "organization_id")):
        yield _billed(slug, organization_id, group)


def order(line: Line, known: Mapping[str, Meter]) -> tuple[str, ...]:
    """What lines are sorted by: their columns as text, quantities in units."""
    meter = known.get(line.meter)
    quantities = [
        "" if each is None else meter.as_text(each) if meter else str(each)
        for each in (line.quantity, line.included, line.billable)
    ]
    head = (line.organization, line.key, line.environment, line.meter, line.resource or "", line.tier or "")
    rest = (line.unit_price, line.amount, line.currency, line.kind, line.original_period)
    return (*head, *quantities, *(each or "" for each in rest))


def currency_of(agreed: Mapping[int, Terms]) -> str | None:
    """The one currency of an organization in a period, given its terms; None without a subscription."""
    return next((each.currency for each in agreed.values()), None)


def _of_organization(
    period: Period, billed: Billed, agreed: Mapping[int, Terms], known: Mapping[str, Meter], *, priced: bool
) -> Iterator[Line]:
    currency = currency_of(agreed)
    for each in agreed.values():
        if (fee := rating.fee(each, period)) is not None:
            yield _fee_line(period, billed, fee, each.currency)
    for rated in rating.rate(billed.used, agreed):
        for share in rated.shares:
            yield _usage_line(period, billed, rated, share, currency, known, priced=priced)


def _fee_line(period: Period, billed: Billed, fee: Fee, currency: str) -> Line:
    return blank(period, billed)._replace(
        unit=FEE_UNIT,
        quantity=fee.seconds,
        billable=fee.seconds,
        unit_price=money.as_text(fee.monthly, currency),
        amount=money.as_text(fee.amount, currency),
        currency=currency,
        kind="fee",
    )


def _usage_line(
    period: Period,
    billed: Billed,
    rated: Rated,
    share: Share,
    currency: str | None,
    known: Mapping[str, Meter],
    *,
    priced: bool,
) -> Line:
    caller, meter = billed.callers[share.key], known.get(rated.meter)
    line = blank(period, billed)._replace(
        key=caller.public_id,
        key_name=caller.name,
        environment=caller.environment,
        meter=rated.meter,
        resource=rated.resource or None,
        unit=meter.unit if meter else None,
        quantity=share.quantity,
        billable=share.billable,
    )
    if not priced:
        return line
    return line._replace(
        tier=rated.tier or None,
        included=share.included,
        unit_price=money.plain(rated.unit_price),
        amount=money.as_text(share.amount, currency) if currency else "0",
        currency=currency,
    )


def blank(period: Period, billed: Billed) -> Line:
    """A line of this organization, still without what it is about."""
    known = billed.organization
    return Line(
        period=str(period),
        organization=billed.slug,
        organization_name=known.name if known else "",
        external_customer=(known.external_customer or None) if known else None,
        key="",
        key_name="",
        environment="",
        meter="",
        resource=None,
        unit=None,
        tier=None,
        quantity=0,
        included=None,
        billable=0,
        unit_price=None,
        amount=None,
        currency=None,
        kind="usage",
        original_period=None,
    )


# Any: a row of `values()` with annotations has no type that could be named here.
def _billed(slug: str, organization_id: int, rows: Iterator[Any]) -> Billed:
    billed = Billed(slug, organization_id, None, [], {})
    names: dict[str, str] = {}  # one text for each, not one a row
    for row in rows:
        key = row["key"]
        public_id = row["public_id"]
        if public_id not in billed.callers:
            billed.callers[public_id] = Caller(
                public_id, key.name if key else "", key.environment if key else ""
            )
        caller = billed.callers[public_id]
        billed.used.append(
            Used(
                row["subscription"],
                caller.public_id,
                caller.environment != Environment.TEST,
                names.setdefault(row["meter"], row["meter"]),
                names.setdefault(row["resource"], row["resource"]),
                row["quantity"],
            )
        )
        organization = row["organization"]
    return billed._replace(organization=organization)


def with_subscription(rollups: QuerySet[Rollup]) -> QuerySet[Rollup]:
    """Roll-ups joined, as `in_force`, with their organization's subscription in their hour."""
    running = Q(organization__subscriptions__end=None) | Q(organization__subscriptions__end__gt=F("hour"))
    return rollups.annotate(
        in_force=FilteredRelation(
            "organization__subscriptions",
            condition=Q(organization__subscriptions__start__lte=F("hour")) & running,
        )
    )


def _rows(rollups: QuerySet[Rollup]) -> Iterator[Any]:  # Any: as above
    """Sums by organization, key, meter, resource and subscription, with the organization and key as rows."""
    grouped = (
        with_subscription(rollups.filter(outcome=Code.VALID.name))
        .values("organization_id", "key_id", "meter", "resource", subscription=F("in_force__id"))
        .annotate(quantity=Sum("quantity"))
        # Looked up for each line, not joined to each row; and a key that this database lost (restored
        # from a backup older than the journals) keeps its line.
        .annotate(
            slug=_name_of("organization_id", Organization, "slug"),
            public_id=_name_of("key_id", Key, "public_id"),
        )
        .order_by(_as_bytes("slug"), _as_bytes("public_id"))
    )
    for chunk in batched(grouped.iterator(chunk_size=CHUNK), CHUNK):
        organizations = Organization.objects.in_bulk({row["organization_id"] for row in chunk})
        keys = Key.objects.in_bulk({row["key_id"] for row in chunk})
        for row in chunk:
            yield row | {
                "organization": organizations.get(row["organization_id"]),
                "key": keys.get(row["key_id"]),
            }


def _name_of(reference: str, model: type[Organization | Key], field: str) -> Coalesce:
    """The row's public name, or `unknown-<primary key>`."""
    named = Subquery(model._default_manager.filter(pk=OuterRef(reference)).values(field))
    unknown = Concat(Value("unknown-"), Cast(reference, CharField()))
    return Coalesce(named, unknown, output_field=CharField())


def _as_bytes(field: str) -> Collate:
    """Order by code points, whatever the database's locale: the same file on every machine."""
    return Collate(F(field), "C" if connection.vendor == "postgresql" else "BINARY")
