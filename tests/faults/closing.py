"""Months that are closed by several at once, who are killed at any moment, while usage comes late.

`python -m tests.faults.closing --kills 200` is the long form; `test_closing.py` runs a short one. Afterwards
each month has one statement, which verifies, and all that was reported is on exactly one of them.
"""

import argparse
import datetime as dt
import mmap
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from tests.faults import alone

if TYPE_CHECKING:
    from keys.models import Key
    from usage.billing import Period

KEYS, RESOURCES = 10, 40  # of each month, so that a statement takes a moment to write
AT_ONCE = 2
QUANTITY = 3
PAUSE = 0.005  # seconds between two reports, for others who write
HOUR = dt.timedelta(hours=1)


def _fork(act: Callable[[], None]) -> int:
    """A child that does this and ends; no connection may be open."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            act()
            status = 0
        finally:
            os._exit(status)
    return pid


def _close(period: "Period") -> None:
    from keys import lifecycle
    from usage.billing import closing

    closing.close(period, lifecycle.command_actor(), now=period.end + 25 * HOUR)


def _report(keys: "list[Key]", told: memoryview, first: "Period", seed: int) -> None:
    """Report usage of the month that is being closed, in time or late, until told to stop."""
    from usage import events
    from usage.event_format import Reported

    chance, number = random.Random(seed), 0
    while not told[0]:
        period = first
        for _ in range(told[1]):
            period = period.next
        batch = []
        for _ in range(chance.randint(1, 5)):
            number += 1
            at = period.start + chance.random() * (period.end - period.start)
            value = Decimal(chance.randint(1, 9))
            public_id = chance.choice(keys).public_id
            batch.append(
                Reported("faults", f"{seed}-{number}", public_id, "requests", value, at, "", "", False)
            )
        events.report(batch, period.end + HOUR)
        time.sleep(PAUSE)


def _use(keys: "list[Key]", period: "Period") -> None:
    """What the keys used in the month, in as many lines as make the statement take a moment."""
    from tests import builders
    from usage.models import Rollup

    same = {"meter": "requests", "outcome": "VALID", "calls": 1, "quantity": QUANTITY}
    builders.counted(
        [
            Rollup(
                organization_id=key.organization_id,
                key=key,
                hour=period.start,
                booked_period=period.first_day,
                resource=f"/{number}",
                **same,
            )
            for key in keys
            for number in range(RESOURCES)
        ]
    )


def close_and_kill(keys: "list[Key]", kills: int, first: "Period", seed: int) -> tuple[list["Period"], int]:
    """Close month after month until so many were killed at it; the months, and how often one was found cut
    and not written. The month after them is closed in peace, for what came late for the last."""
    from portal.serving import release_database
    from usage.billing import periods
    from usage.models import ClosedPeriod

    chance = random.Random(seed)
    told = memoryview(mmap.mmap(-1, 8)).cast("I")  # end now; how many months are done
    months, killed, unwritten = [first], 0, 0
    took = 0.1  # seconds that a closing takes, as the last one did that was not killed
    release_database()
    reporter = _fork(lambda: _report(keys, told, first, seed))
    try:
        while True:
            period = months[-1]
            _use(keys, period)
            while not periods.is_closed(period):
                release_database()
                begun = time.monotonic()
                children = [_fork(partial(_close, period)) for _ in range(AT_ONCE)]
                for pid in children:
                    if chance.random() < 0.8:
                        time.sleep(chance.uniform(0, took))
                        os.kill(pid, signal.SIGKILL)
                    _, status = os.waitpid(pid, 0)
                    if os.WIFSIGNALED(status):
                        killed += 1
                    else:
                        took = time.monotonic() - begun
                unwritten += ClosedPeriod.objects.filter(closed_at=None).exists()
            if killed >= kills:
                break
            months.append(period.next)
            told[1] = len(months) - 1
    finally:
        told[0] = 1
        _, status = os.waitpid(reporter, 0)
    assert status == 0, "the reporter failed"
    months.append(months[-1].next)
    _close(months[-1])
    return months, unwritten


def wrong(months: "list[Period]") -> list[str]:
    """What is not as it must be."""
    from django.db.models import Sum

    from usage.billing import statement, verifying
    from usage.models import ClosedPeriod, Event, Rollup, StatementAccount

    found = []
    for each in ClosedPeriod.objects.order_by("period"):
        found += [f"{each}: {difference}" for difference in verifying.differences(each)]
    if ClosedPeriod.objects.exclude(closed_at=None).count() != len(months):
        found.append("not each month has a statement")
    if StatementAccount.objects.count() != len(months):
        found.append("not each month says whom it is billed to")
    billed = sum(
        line.quantity for month in months for line in statement.lines_of(month) if line.meter == "requests"
    )
    seeded = QUANTITY * Rollup.objects.aggregate(calls=Sum("calls"))["calls"]  # events are no calls
    reported = Event.objects.aggregate(quantity=Sum("quantity"))["quantity"]
    if billed != seeded + reported:
        found.append(f"{billed} are billed, {seeded + reported} were used")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with alone.portal(os.environ.get("DATABASE_URL", "")):
        from tests import builders
        from usage.billing import Period
        from usage.models import Rollup

        first = Period(2015, 1)
        tiers = [{"up_to": 500, "unit_price": "0.013"}, {"up_to": None, "unit_price": "0.007"}]
        version = builders.version("faults", fee=999, requests={"model": "volume", "tiers": tiers})
        organization = builders.organization(f"closing-{options.seed}")
        builders.subscription(organization, version, first.start)
        keys = [builders.key(organization, name=f"key {n}").key for n in range(KEYS)]
        months, unwritten = close_and_kill(keys, options.kills, first, options.seed)
        late = Rollup.objects.exclude(booked_period=first.first_day).filter(hour__lt=first.end).exists()
        found = wrong(months)
        print(
            f"{options.kills} kills of {AT_ONCE} at once: {len(months)} months, one of them found cut "
            f"and not written {unwritten} times; late usage: {late}; {len(found)} wrong ({options.seed})"
        )
        if found:
            sys.exit("\n".join(found[:10]))


if __name__ == "__main__":
    main()
