"""`rotate_key KEY_ID`: a new secret for the same key, on stdout; the old one works for the overlap."""

import datetime as dt
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.management.base import PortalCommand, duration, find_key, iso, key_facts, moment
from keys.models import KeyState


class Command(PortalCommand):
    help = "Give a key a new secret and print it on stdout, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("key_id", metavar="KEY_ID")
        parser.add_argument(
            "--overlap",
            type=duration,
            default=dt.timedelta(hours=24),
            metavar="24h",
            help="how long the old secret goes on working; 0 if it leaked",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON object instead")

    def handle(self, *args: Any, key_id: str, overlap: dt.timedelta, json: bool, **options: Any) -> None:
        now = timezone.now()
        issued = lifecycle.rotate_key(lifecycle.command_actor(), find_key(key_id), overlap=overlap, now=now)
        key = issued.key
        # The one replaced now stops last: earlier ones have stopped, or stop at the same moment.
        replaced = key.secrets.exclude(stops_at=None).order_by("stops_at").last()
        stops_at = replaced.stops_at if replaced is not None else None
        if stops_at is not None and stops_at > now:
            old = f"the old secret works until {moment(stops_at)}"
        else:
            old = "the old secret has stopped"
        self.say(f'Rotated {key.public_id} "{key.name}" of {key.organization.slug}: {old}.')
        if key.state_at(now) == KeyState.EXPIRING and key.expires_at is not None:
            self.say(f"The key itself, new secret included, expires on {moment(key.expires_at)}.")
        self.say("The new secret follows on stdout and cannot be shown again.")
        facts = key_facts(key) | {"previous_stops_at": iso(stops_at)}
        self.put_secret(issued, facts if json else None)
