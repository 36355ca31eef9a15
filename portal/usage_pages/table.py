"""The explorer's tables: sums by group and figures over time, named and written for people.

Figures are those of `usage.explorer`; the only rows read here are the names of keys.
"""

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from keys.models import Environment, Key, Organization
from keys.verdicts import Code
from portal.charts import Layer
from portal.pages import percent
from portal.usage_pages.question import DAY, Span
from usage import meters, series
from usage.explorer import Group, Part
from usage.meters import Meter
from usage.reports import Calls


class GroupRow(NamedTuple):
    """One line of the sums. `value` is what a program knows the group by; figures as text are in units."""

    value: str
    name: str
    note: str  # in small print: an environment, what a refusal means
    key: Key | None
    calls: int
    accepted: int
    refused: int
    meter: Meter | None
    quantity: str
    share: str
    before: str
    change: str


class TimeRow(NamedTuple):
    """One line over time: a bucket, its layers' figures, and all of it."""

    start: dt.datetime
    end: dt.datetime
    title: str
    figures: list[str]
    total: str
    before: str


class Name(NamedTuple):
    """How a group is called: by programs, by people, and a word more."""

    value: str
    name: str
    note: str
    key: Key | None


@dataclass(frozen=True, slots=True)
class Measure:
    """What is drawn, and how its figures are written."""

    place: int  # in a `Part`
    text: Callable[[int], str]
    unit: str


class Before(NamedTuple):
    """The period before: its sums by group, and bucket by bucket."""

    title: str
    groups: Mapping[Group, Part]
    line: list[int]


def group_rows(
    shown: Iterable[Group],
    by: str,
    found: Mapping[Group, Calls],
    all_calls: Calls,
    before: Before | None,
    names: Mapping[Group, Name],
    known: Mapping[str, Meter],
    meter: Meter | None,
    measure: Measure,
) -> list[GroupRow]:
    total = part_of(all_calls)[measure.place]
    rows = []
    for group in shown:
        calls = found[group]
        value = part_of(calls)[measure.place]
        was = before.groups.get(group, Part(0, 0))[measure.place] if before else 0
        own = known_meter(str(group), known) if by == "meter" else meter
        rows.append(
            GroupRow(
                *names[group],
                calls=calls.accepted + calls.refused,
                accepted=calls.accepted,
                refused=calls.refused,
                meter=own,
                quantity=grouped(own.as_text(calls.quantity)) if own else "",
                share=percent(value, total),
                before=measure.text(was),
                change=change(value, was),
            )
        )
    return rows


def time_rows(
    cuts: Sequence[dt.datetime],
    titles: Sequence[str],
    bucket: str,
    span: Span,
    layers: Sequence[Layer],
    before: Sequence[int],
    measure: Measure,
) -> list[TimeRow]:
    rows = []
    for index, (at, title) in enumerate(zip(cuts, titles, strict=True)):
        rows.append(
            TimeRow(
                start=max(at, span.start),
                end=min(series.bucket_end(at, bucket), span.end),
                title=title,
                figures=[measure.text(layer.values[index]) for layer in layers],
                total=measure.text(sum(layer.values[index] for layer in layers)),
                before=measure.text(before[index] if index < len(before) else 0),
            )
        )
    return rows


def change(now: int, before: int) -> str:
    """How much more or less than before: `+12%`, `−8%`, `×25`; `new` from nothing, `—` of nothing."""
    if before <= 0:
        return "new" if now > 0 else "—"
    if now == before:
        return "0%"
    if now >= 10 * before:
        return f"×{now // before:,}"
    return ("+" if now > before else "−") + percent(abs(now - before), before)


def part_of(calls: Calls) -> Part:
    return Part(calls.accepted + calls.refused, calls.quantity)


def all_of(groups: Mapping[Group, Calls]) -> Calls:
    """Of all groups together."""
    accepted = refused = quantity = 0
    for each in groups.values():
        accepted += each.accepted
        refused += each.refused
        quantity += each.quantity
    return Calls(accepted, refused, quantity)


def known_meter(name: str, known: Mapping[str, Meter]) -> Meter:
    """One that this database has lost counts in smallest units of no name."""
    return known.get(name) or Meter(name, "unit", name)


def measure_of(meter: Meter | None, show: str) -> Measure:
    """Quantities of one meter, in its unit, or calls; of several meters calls alone."""
    if meter is None or show != "quantity":
        return Measure(0, "{:,}".format, "Calls")
    return Measure(1, lambda figure: grouped(meter.as_text(figure)), unit_of(meter))


def unit_of(meter: Meter) -> str:
    return "Units" if meter == meters.REQUESTS else meter.title


def grouped(number: str) -> str:
    """A plain decimal with commas between its thousands."""
    whole, point, rest = number.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.lstrip("-") != "0" else number


def names_of(
    organization: Organization,
    groups: Collection[Group],
    by: str,
    known: Mapping[str, Meter],
    only: Key | None,
) -> dict[Group, Name]:
    match by:
        case "key":
            if only is not None:
                return {only.pk: _key_name(only.pk, only)}
            found = {key.pk: key for key in organization.keys.at_least([*map(int, groups)])}
            return {group: _key_name(group, found.get(int(group))) for group in groups}
        case "meter":
            return {
                group: Name(str(group), known_meter(str(group), known).title, "", None) for group in groups
            }
        case "outcome":
            return {group: _outcome_name(str(group)) for group in groups}
        case "environment":
            named = dict(Environment.choices)
            return {group: Name(str(group), named.get(str(group), "Unknown"), "", None) for group in groups}
    return {group: Name(str(group), str(group) or "None named", "", None) for group in groups}


def _key_name(group: Group, key: Key | None) -> Name:
    if key is None:  # of a database that was restored
        return Name(f"unknown-{group}", f"Unknown key {group}", "", None)
    return Name(key.public_id, key.name, "Test" if key.environment == Environment.TEST else "", key)


def _outcome_name(name: str) -> Name:
    code = Code.__members__.get(name)
    if code is Code.VALID:
        return Name(name, "Accepted", "", None)
    return Name(name, code.title if code else name, code.sentence if code else "", None)


def bucket_title(at: dt.datetime, bucket: str) -> str:
    if bucket == "month":
        return f"{at:%B %Y}"
    day = f"{at:%a} {at.day} {at:%b %Y}"
    return f"{day}, {at:%H:%M}" if bucket == "hour" else day


def bucket_label(at: dt.datetime, bucket: str) -> str:
    """Below the axis."""
    if bucket == "month":
        return f"{at:%b %Y}"
    return f"{at:%H:%M}" if bucket == "hour" and at.hour else f"{at.day} {at:%b}"


def range_title(start: dt.datetime, end: dt.datetime) -> str:
    """The range in words: whole days by their dates, else with its hours."""
    if start.hour or end.hour:
        return f"{start.day} {start:%b %Y, %H:%M} – {end.day} {end:%b %Y, %H:%M}"
    last = end - DAY
    if start.date() == last.date():
        return f"{last.day} {last:%b %Y}"
    return f"{start.day} {start:%b %Y} – {last.day} {last:%b %Y}"
