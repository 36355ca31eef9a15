"""`import_key`: a key that another system made goes on working here, by its digest; the secret itself
is never asked for."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.management.base import PortalCommand, add_key_arguments, find_organization, key_fields, key_sentence


class Command(PortalCommand):
    help = "Import an existing key by the SHA-256 of the whole of it; print its new id."

    def add_arguments(self, parser: CommandParser) -> None:
        add_key_arguments(parser)
        parser.add_argument("--sha256", required=True, metavar="HEX", help="64 hexadecimal digits")
        parser.add_argument("--hint", default="", help="its last characters, at most 4, to recognise it by")

    def handle(self, *args: Any, organization: str, sha256: str, hint: str, **options: Any) -> None:
        now = timezone.now()
        key = lifecycle.import_key(
            lifecycle.command_actor(),
            find_organization(organization),
            sha256=sha256,
            hint=hint,
            **key_fields(options, now),
            now=now,
        )
        self.say(key_sentence("Imported", key))
        self.stdout.write(key.public_id)
