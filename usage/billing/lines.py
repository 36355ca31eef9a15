"""A month's statement: what is billed, line by line, from the roll-ups.

`lines` alone decides what a bill counts: accepted calls (never refused ones), of both environments, in the
month that they were booked to. It reads; it neither drains nor rounds, and it never sums anything but
integers.
"""

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import batched
from typing import Any, NamedTuple, Self

from django.db import connection
from django.db.models import CharField, F, OuterRef, Subquery, Sum, Value
from django.db.models.functions import Cast, Coalesce, Collate, Concat

from keys.models import Environment, Key, Organization
from keys.verdicts import Code
from usage import meters
from usage.meters import Meter
from usage.models import Rollup

CHUNK = 2000  # lines fetched at once
_PERIOD = re.compile(r"([0-9]{4})-([0-9]{2})", re.ASCII)


class Period(NamedTuple):
    """A calendar month in UTC."""

    year: int
    month: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """`YYYY-MM`. Raises ValueError with a sentence that can be shown."""
        match = _PERIOD.fullmatch(text)
        if match is None or not 1 <= int(match[2]) <= 12 or not 2000 <= int(match[1]) <= 9000:
            raise ValueError(f"{text[:40]!r} is not a month; write it as 2026-01")
        return cls(int(match[1]), int(match[2]))

    @property
    def first_day(self) -> dt.date:
        return dt.date(self.year, self.month, 1)

    @property
    def start(self) -> dt.datetime:
        return dt.datetime(self.year, self.month, 1, tzinfo=dt.UTC)

    @property
    def end(self) -> dt.datetime:
        """The first moment that is not in it."""
        return dt.datetime(self.year + self.month // 12, self.month % 12 + 1, 1, tzinfo=dt.UTC)

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}"


class Line(NamedTuple):
    """One line of a statement: the columns of the billing export, in their order; None has no value.

    Quantities are in the meter's smallest unit here, and in units once `usage.exports` has written them.
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


def lines(period: Period, organization: Organization | None = None) -> Iterator[Line]:
    """The period's lines, one for each organization, key, meter and resource, in order of these as text.

    They are streamed from one query, so they are the numbers of one moment and memory stays flat.
    """
    rows = Rollup.objects.filter(booked_period=period.first_day, outcome=Code.VALID.name)
    if organization is not None:
        rows = rows.filter(organization=organization)
    grouped = (
        rows.values("organization_id", "key_id", "meter", "resource")
        .annotate(quantity=Sum("quantity"))
        # Looked up for each line, not joined to each row; and a key that this database lost (restored
        # from a backup older than the journals) keeps its line.
        .annotate(
            slug=_name_of("organization_id", Organization, "slug"),
            public_id=_name_of("key_id", Key, "public_id"),
        )
        .order_by(_as_bytes("slug"), _as_bytes("public_id"), _as_bytes("meter"), _as_bytes("resource"))
    )
    known = meters.read()
    for chunk in batched(grouped.iterator(chunk_size=CHUNK), CHUNK):
        yield from _lines(period, chunk, known)


# Any: a row of `values()` with annotations has no type that could be named here.
def _lines(period: Period, rows: Sequence[Any], known: Mapping[str, Meter]) -> Iterator[Line]:
    organizations = Organization.objects.in_bulk({row["organization_id"] for row in rows})
    keys = Key.objects.in_bulk({row["key_id"] for row in rows})
    for row in rows:
        organization, key = organizations.get(row["organization_id"]), keys.get(row["key_id"])
        meter = known.get(row["meter"])
        yield Line(
            period=str(period),
            organization=row["slug"],
            organization_name=organization.name if organization else "",
            external_customer=(organization.external_customer or None) if organization else None,
            key=row["public_id"],
            key_name=key.name if key else "",
            environment=key.environment if key else "",
            meter=row["meter"],
            resource=row["resource"] or None,
            unit=meter.unit if meter else None,
            tier=None,
            quantity=row["quantity"],
            included=None,
            # What a test key does is listed, so that the sums are the calls made, and never billed.
            billable=0 if key and key.environment == Environment.TEST else row["quantity"],
            unit_price=None,
            amount=None,
            currency=None,
            kind="usage",
            original_period=None,
        )


def _name_of(reference: str, model: type[Organization | Key], field: str) -> Coalesce:
    """The row's public name, or `unknown-<primary key>`."""
    named = Subquery(model._default_manager.filter(pk=OuterRef(reference)).values(field))
    unknown = Concat(Value("unknown-"), Cast(reference, CharField()))
    return Coalesce(named, unknown, output_field=CharField())


def _as_bytes(field: str) -> Collate:
    """Order by code points, whatever the database's locale: the same file on every machine."""
    return Collate(F(field), "C" if connection.vendor == "postgresql" else "BINARY")
