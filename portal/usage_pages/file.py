"""The explorer's table as a file: what the page shows, all of its pages, for programs."""

import datetime as dt
from collections.abc import Iterator

from keys.models import Organization
from portal.usage_pages.page import Explorer
from portal.usage_pages.question import HOUR
from usage import meters
from usage.exports.csv import guarded


def table(found: Explorer) -> Iterator[list[str]]:
    """What the page's table shows as rows of cells, its header first. Text that a spreadsheet could take for
    a formula gets an apostrophe in front (OWASP, CSV injection); numbers never do."""
    more = ["before"] if found.before else []
    if found.table == "time":
        yield ["start", "end", *(guarded(layer.name) for layer in found.layers), "total", *more]
        for time in found.times:
            figures = [*time.figures, time.total, *([time.before] if more else [])]
            yield [_utc(time.start), _utc(time.end), *map(_plain, figures)]
        return
    names = ["key", "key_name", "environment"] if found.by == "key" else [found.by]
    yield [*names, "calls", "accepted", "refused", "share", "meter", "quantity", "unit", *more]
    for row in found.groups:
        named = [guarded(row.value)]
        if found.by == "key":
            named += [guarded(row.name), row.key.environment if row.key else ""]
        meter = row.meter and [row.meter.name, _plain(row.quantity), guarded(row.meter.unit)]
        figures = [str(row.calls), str(row.accepted), str(row.refused), row.share, *(meter or ["", "", ""])]
        yield [*named, *figures, *([_plain(row.before)] if more else [])]


def file_name(organization: Organization, found: Explorer) -> str:
    """The file's name without its ending: what it holds, of when, and until when that is complete."""
    last = (found.end - HOUR).date()
    words = ["usage", organization.slug]
    words += [found.meter.name] if found.meter and found.meter != meters.REQUESTS else []
    words += [found.key.public_id] if found.key else []
    words += [f"{found.start:%Y-%m-%d}", "to", f"{last:%Y-%m-%d}", "by", found.by]
    words += ["per", found.bucket] if found.table == "time" else []
    if found.complete_through is not None:
        words += ["until", f"{found.complete_through.astimezone(dt.UTC):%Y-%m-%dT%H-%M-%SZ}"]
    return "-".join(words)


def _plain(figure: str) -> str:
    """A figure as programs read it."""
    return figure.replace(",", "")


def _utc(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
