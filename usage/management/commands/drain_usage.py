"""`drain_usage`: journals into roll-ups, once or until Ctrl-C."""

import time
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from tqdm import tqdm

from keys.management.base import PortalCommand
from usage.drain import Drain

PAUSE_SECONDS = 1.0


class Command(PortalCommand):
    help = "Drain this host's journals into the roll-ups."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one pass, then end")

    def handle(self, *args: Any, **options: Any) -> None:
        drain = Drain()
        calls = 0
        while True:
            with tqdm(
                total=drain.backlog(), unit="B", unit_scale=True, desc="Journals", disable=None, leave=False
            ) as bar:
                report = drain.once(timezone.now(), progress=bar.update)
            calls += report.calls
            if options["once"]:
                for problem in report.problems:
                    self.say(problem)
                self.say(f"Drained {calls:,} calls; {report.segments_finished} journals are finished.")
                return
            time.sleep(PAUSE_SECONDS)
