"""A month's statement as everybody reads it: frozen once the month is closed, computed until then.

`lines_of` is the one place where exports, pages and checks get their lines from. It alone reads and writes
frozen lines, and what they add up to; it neither prices nor decides when a month is closed.
"""

import datetime as dt
import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import batched
from typing import Any

from django.db import connection

from keys.management.base import iso
from keys.models import Organization
from usage import meters
from usage.billing import corrections
from usage.billing.lines import Line, lines, order
from usage.billing.money import EXACT
from usage.billing.periods import Period
from usage.exports.cells import in_units
from usage.models import ClosedPeriod, StatementLine

CHUNK = 2000  # rows read or written at once
COLUMNS = Line._fields[1:]  # of a frozen line, which has its period from its statement
# Where a line may have no value, and a frozen one an empty text.
_NULLABLE = frozenset(
    {"external_customer", "resource", "unit", "tier", "unit_price", "amount", "currency", "original_period"}
)
_COPY = "COPY usage_statementline ({columns}) FROM STDIN"


class Totals:
    """Passes lines on and bytes through, and keeps what a manifest says of them; quantities in the smallest
    unit."""

    def __init__(self) -> None:
        self.lines = 0
        self.quantities: Counter[str] = Counter()
        self.amounts: dict[str, Decimal] = {}
        self.sha256 = hashlib.sha256()

    def of(self, lines: Iterable[Line]) -> Iterator[Line]:
        for line in lines:
            self.lines += 1
            if line.meter:
                self.quantities[line.meter] += line.quantity
            if line.currency and line.amount is not None:
                before = self.amounts.get(line.currency, Decimal(0))
                self.amounts[line.currency] = EXACT.add(before, Decimal(line.amount))
            yield line

    def through(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.sha256.update(piece)
            yield piece

    @property
    def quantity_by_meter(self) -> dict[str, int]:
        return dict(sorted(self.quantities.items()))

    @property
    def amount_by_currency(self) -> dict[str, str]:
        return {currency: f"{amount:f}" for currency, amount in sorted(self.amounts.items())}


def closed(period: Period) -> ClosedPeriod | None:
    """The month's statement; None while it is open, or not yet written."""
    return ClosedPeriod.objects.filter(period=period.first_day).exclude(closed_at=None).first()


def lines_of(period: Period, organization: Organization | None = None) -> Iterator[Line]:
    """The month's lines in the order of the export, of one organization or of all: for ever the same once it
    is closed."""
    statement = closed(period)
    return computed(period, organization) if statement is None else frozen(statement, organization)


def computed(period: Period, organization: Organization | None = None) -> Iterator[Line]:
    """The lines as the counters have them now, whether the month is closed or not. What was billed for
    earlier months is as their statements have it."""
    known = meters.read()
    corrected = corrections.lines(period, organization, statement=lines_of)
    return heapq.merge(lines(period, organization), corrected, key=lambda line: order(line, known))


def frozen(statement: ClosedPeriod, organization: Organization | None = None) -> Iterator[Line]:
    """The lines as they were written."""
    rows = StatementLine.objects.filter(closed=statement).order_by("position")
    if organization is not None:
        rows = rows.filter(organization=organization.slug)
    period = f"{statement.period:%Y-%m}"
    for row in rows.values_list(*COLUMNS).iterator(chunk_size=CHUNK):
        yield Line._make([period, *_values(row)])


def freeze(statement: ClosedPeriod, lines: Iterable[Line]) -> Iterator[Line]:
    """Write lines as the statement's, which has none yet, and pass them on."""
    for some in batched(enumerate(lines, 1), CHUNK):
        _insert([(statement.period, position, *_cells(line)) for position, line in some])
        yield from (line for _, line in some)


def _insert(rows: list[tuple[Any, ...]]) -> None:  # Any: a row of mixed types
    names = ("closed_id", "position", *COLUMNS)
    if connection.vendor == "postgresql":  # whose COPY takes a tenth of the time
        with connection.cursor() as cursor, cursor.copy(_COPY.format(columns=", ".join(names))) as copy:
            for row in rows:
                copy.write_row(row)
    else:
        StatementLine.objects.bulk_create(StatementLine(**dict(zip(names, row, strict=True))) for row in rows)


def manifest(
    period: Period,
    statement: ClosedPeriod | None,
    complete: dt.datetime | None,
    totals: Totals,
    organization: Organization | None = None,
) -> dict[str, Any]:
    """What stands beside an export: which month, how complete, and what its lines add up to.

    `statement` is the month's if it is closed, `complete` until when everything was counted before the lines
    were read if it is not. `retired_hosts` is there only where calls may be missing. Where the lines are one
    organization's, it is named, and `statement_sha256` is the whole statement's, which the next month names.
    """
    known = meters.read()
    if statement is not None:
        complete = statement.complete_through
    facts: dict[str, Any] = {
        "period": str(period),
        "status": "open" if statement is None else "closed",
        # Later calls are another period's, so this stands still once the period is over.
        "complete_through": iso(None if complete is None else min(complete, period.end)),
        "lines": totals.lines,
        "quantity_by_meter": {
            meter: in_units(quantity, known.get(meter))
            for meter, quantity in totals.quantity_by_meter.items()
        },
        "amount_by_currency": totals.amount_by_currency,
        "sha256": totals.sha256.hexdigest(),
        "previous_sha256": (statement.previous_sha256 or None) if statement else None,
    }
    if organization is not None:
        facts = {"organization": organization.slug} | facts
        facts["statement_sha256"] = statement.sha256 if statement else None
    return facts | (
        {"retired_hosts": statement.retired_hosts} if statement and statement.retired_hosts else {}
    )


def _cells(line: Line) -> Iterator[str | int | None]:
    """A frozen line's columns."""
    for name, value in zip(COLUMNS, line[1:], strict=True):
        yield "" if value is None and name in _NULLABLE else value


def _values(cells: Iterable[str | int | None]) -> Iterator[str | int | None]:
    """A line's values from a frozen line's columns."""
    for name, cell in zip(COLUMNS, cells, strict=True):
        yield None if cell == "" and name in _NULLABLE else cell
