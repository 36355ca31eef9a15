"""`close_period YYYY-MM`: freeze a month's statement once everything of it is counted."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.management.base import PortalCommand, moment, refuse
from usage import drain, meters
from usage.billing import Period, closing, corrections, statement
from usage.exports.cells import in_units
from usage.management.base import month, totals


class Command(PortalCommand):
    help = "Close a month: its lines never change again, and what comes late is in a later month's."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("period", type=month, metavar="YYYY-MM")
        parser.add_argument("--dry-run", action="store_true", help="show what it would write, write nothing")
        parser.add_argument(
            "--no-drain", action="store_true", help="do not drain the journals of this host first"
        )

    def handle(self, *args: Any, period: Period, dry_run: bool, no_drain: bool, **options: Any) -> None:
        now = timezone.now()
        if period.start > now:
            refuse(f"{period} has not begun.")
        if not no_drain:
            for problem in drain.drain_once(now).problems:
                self.say(problem)
        if dry_run:
            self._preview(period)
            closing.require_closable(period, now)
            return
        before = statement.closed(period)
        found = closing.close(period, lifecycle.command_actor(), now=now)
        for line in totals(found.lines, found.quantity_by_meter, found.amount_by_currency):
            self.stdout.write(line)
        self.stdout.write(f"sha256: {found.sha256}")
        for host in found.retired_hosts:
            self.say(f"Calls of {host['host']} since {host['since']} are missing: {host['reason']}.")
        if before is None:
            self.say(f"Closed {period}.")
        else:
            self.say(f"{period} is closed since {moment(before.closed_at or now)}; it stays as it is.")

    def _preview(self, period: Period) -> None:
        would = closing.preview(period)
        for line in totals(would.lines, would.quantity_by_meter, would.amount_by_currency):
            self.stdout.write(line)
        self.stdout.write(f"sha256: {would.sha256.hexdigest()}")
        known = meters.read()
        for late in (*corrections.late_in(period), *corrections.late_of(period)):
            where = f"in it, late of {late.month}" if late.booked == period else f"outside, in {late.booked}"
            self.say(f"{late.meter} {where}: {in_units(late.quantity, known.get(late.meter))}")
