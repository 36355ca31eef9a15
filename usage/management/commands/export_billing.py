"""`export_billing`: statements as a file, the same bytes for the same numbers, and its manifest."""

import datetime as dt
import errno
import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from django.core.management.base import CommandParser
from django.utils import timezone
from tqdm import tqdm

from keys.management.base import REFUSED, PortalCommand, find_organization, refuse, said
from keys.models import Organization
from usage import drain, meters
from usage.billing import Line, Period, accounts, statement, verifying
from usage.billing.lines import named
from usage.billing.statement import Totals
from usage.exports import ADDRESSED_BY, BESIDE, FORMATS, VALUES
from usage.exports.cells import in_units
from usage.exports.events import LeftOut, addressed
from usage.exports.files import held, write_whole
from usage.management.base import month
from usage.models import ClosedPeriod


class Part(NamedTuple):
    """A month of the file."""

    period: Period
    closed: ClosedPeriod | None
    totals: Totals


class Command(PortalCommand):
    help = "Export the billing lines of a month, or of several."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--period",
            type=month,
            action="append",
            required=True,
            metavar="YYYY-MM",
            dest="periods",
            help="repeat it for several months in one file",
        )
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
            help="leave out organizations that the billing system has no id for, and values that it refuses",
        )

    def handle(
        self,
        *args: Any,
        periods: list[Period],
        format: str,
        organization: str | None,
        output: str,
        allow_open: bool,
        no_drain: bool,
        skip_missing: bool,
        **options: Any,
    ) -> None:
        now = timezone.now()
        only = None if organization is None else find_organization(organization)
        parts = _parts(periods, now, allow_open=allow_open)
        path = None if output == "-" else _file(output)
        if not no_drain and any(part.closed is None for part in parts):
            for problem in drain.drain_once(now).problems:
                self.say(problem)
        complete = drain.complete_through()  # before the lines are read: they hold at least this much
        # disable=None: no bar where stderr is not a terminal.
        with tqdm(unit=" lines", disable=None, file=sys.stderr) as bar:
            whole = Totals()
            content = self._content(parts, only, format, whole, bar, skip_missing=skip_missing)
            if path is None:
                may_fail = format in ADDRESSED_BY or any(part.closed is not None for part in parts)
                self._to_stdout(held(content) if may_fail else content)
                return
            manifest = _manifest_path(path)
            beside = [(_beside(path, end), make()) for end, make in BESIDE.get(format, ())]
            try:
                # The manifest's content is made when its turn comes: after the last line.
                about = _manifest(parts, only, complete, whole)
                write_whole([(path, content), *beside, (manifest, about)])
            except OSError as error:
                refuse(f"{output} could not be written: {_reason(error)}", REFUSED)
        self.say(f"{output}: {whole.lines} lines; {manifest.name} beside it.")

    def _content(
        self,
        parts: Sequence[Part],
        only: Organization | None,
        format: str,
        whole: Totals,
        bar: "tqdm[NoReturn]",
        *,
        skip_missing: bool,
    ) -> Iterator[bytes]:
        """The file's bytes. Ends with a refusal if some usage cannot be sent to the format's billing system,
        unless that is to be skipped; it is named either way."""
        field = ADDRESSED_BY.get(format)
        takes, left_out = _takes(format), LeftOut()

        def lines() -> Iterator[Line]:
            for part in parts:
                found = statement.lines_of(part.period, only)
                if part.closed is not None and only is None:
                    found = verifying.proved(part.closed, found)
                if field is not None:
                    found = addressed(found, accounts.ids(field, part.closed), takes, left_out)
                for line in part.totals.of(found):
                    bar.update()
                    yield line

        yield from whole.through(FORMATS[format](whole.of(lines())))
        if field is None or not left_out:
            return
        for what in _named(left_out, format, accounts.FIELDS[field][0].removeprefix("The ")):
            self.say(what + ("; it is left out." if skip_missing else "."))
        if not skip_missing:
            refuse(
                "What is named above cannot be sent: fill in the billing accounts, or leave it out with "
                "--skip-missing.",
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


def _takes(format: str) -> Callable[[Line], bool]:
    """Which lines' values the format's billing system takes."""
    if format not in VALUES:
        return lambda line: True
    (takes, _), known = VALUES[format], meters.read()
    return lambda line: takes(str(in_units(line.quantity, known.get(line.meter))))


def _named(left_out: LeftOut, format: str, id_name: str) -> Iterator[str]:
    """Each thing that is left out, as the beginning of a sentence."""
    for slug in left_out.organizations:
        yield f"{slug} has no {id_name}"
    known = meters.read()
    for line in left_out.lines:
        value = in_units(line.quantity, known.get(line.meter))
        yield f"{named(line)}: {value} is not {VALUES[format][1]}"
    if left_out.more_lines:
        yield f"{left_out.more_lines} more lines: the same"


def _file(output: str) -> Path:
    """Where to write: behind a symbolic link, never over a device, a pipe or a folder."""
    try:
        path = Path(os.path.realpath(output))
    except ValueError:  # NUL, or what no file system has
        refuse("The output is not the name of a file.")
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
    parts: Sequence[Part], only: Organization | None, complete: dt.datetime | None, whole: Totals
) -> Iterator[bytes]:
    """Of one month as its statement has it; of several each month's, and what the file adds up to."""
    if len(parts) == 1:
        [(period, closed, _)] = parts
        facts = statement.manifest(period, closed, complete, whole, only)
    else:
        months = [
            statement.manifest(period, closed, complete, totals, only) for period, closed, totals in parts
        ]
        facts = statement.manifest(parts[-1].period, None, complete, whole)
        of_file = ("lines", "quantity_by_meter", "amount_by_currency", "sha256")
        own = ("sha256", "previous_sha256")  # of a file with one month
        facts = {
            "periods": [{name: each[name] for name in each if name not in own} for each in months],
            **{name: facts[name] for name in of_file},
        }
    yield json.dumps(facts, indent=2).encode() + b"\n"


def _parts(periods: Sequence[Period], now: dt.datetime, *, allow_open: bool) -> list[Part]:
    """The months in their order, each of which may be exported."""
    parts: list[Part] = []
    for period in sorted(periods):
        if parts and parts[-1].period == period:
            refuse(f"{period} is given twice.")
        if period.start > now:
            refuse(f"{period} has not begun.")
        closed = statement.closed(period)
        if closed is None and not allow_open:
            refuse(
                f"{period} is open: its numbers may still change; --allow-open exports it all the same.",
                REFUSED,
            )
        parts.append(Part(period, closed, Totals()))
    return parts
