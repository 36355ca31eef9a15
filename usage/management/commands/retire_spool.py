"""`retire_spool HOST --reason TEXT`: give up on a host that will never return, so that counting goes on."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.management.base import PortalCommand, moment
from usage import watermark
from usage.models import Spool


class Command(PortalCommand):
    help = "Give up on the journals of a host that will never return: nothing waits for them any more."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("host", metavar="HOST")
        parser.add_argument("--reason", required=True, metavar="TEXT", help="kept in the audit, for good")
        parser.add_argument("--dry-run", action="store_true", help="say what it would do, and do nothing")

    def handle(self, *args: Any, host: str, reason: str, dry_run: bool, **options: Any) -> None:
        if dry_run:
            reason = watermark.clean_reason(reason)
            spools = watermark.lost(watermark.clean_host(host))
        else:
            spools = watermark.retire(host, reason, lifecycle.command_actor(), now=timezone.now())
        for spool in spools:
            self.say(f"{'Would give' if dry_run else 'Gave'} up on {spool.pk} of {host}: {_lost(spool)}.")
        through = watermark.complete_through()
        if not dry_run and through is not None:
            self.say(f"Everything that is not given up on is counted until {moment(through)}.")


def _lost(spool: Spool) -> str:
    if spool.watermark is None:
        return f"nothing of it is counted, from its start at {moment(spool.started_at)} on"
    return f"counted until {moment(spool.watermark)}, and what came later is not"
