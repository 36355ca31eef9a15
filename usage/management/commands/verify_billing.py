"""`verify_billing [YYYY-MM]`: prove that closed months are as they were closed, or name what differs."""

import datetime as dt
from contextlib import closing
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone

from keys.management.base import REFUSED, PortalCommand, refuse
from usage import rebuild
from usage.billing import Period, verifying
from usage.billing.verifying import Differences
from usage.events import REMEMBERED
from usage.management.base import month
from usage.models import ClosedPeriod, Verification


class Command(PortalCommand):
    help = "Recompute closed months: journals, roll-ups, lines, hashes; exit 1 if anything differs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("period", type=month, nargs="?", metavar="YYYY-MM", help="default: all of them")
        parser.add_argument(
            "--no-journals", action="store_true", help="do not read the journals that are kept"
        )

    def handle(self, *args: Any, period: Period | None, no_journals: bool, **options: Any) -> None:
        now = timezone.now()
        rows = ClosedPeriod.objects.exclude(closed_at=None).order_by("period")
        if period is not None:
            if period.start > now:
                refuse(f"{period} has not begun.")
            rows = rows.filter(period=period.first_day)
        months = list(rows)
        if period is not None and not months:
            refuse(f"{period} is not closed: there is nothing to verify yet.", REFUSED)
        differ = [
            self._report(str(each), self._differences(each, now, no_journals=no_journals), now)
            for each in months
        ]
        differ.append(self._report(Verification.JOURNALS, verifying.of_segments(), now))
        if any(differ):
            refuse("Not everything is as it was closed; the first differences are named above.", REFUSED)
        if not months:
            self.say("No month is closed yet.")

    def _report(self, subject: str, differences: Differences, now: dt.datetime) -> bool:
        """Name the first difference, if there is one, here and to staff; is there?"""
        with closing(differences):  # at once: a cursor that is closed in the midst of a query waits for ever
            first = next(differences, "")
        self.stdout.write(f"{subject.capitalize()}: {first or 'as closed.'}")
        verifying.keep(subject, first, now=now)
        return bool(first)

    def _differences(self, found: ClosedPeriod, now: dt.datetime, *, no_journals: bool) -> Differences:
        """The month's own differences, and those of its roll-ups from the journals and events that are
        still there."""
        yield from verifying.differences(found)
        if no_journals:
            return
        period = Period(found.period.year, found.period.month)
        today = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = max(period.start, today - REMEMBERED + dt.timedelta(days=1))
        if start >= period.end:
            return  # its events are forgotten
        result = rebuild.compare(Path(settings.USAGE_JOURNAL_DIR), start, period.end)
        hours = (period.end - period.start) // dt.timedelta(hours=1)
        self.say(f"{found}: {result.hours} of {hours} hours read again from journals.")
        if result.differences:
            yield f"{len(result.differences)} roll-ups differ from journals; rebuild_usage lists them."
