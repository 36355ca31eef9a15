"""`rebuild_usage`: recompute the roll-ups from kept journals and events, and report any difference."""

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
from usage import rebuild
from usage.events import REMEMBERED
from usage.rebuild import Difference

SHOWN = 50  # lines of each kind


def _day(text: str) -> dt.datetime:
    try:
        return dt.datetime.combine(dt.date.fromisoformat(text), dt.time(), dt.UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a day; write it as 2026-01-31") from None


class Command(PortalCommand):
    help = "Recompute roll-ups from the journals that are kept and from events; exit 1 if they differ."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", type=_day, metavar="DAY", dest="start", help="UTC; default: 70 days ago"
        )
        parser.add_argument(
            "--to", type=_day, metavar="DAY", dest="end", help="UTC, not included; default: tomorrow"
        )
        parser.add_argument("--organization", metavar="SLUG", help="this one only")

    def handle(
        self,
        *args: Any,
        start: dt.datetime | None,
        end: dt.datetime | None,
        organization: str | None,
        **options: Any,
    ) -> None:
        only = None if organization is None else find_organization(organization).pk
        today = timezone.now().astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        # Older events are forgotten, so that nobody could tell what they added.
        earliest = today - REMEMBERED + dt.timedelta(days=1)
        tomorrow = today + dt.timedelta(days=1)
        start, end = max(start or earliest, earliest), min(end or tomorrow, tomorrow)
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
        if result.differences:
            refuse(f"{len(result.differences)} of {result.groups} groups differ.", REFUSED)
        if not result.hours:
            refuse("There is no hour of which everything is still there; nothing was compared.", REFUSED)
        self.stdout.write(f"No difference: {result.groups} groups in {result.hours} hours.")

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
