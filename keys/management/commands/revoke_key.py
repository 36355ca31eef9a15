"""`revoke_key`: end a key for good, and confirm it: exit 0 means that every process refuses it."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle, presence
from keys.management.base import (
    REFUSED,
    PortalCommand,
    find_key,
    find_secret,
    joined,
    moment,
    refuse,
    secret_from_stdin,
)
from keys.models import AuditEvent

MAX_WAIT = 3600.0  # seconds


class Command(PortalCommand):
    help = "Revoke a key; exit 0 only once every serving process refuses it."

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("key_id", nargs="?", metavar="KEY_ID")
        which.add_argument("--secret-stdin", action="store_true", help="the key of the secret on stdin")
        parser.add_argument("--reason", default="", metavar="TEXT")
        parser.add_argument("--wait", type=float, default=5.0, metavar="SECONDS", help="default: 5")

    def handle(
        self, *args: Any, key_id: str | None, secret_stdin: bool, reason: str, wait: float, **options: Any
    ) -> None:
        if not 0 <= wait <= MAX_WAIT:
            refuse(f"--wait is between 0 and {MAX_WAIT:.0f} seconds.")
        key = find_key(key_id or "") if not secret_stdin else find_secret(secret_from_stdin()).key
        before = key.revoked_at
        key = lifecycle.revoke_key(lifecycle.command_actor(), key, reason=reason, now=timezone.now())
        if before is not None:
            self.say(f"{key.public_id} was revoked already, at {moment(before)}.")
        event = AuditEvent.objects.filter(key=key, act="key.revoked").latest("number")
        waiting = presence.known_everywhere(event.number, wait=wait)
        if waiting:
            processes = joined([f"{w.host}/{w.pid} (until {moment(w.until)} at the latest)" for w in waiting])
            refuse(f'{key.public_id} "{key.name}" is revoked, but not yet confirmed by {processes}.', REFUSED)
        self.say(f'Revoked {key.public_id} "{key.name}" of {key.organization.slug} everywhere.')
