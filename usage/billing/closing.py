"""Closing a month: it is cut, so that what comes late is booked to a later one, and its lines are frozen.

`close` alone does both, in order of the months and once everything of a month is counted. Killed between the
two it is done again from there: there is one statement or none. It prices nothing, and a statement that is
written it never touches again.
"""

import datetime as dt
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F, Min
from django.db.models.functions import Coalesce

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict
from keys.lifecycle.actors import require_staff
from usage import counting, watermark
from usage.billing import accounts, statement
from usage.billing.periods import Period
from usage.billing.statement import Totals
from usage.exports import FORMATS
from usage.models import ClosedPeriod, Credit, Rollup, Spool, Subscription


def close(period: Period, actor: Actor, *, now: dt.datetime) -> ClosedPeriod:
    """Close a month and return its statement; one that is closed already is returned as it is. Staff only.

    Raises Conflict, with what it waits for, for a month that is not over, not completely counted, or not
    the next in order.
    """
    require_staff(actor)
    _cut(period, now)
    with transaction.atomic():
        # Whoever closes it at the same time waits here, and finds it closed.
        found = ClosedPeriod.objects.select_for_update().get(period=period.first_day)
        if found.closed_at is None:
            _write(found, period, now)
            audit.append(
                "period.closed",
                actor=actor,
                at=now,
                data={"period": str(period), "lines": found.lines, "sha256": found.sha256},
            )
    return found


def preview(period: Period) -> Totals:
    """What its statement would add up to if it were closed now; nothing is written."""
    totals = Totals()
    for _ in totals.through(FORMATS["csv"](totals.of(statement.lines_of(period)))):
        pass
    return totals


def require_closable(period: Period, now: dt.datetime) -> None:
    """Raise Conflict unless the month could be closed now. One that is cut could."""
    _require_order(period)
    if ClosedPeriod.objects.filter(period=period.first_day).exists():
        return
    if period.start > now:
        raise Conflict(f"{period} has not begun.")
    due = period.end + dt.timedelta(hours=settings.BILLING_GRACE_HOURS)
    if now < due:
        raise Conflict(f"{period} can be closed from {due:%Y-%m-%d %H:%M} UTC on; that is with its grace.")
    through, holder = watermark.complete_through(), watermark.holder()
    # Where nobody is waited for, everything is counted, though nobody has called since.
    if holder is not None and (through is None or through < period.end):
        raise Conflict(
            f"{period} waits for process {holder.pid} of {holder.host}, whose journal is counted until "
            f"{holder.since:%Y-%m-%d %H:%M:%S} UTC: drain it there, or give it up with retire_spool."
        )


def retired_hosts(period: Period) -> list[dict[str, str]]:
    """The hosts that were given up on whose calls of this month may be missing, with since when and why."""
    rows = Spool.objects.filter(finished_at=None, retired_at__gte=period.start)
    rows = rows.annotate(since=Coalesce("watermark", "started_at")).filter(since__lt=period.end)
    found: dict[tuple[str, str], dt.datetime] = {}
    for host, reason, since in rows.values_list("host", "retired_reason", "since"):
        found[host, reason] = min(since, found.get((host, reason), since))
    return [
        {"host": host, "since": since.astimezone(dt.UTC).isoformat(), "reason": reason}
        for (host, reason), since in sorted(found.items())
    ]


def _cut(period: Period, now: dt.datetime) -> None:
    """From here on nothing more is booked to the month, and no subscription of it changes."""
    with transaction.atomic():
        counting.alone()
        require_closable(period, now)
        through = watermark.complete_through()
        if through is not None and watermark.holder() is None:
            through = max(through, period.end)
        fields: dict[str, Any] = {
            "cut_at": now,
            "complete_through": through,
            "retired_hosts": retired_hosts(period),
        }
        ClosedPeriod.objects.get_or_create(period=period.first_day, defaults=fields)


def _require_order(period: Period) -> None:
    """Months are closed one after the other, from the first in which there was anything."""
    last = ClosedPeriod.objects.order_by("-period").first()
    if last is None:
        first = first_month()
        if first is not None and first < period:
            raise Conflict(f"{first} is open, and months are closed in their order; close it first.")
        return
    newest = Period.of(dt.datetime.combine(last.period, dt.time(), dt.UTC))
    if last.closed_at is None and period > newest:
        raise Conflict(f"{newest} is still being closed; finish it first, with close_period {newest}.")
    if period > newest.next:
        raise Conflict(f"{newest.next} is open, and months are closed in their order; close it first.")
    if period <= newest and not ClosedPeriod.objects.filter(period=period.first_day).exists():
        raise Conflict(f"{period} is before the first month that was closed; it has no statement.")


def first_month() -> Period | None:
    """The first month in which anything was used or subscribed to."""
    booked = [
        rows.aggregate(first=Min("booked_period"))["first"] for rows in (Rollup.objects, Credit.objects)
    ]
    begun = Subscription.objects.exclude(end=F("start")).aggregate(first=Min("start"))["first"]
    found = [Period(day.year, day.month) for day in booked if day is not None]
    return min(found if begun is None else [*found, Period.of(begun)], default=None)


def _write(found: ClosedPeriod, period: Period, now: dt.datetime) -> None:
    totals = Totals()
    lines = statement.freeze(found, totals.of(statement.computed(period)))
    for _ in totals.through(FORMATS["csv"](lines)):
        pass
    accounts.freeze(found)
    before = statement.closed(period.previous)
    found.closed_at = now
    found.lines = totals.lines
    found.quantity_by_meter = totals.quantity_by_meter
    found.amount_by_currency = totals.amount_by_currency
    found.sha256 = totals.sha256.hexdigest()
    found.previous_sha256 = "" if before is None else before.sha256
    found.save(
        update_fields=[
            *("closed_at", "lines", "quantity_by_meter", "amount_by_currency", "sha256", "previous_sha256"),
        ]
    )
