"""A month's statement: what is billed, line by line, from the roll-ups.

`lines` alone decides what a bill counts: accepted calls (never refused ones), of both environments, in the
month that they were booked to. It reads; it neither drains nor rounds, and it never sums anything but
integers.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import batched
from typing import NamedTuple

from django.db.models import Count, F, FilteredRelation, Q, QuerySet, Sum

from keys.models import Environment, Key, Organization
from keys.verdicts import Code
from usage import meters
from usage.billing import money, rating, terms
from usage.billing.periods import Period
from usage.billing.rating import Fee, Rated, Share, Terms, Used
from usage.meters import Meter
from usage.models import OrganizationRollup, Rollup

CHUNK = 2000  # rows fetched at once
_GROUP = ("organization_id", "key_id", "meter", "resource")
ROWS = 100_000  # roll-ups of organizations that are summed at once, if one has not more
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
    no prices, and their columns are empty. All is streamed, some organizations at a time.
    """
    known = meters.read()
    agreed = terms.of_period(period, organization)
    priced = bool(agreed) or terms.in_period(period).exists()
    for billed in usage(period, agreed, organization):
        yield from sorted(
            of_billed(period, billed, agreed.get(billed.organization_id, {}), known, priced=priced),
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


def used_in(rollups: QuerySet[Rollup]) -> Iterator[Billed]:
    """What each organization used by these roll-ups, in order of their slugs; refused calls never count."""
    rollups = rollups.filter(outcome=Code.VALID.name)
    sizes = dict(rollups.values_list("organization_id").annotate(rows=Count("*")).order_by())
    slugs = dict(Organization.objects.filter(pk__in=sizes).values_list("pk", "slug"))
    # A key or organization that this database lost (restored from a backup older than the journals) keeps its
    # lines.
    named = sorted((slugs.get(pk, f"unknown-{pk}"), pk) for pk in sizes)
    some: list[tuple[str, int]] = []
    rows = 0
    for each in named:
        rows += sizes[each[1]]
        if some and rows > ROWS:
            yield from _used_by(some, rollups)
            some, rows = [], sizes[each[1]]
        some.append(each)
    if some:
        yield from _used_by(some, rollups)


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


def named(line: Line | None) -> str:
    """Which line, for people."""
    if line is None:
        return "none"
    words = (line.organization, line.key, line.environment, line.meter, line.resource, line.kind)
    return " ".join(word for word in words if word)


def currency_of(agreed: Mapping[int, Terms]) -> str | None:
    """The one currency of an organization in a period, given its terms; None without a subscription."""
    return next((each.currency for each in agreed.values()), None)


def of_billed(
    period: Period, billed: Billed, agreed: Mapping[int, Terms], known: Mapping[str, Meter], *, priced: bool
) -> Iterator[Line]:
    """One organization's lines in no order: its fees, and its usage as its terms have it."""
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


def _used_by(named: Sequence[tuple[str, int]], rollups: QuerySet[Rollup]) -> Iterator[Billed]:
    """The same of some organizations, given by slug and primary key in that order."""
    known = Organization.objects.in_bulk([pk for _, pk in named])
    found = {pk: Billed(slug, pk, known.get(pk), [], {}) for slug, pk in named}
    names: dict[str, str] = {}  # one text for each, not one a row
    for chunk in batched(_sums(rollups, known.keys(), found.keys() - known.keys()), CHUNK):
        keys = callers({row[1] for row in chunk})
        for organization, key, meter, resource, subscription, quantity in chunk:
            caller = keys[key]
            billed = found[organization]
            caller = billed.callers.setdefault(caller.public_id, caller)
            billed.used.append(
                Used(
                    subscription,
                    caller.public_id,
                    caller.environment != Environment.TEST,
                    names.setdefault(meter, meter),
                    names.setdefault(resource, resource),
                    quantity,
                )
            )
    yield from found.values()


def callers(pks: Collection[int], organization: Organization | None = None) -> dict[int, Caller]:
    """These keys (by primary key) as lines name them; those that were lost, too. All are of one
    `organization` where it is given, which finds many sooner."""
    keys = Key.objects.filter(pk__in=pks) if organization is None else organization.keys.at_least(pks)
    found = {pk: Caller(*facts) for pk, *facts in keys.values_list("pk", "public_id", "name", "environment")}
    return {pk: found.get(pk) or Caller(f"unknown-{pk}", "", "") for pk in pks}


def with_subscription[R: (Rollup, OrganizationRollup)](rollups: QuerySet[R]) -> QuerySet[R]:
    """Roll-ups, with or without keys, joined, as `in_force`, with their organization's subscription then."""
    running = Q(organization__subscriptions__end=None) | Q(organization__subscriptions__end__gt=F("hour"))
    return rollups.annotate(
        in_force=FilteredRelation(
            "organization__subscriptions",
            condition=Q(organization__subscriptions__start__lte=F("hour")) & running,
        )
    )


type _Sum = tuple[int, int, str, str, int | None, int]


def _sums(rollups: QuerySet[Rollup], organizations: Collection[int], lost: Collection[int]) -> Iterator[_Sum]:
    """Quantities by organization, key, meter, resource and subscription. Their names are looked up apart: in
    this query the database would do so for each of its rows. Who is lost has no subscriptions to join."""
    grouped = (
        with_subscription(rollups.filter(organization__in=organizations))
        .values_list(*_GROUP, "in_force__id")
        .annotate(sum=Sum("quantity"))
        .order_by(*_GROUP)
    )
    yield from grouped.iterator(chunk_size=CHUNK)
    if lost:
        rows = rollups.filter(organization__in=lost).values_list(*_GROUP).annotate(sum=Sum("quantity"))
        for *group, quantity in rows.order_by(*_GROUP).iterator(chunk_size=CHUNK):
            yield *group, None, quantity
