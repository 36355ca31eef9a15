"""`create_scope NAME --description TEXT`: something keys may be allowed to do; running it again changes
only the description."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.management.base import PortalCommand
from keys.models import Scope
from keys.scopes import PORTAL


class Command(PortalCommand):
    help = "Define a scope, or bring an existing one's description up to date."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", metavar="NAME", help="resource:action in lower case, e.g. orders:read")
        parser.add_argument("--description", required=True, metavar="TEXT")

    def handle(self, *args: Any, name: str, description: str, **options: Any) -> None:
        now, actor = timezone.now(), lifecycle.command_actor()
        found = Scope.objects.filter(name=name).first() if name.isascii() else None
        if found is None or name.startswith(PORTAL):
            scope = lifecycle.create_scope(actor, name=name, description=description, now=now)
            self.say(f"Created the scope {scope.name}.")
            return
        scope = lifecycle.edit_scope(actor, found, description=description, now=now)
        changed = "" if scope.description == found.description else " Its description was changed."
        self.say(f"The scope {scope.name} exists already.{changed}")
