"""`create_key`: a new key; its secret, and nothing else, goes to stdout, this once."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.management.base import (
    PortalCommand,
    add_key_arguments,
    find_organization,
    key_facts,
    key_fields,
    key_sentence,
)


class Command(PortalCommand):
    help = "Create a key and print its secret on stdout, once."

    def add_arguments(self, parser: CommandParser) -> None:
        add_key_arguments(parser)
        parser.add_argument("--json", action="store_true", help="print one JSON object instead")

    def handle(self, *args: Any, organization: str, json: bool, **options: Any) -> None:
        now = timezone.now()
        issued = lifecycle.create_key(
            lifecycle.command_actor(), find_organization(organization), **key_fields(options, now), now=now
        )
        self.say(key_sentence("Created", issued.key))
        self.say("Its secret follows on stdout and cannot be shown again.")
        self.put_secret(issued, key_facts(issued.key) if json else None)
