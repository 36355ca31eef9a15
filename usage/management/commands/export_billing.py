"""`export_billing`: a month's statement as a file, the same bytes for the same numbers, and its manifest."""

import datetime as dt
import errno
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from tqdm import tqdm

from keys.management.base import REFUSED, PortalCommand, find_organization, refuse, said
from usage import drain
from usage.billing import Line, Period, accounts, statement
from usage.billing.statement import Totals
from usage.exports import ADDRESSED_BY, BESIDE, FORMATS
from usage.exports.events import addressed
from usage.exports.files import held, write_whole
from usage.management.base import month
from usage.models import ClosedPeriod


class Command(PortalCommand):
    help = "Export a month's billing lines."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--period", type=month, required=True, metavar="YYYY-MM")
        parser.add_argument("--format", choices=list(FORMATS), default="csv")
        parser.add_argument("--organization", metavar="SLUG", help="this one only")
        parser.add_argument("--output", default="-", metavar="FILE|-", help="default: - (stdout)")
        parser.add_argument("--allow-open", action="store_true", help="though the numbers may still change")
        parser.add_argument(
            "--no-drain", action="store_true", help="leave out calls that are not in the roll-ups yet"
        )
        parser.add_argument(
            "--skip-missing",
            action="store_true",
            help="leave out organizations that the billing system has no id for",
        )

    def handle(
        self,
        *args: Any,
        period: Period,
        format: str,
        organization: str | None,
        output: str,
        allow_open: bool,
        no_drain: bool,
        skip_missing: bool,
        **options: Any,
    ) -> None:
        now = timezone.now()
        if period.start > now:
            refuse(f"{period} has not begun.")
        only = None if organization is None else find_organization(organization)
        closed = statement.closed(period)
        if closed is None and not allow_open:
            refuse(
                f"{period} is open: its numbers may still change; --allow-open exports it all the same.",
                REFUSED,
            )
        path = None if output == "-" else _file(output)
        if closed is None and not no_drain:
            for problem in drain.drain_once(now).problems:
                self.say(problem)
        complete = drain.complete_through()  # before the lines are read: they hold at least this much
        counted = Totals()
        # disable=None: no bar where stderr is not a terminal.
        with tqdm(statement.lines_of(period, only), unit=" lines", disable=None, file=sys.stderr) as lines:
            content = self._content(lines, format, counted, skip_missing=skip_missing)
            if path is None:
                self._to_stdout(held(content) if format in ADDRESSED_BY else content)
                return
            manifest = _manifest_path(path)
            beside = [(_beside(path, end), make()) for end, make in BESIDE.get(format, ())]
            try:
                # The manifest's content is made when its turn comes: after the last line.
                about = _manifest(period, closed, complete, counted)
                write_whole([(path, content), *beside, (manifest, about)])
            except OSError as error:
                refuse(f"{output} could not be written: {_reason(error)}", REFUSED)
        self.say(f"{output}: {counted.lines} lines; {manifest.name} beside it.")

    def _content(
        self, lines: Iterable[Line], format: str, counted: Totals, *, skip_missing: bool
    ) -> Iterator[bytes]:
        """The file's bytes. Ends with a refusal if an organization has no id in the format's billing system,
        unless such are to be skipped; they are named either way."""
        field = ADDRESSED_BY.get(format)
        missing: dict[str, None] = {}
        if field is not None:
            lines = addressed(lines, accounts.ids(field), missing)
        yield from counted.through(FORMATS[format](counted.of(lines)))
        if field is None or not missing:
            return
        what = accounts.FIELDS[field][0].removeprefix("The ")
        for slug in missing:
            self.say(f"{slug} has no {what}" + (" and is left out." if skip_missing else "."))
        if not skip_missing:
            refuse(
                f"Organizations with usage have no {what}; fill in their billing accounts, or leave them out "
                "with --skip-missing.",
                REFUSED,
            )

    def _to_stdout(self, content: Iterable[bytes]) -> None:
        buffer = getattr(self.stdout, "buffer", None)  # none when called from code that captures text
        for piece in content:
            if buffer is None:
                self.stdout.write(piece.decode(), ending="")
            else:
                buffer.write(piece)
        if buffer is not None:
            buffer.flush()


def _file(output: str) -> Path:
    """Where to write: behind a symbolic link, never over a device, a pipe or a folder."""
    path = Path(os.path.realpath(output))
    ends = [end for beside in BESIDE.values() for end, _ in beside]
    for place in (path, _manifest_path(path), *(_beside(path, end) for end in ends)):
        try:
            regular = stat.S_ISREG(place.stat().st_mode)
        except FileNotFoundError:
            regular = bool(path.name)
        except OSError as error:
            refuse(f"{output} could not be written: {_reason(error)}", REFUSED)
        if not regular:
            refuse(f"{place} is not a file; use - for standard output.", REFUSED)
    return path


def _manifest_path(path: Path) -> Path:
    return _beside(path, ".manifest.json")


def _beside(path: Path, end: str) -> Path:
    return path.with_name(f"{path.name}{end}") if path.name else path


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "its folder does not exist."
    return said(OSError(error.errno, error.strerror or str(error)))


def _manifest(
    period: Period, closed: ClosedPeriod | None, complete: dt.datetime | None, counted: Totals
) -> Iterator[bytes]:
    yield json.dumps(statement.manifest(period, closed, complete, counted), indent=2).encode() + b"\n"
