"""`create_meter SLUG --unit UNIT --title TEXT [--aggregation sum|count] [--decimals 0..6]`: something that
calls are counted in; running it again changes only the title."""

from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from keys import lifecycle
from keys.management.base import PortalCommand
from usage import definitions
from usage.meters import MAX_DECIMALS, is_name
from usage.models import Aggregation, Meter


class Command(PortalCommand):
    help = "Define a meter, or bring an existing one's title up to date."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("slug", metavar="SLUG", help="how calls and events name it, e.g. tokens")
        parser.add_argument("--unit", required=True, metavar="UNIT", help="one of it, e.g. token")
        parser.add_argument("--title", required=True, metavar="TEXT", help="for people, e.g. Tokens")
        parser.add_argument("--aggregation", choices=Aggregation.values, default=Aggregation.SUM.value)
        parser.add_argument(
            "--decimals",
            type=int,
            choices=range(MAX_DECIMALS + 1),
            default=0,
            help="of a unit; a call's cost is in the smallest: with 3 decimals 1500 is 1.500",
        )

    def handle(
        self,
        *args: Any,
        slug: str,
        unit: str,
        title: str,
        aggregation: str,
        decimals: int,
        **options: Any,
    ) -> None:
        now, actor = timezone.now(), lifecycle.command_actor()
        counted: dict[str, Any] = {"unit": unit, "aggregation": aggregation, "decimals": decimals}
        found = Meter.objects.filter(slug=slug).first() if is_name(slug) else None
        if found is None:
            meter = definitions.create_meter(actor, slug=slug, title=title, now=now, **counted)
            self.say(f"Created the meter {meter.slug}.")
            return
        definitions.require_same(found, **counted)
        meter = definitions.edit_meter(actor, found, title=title, now=now)
        changed = "" if meter.title == found.title else " Its title was changed."
        self.say(f"The meter {meter.slug} exists already.{changed}")
