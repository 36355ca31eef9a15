"""Proof that closed months are as they were closed: from what was counted to the bytes that were sent.

Journals' sums = roll-ups = lines = the CSV's hash = the chain of hashes = the audit; what differs first is
named in one sentence, and kept for staff to see. It recomputes everything, and changes none of it.
"""

import datetime as dt
import hashlib
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Final

from django.db.models import Min, Sum

from keys.lifecycle import Conflict
from keys.models import AuditEvent
from keys.verdicts import Code
from usage.billing import statement
from usage.billing.lines import Line, named
from usage.billing.periods import Period
from usage.billing.statement import Totals
from usage.exports import FORMATS
from usage.models import ClosedPeriod, Rollup, Segment, Spool, Verification

# What may be called differently since: names are frozen, and nothing is reckoned with them.
_NAMES: Final = frozenset({"organization_name", "external_customer", "key_name"})
_DAY: Final = dt.timedelta(days=1)

# Sentences. Whoever does not read them all closes it: it may hold cursors of the database.
type Differences = Generator[str, None, None]


def differences(found: ClosedPeriod) -> Differences:
    """What is not as it was closed, the first of each proof, one sentence each; nothing if all is."""
    yield from _chain(found)
    yield from _bytes(found)
    yield from _rollups(found)
    yield from _recomputed(found)


def proved(found: ClosedPeriod, lines: Iterable[Line]) -> Iterator[Line]:
    """Pass all lines of a closed month on. Raises Conflict at their end if their CSV is not as it was
    closed."""
    sha256, passed = hashlib.sha256(), deque[Line]()
    rows = FORMATS["csv"](iter(passed.popleft, None))  # it takes a line when it is asked for that line's row
    sha256.update(next(rows))
    for line in lines:
        passed.append(line)
        sha256.update(next(rows))
        yield line
    if sha256.hexdigest() != found.sha256:
        raise Conflict(
            f"The lines of {found} have another SHA-256 than when it was closed; verify_billing tells more."
        )


def keep(subject: str, difference: str, *, now: dt.datetime) -> None:
    """Write down what was found of a month (`2026-01`) or of the journals; empty: nothing."""
    Verification.objects.update_or_create(pk=subject, defaults={"at": now, "difference": difference})


def of_segments() -> Differences:
    """Where the journals' sums of accepted calls are not those of the roll-ups, by meter.

    Roll-ups of days before the first journal (a believable past, or a restored database) are in none; of that
    day itself a part may not be.
    """
    begun = Spool.objects.aggregate(first=Min("started_at"))["first"]
    if begun is None:
        return
    midnight = begun.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    before = _calls(None, midnight)
    # Both grow while they are read, together: the roll-ups are at least what the journals were before, and at
    # most what they were after.
    first = _recorded()
    most, least = _calls(midnight, None), _calls(midnight + _DAY, None)
    last = _recorded()
    for meter in sorted(last.keys() | most.keys()):
        lower = (least if before else most).get(meter, 0)
        if not (first.get(meter, 0) <= most.get(meter, 0) and lower <= last.get(meter, 0)):
            yield f"they have {last.get(meter, 0)} calls of {meter}, the roll-ups {most.get(meter, 0)}."


def _recorded() -> dict[str, int]:
    """Accepted calls by meter, as the journals' segments summed them when they were drained."""
    found: dict[str, int] = {}
    for sums in Segment.objects.values_list("sums", flat=True).iterator():
        for name, (calls, _) in sums.items():
            outcome, _, meter = name.partition("/")
            if outcome == Code.VALID.name and calls:
                found[meter] = found.get(meter, 0) + calls
    return found


def _calls(start: dt.datetime | None, end: dt.datetime | None) -> dict[str, int]:
    """Accepted calls by meter in [start, end)."""
    rows = Rollup.objects.filter(outcome=Code.VALID.name)
    if start is not None:
        rows = rows.filter(hour__gte=start)
    if end is not None:
        rows = rows.filter(hour__lt=end)
    sums = rows.values_list("meter").annotate(Sum("calls")).order_by()
    return {meter: int(calls) for meter, calls in sums if calls}


def _chain(found: ClosedPeriod) -> Iterator[str]:
    period = _period(found)
    before = statement.closed(period.previous)
    if before is None and ClosedPeriod.objects.filter(period__lt=found.period).exists():
        yield f"{period.previous} is not closed, though an earlier month is."
    elif found.previous_sha256 != ("" if before is None else before.sha256):
        yield "its hash of the month before is not that month's."
    event = AuditEvent.objects.filter(act="period.closed", data__period=str(period)).order_by("number").last()
    if event is None:
        yield "the audit has no event of its closing."
    elif (event.data.get("sha256"), event.data.get("lines")) != (found.sha256, found.lines):
        yield "the audit has another hash or number of lines."


def _bytes(found: ClosedPeriod) -> Iterator[str]:
    """The frozen lines, rendered again."""
    totals = Totals()
    for _ in totals.through(FORMATS["csv"](totals.of(statement.frozen(found)))):
        pass
    if totals.lines != found.lines:
        yield f"it has {totals.lines} lines, and was closed with {found.lines}."
    yield from _unequal("quantity of", totals.quantity_by_meter, found.quantity_by_meter)
    yield from _unequal("amount in", totals.amount_by_currency, found.amount_by_currency)
    if totals.sha256.hexdigest() != found.sha256:
        yield "its lines have another SHA-256 than when it was closed."


def _rollups(found: ClosedPeriod) -> Iterator[str]:
    """The roll-ups that are booked to it, summed without any of the steps that make lines of them."""
    rows = Rollup.objects.filter(booked_period=found.period, outcome=Code.VALID.name)
    # By organization, for what all of them used may be more than SQLite's sum can be.
    sums = rows.values_list("meter", "organization_id").annotate(Sum("quantity")).order_by()
    counted: Counter[str] = Counter()
    for meter, _, quantity in sums.iterator():
        counted[meter] += int(quantity)
    billed = {meter: quantity for meter, quantity in found.quantity_by_meter.items() if quantity}
    for meter in sorted(counted.keys() | billed.keys()):
        if counted[meter] != billed.get(meter, 0):
            yield (
                f"the roll-ups have a quantity of {counted[meter]} of {meter} (smallest units), its "
                f"lines {billed.get(meter, 0)}."
            )
            return


def _recomputed(found: ClosedPeriod) -> Iterator[str]:
    """Each line against the same line made anew from roll-ups, subscriptions and prices."""
    computed = statement.computed(_period(found))
    for position, (was, now) in enumerate(zip_longest(statement.frozen(found), computed), 1):
        if was is None or now is None:
            what = "was not billed" if was is None else "is not recomputed"
            yield f"line {position} {what}: {named(was or now)}."
            return
        for name, before, after in zip(Line._fields, was, now, strict=True):
            if before != after and name not in _NAMES:
                yield f"line {position} has {name} {before!r}, recomputed it is {after!r}: {named(was)}."
                return


def _unequal(what: str, found: Mapping[str, object], stored: Mapping[str, object]) -> Iterator[str]:
    for name in sorted(found.keys() | stored.keys()):
        if found.get(name) != stored.get(name):
            yield f"its lines have {found.get(name)} as {what} {name}, it was closed with {stored.get(name)}."
            return


def _period(found: ClosedPeriod) -> Period:
    return Period(found.period.year, found.period.month)
