"""`rebuild_usage`: recompute the roll-ups from kept journals and events, and report any difference.

Then it adds them up to the sums without keys that pages show, and reports the days on which these differ.
"""

import argparse
import datetime as dt
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser
from django.utils import timezone
from tqdm import tqdm

from keys.management.base import REFUSED, PortalCommand, find_organization, refuse
from keys.models import Key, Organization
from usage import organization_rollups, rebuild
from usage.events import REMEMBERED
from usage.rebuild import Difference

SHOWN = 50  # lines of each kind


def _day(text: str) -> dt.datetime:
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a day; write it as 2026-01-31") from None


class Command(PortalCommand):
    help = "Recompute roll-ups from kept journals and events, and their sums; exit 1 if any differ."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", type=_day, metavar="DAY", dest="start", help="UTC; default: 70 days ago"
        )
        parser.add_argument(
            "--to", type=_day, metavar="DAY", dest="end", help="UTC, not included; default: tomorrow"
        )
        parser.add_argument("--organization", metavar="SLUG", help="compare roll-ups of this one only")
        parser.add_argument(
            "--mend-sums", action="store_true", help="make sums without keys anew where they differ"
        )

    def handle(
        self,
        *args: Any,
        start: dt.datetime | None,
        end: dt.datetime | None,
        organization: str | None,
        mend_sums: bool,
        **options: Any,
    ) -> None:
        only = None if organization is None else find_organization(organization).pk
        today = timezone.now().astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        # Older events are forgotten, so that nobody could tell what they added.
        earliest = today - REMEMBERED + dt.timedelta(days=1)
        tomorrow = today + dt.timedelta(days=1)
        since = start or earliest  # of sums, which need no events
        start, end = max(since, earliest), min(end or tomorrow, tomorrow)
        if end <= start:
            refuse("There is no day between them that could be compared; at most 69 days ago can be.")
        with tqdm(unit="B", unit_scale=True, desc="Journals", disable=None, leave=False) as bar:
            result = rebuild.compare(
                Path(settings.USAGE_JOURNAL_DIR), start, end, organization=only, progress=bar.update
            )
        for gap in result.gaps[:SHOWN]:
            self.say(f"Not compared: {gap.start:%Y-%m-%d %H:%M} to {gap.end:%Y-%m-%d %H:%M} UTC; {gap.why}.")
        if len(result.gaps) > SHOWN:
            self.say(f"And {len(result.gaps) - SHOWN} more.")
        self._list(result.differences)
        days = self._sums(since, end, mend_sums)
        if result.differences:
            refuse(f"{len(result.differences)} of {result.groups} groups differ.", REFUSED)
        if days and not mend_sums:
            refuse(
                f"Sums without keys are wrong on {days} of the days; --mend-sums makes them anew.", REFUSED
            )
        if not result.hours:
            refuse("There is no hour of which everything is still there; nothing was compared.", REFUSED)
        self.stdout.write(f"No difference: {result.groups} groups in {result.hours} hours.")

    def _sums(self, start: dt.datetime, end: dt.datetime, mend: bool) -> int:
        """Of how many days the sums without keys were wrong; each is told."""
        if mend:
            days = organization_rollups.mend(start, end)
        else:
            days = [day.date() for day in organization_rollups.wrong(start, end)]
        told = "made anew" if mend else "not what the roll-ups add up to"
        for day in days:
            self.stdout.write(f"Sums without keys of {day}: {told}.")
        return len(days)

    def _list(self, differences: list[Difference]) -> None:
        shown = differences[:SHOWN]
        slugs = Organization.objects.in_bulk({each.group[0] for each in shown})
        keys = Key.objects.in_bulk({each.group[2] for each in shown})
        for (pk, hour, key_pk, meter, resource, outcome), counted, recorded in shown:
            found, key = slugs.get(pk), keys.get(key_pk)
            names = [
                found.slug if found else f"unknown-{pk}",
                f"{hour:%Y-%m-%dT%H:00Z}",
                key.public_id if key else f"unknown-{key_pk}",
                *(meter, resource or "-", outcome),
            ]
            self.stdout.write(
                f"{' '.join(names)}: counted {counted[0]} calls, quantity {counted[1]}; "
                f"recorded {recorded[0]} calls, quantity {recorded[1]}"
            )
        if len(differences) > SHOWN:
            self.stdout.write(f"And {len(differences) - SHOWN} more.")
