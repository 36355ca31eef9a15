"""`secret_patterns`: rules by which other people's scanners find this portal's keys, on stdout."""

from typing import Any

from django.conf import settings
from django.core.management.base import CommandParser

from keys.management.base import PortalCommand
from keys.prefixes import FORMATS, known_prefixes


class Command(PortalCommand):
    help = "Print a rule by which gitleaks, detect-secrets, TruffleHog or any regex finds keys."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--format", choices=list(FORMATS), default="regex")

    def handle(self, *args: Any, format: str, **options: Any) -> None:
        self.stdout.write(FORMATS[format](known_prefixes(), settings.PORTAL_NAME), ending="")
