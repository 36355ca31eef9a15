"""What the usage explorer shows: a range of calls, cut into buckets, stacked by what they have in common.

Page and file are made from one `Explorer`, so that they cannot disagree. It reads roll-ups of one
organization through `usage.explorer`, in a fixed number of queries, and never writes.
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django import forms
from django.core.paginator import Page, Paginator
from django.http import QueryDict

from keys.models import Environment, Key, Organization
from keys.verdicts import Code
from portal.charts import Layer, StackedChart, stacked_chart
from portal.pages import Answered, Reason, answers, percent, reasons
from usage import explorer, meters, reports, resources, series
from usage.explorer import Asked, Group, Part
from usage.exports.csv import guarded
from usage.meters import Meter
from usage.reports import Calls

DAY: Final = dt.timedelta(days=1)
HOUR: Final = dt.timedelta(hours=1)
RANGES: Final = {
    "24h": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
    "month": "This month",
    "last-month": "Last month",
    "custom": "Custom",
}
BY: Final = {
    "outcome": "Outcome",
    "key": "Key",
    "resource": "Resource",
    "meter": "Meter",
    "environment": "Environment",
}
PAGE: Final = 100  # rows
_TABLES: Final = {"groups": "Sums", "time": "Over time"}
# The layers' colours from the ground up. Calls that were let in have the first one, refusals warmer ones.
_COLOURS: Final = ("1", "2", "3", "4", "5", "6")
_REFUSALS: Final = ("refused", "3", "5", "6", "4", "2")
_GREY: Final = "other"


@dataclass(frozen=True, slots=True)
class Span:
    """The range [start, end), whole hours in UTC, and where a comparison begins if not a range earlier."""

    start: dt.datetime
    end: dt.datetime
    before: dt.datetime | None = None

    @property
    def days(self) -> float:
        return (self.end - self.start) / DAY

    def earlier(self, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """The period before, as long as what has passed of this one; of a whole month, the month before."""
        start = self.before or self.start - (self.end - self.start)
        if self.before is not None and self.end <= now:
            return start, self.start
        passed = min(self.end, max(_next_hour(now), self.start)) - self.start
        return start, min(start + passed, self.start)


class ExplorerForm(forms.Form):
    """What is asked for, as an address has it; a value that makes no sense is as if it were not there."""

    range = forms.ChoiceField(required=False, choices=RANGES.items(), widget=forms.RadioSelect)
    start = forms.DateField(
        required=False, label="From", widget=forms.DateInput({"type": "date", "class": "input"})
    )
    end = forms.DateField(
        required=False, label="To", widget=forms.DateInput({"type": "date", "class": "input"})
    )
    bucket = forms.ChoiceField(
        required=False,
        label="Per",
        choices=[("", "Automatic"), ("hour", "Hour"), ("day", "Day"), ("month", "Month")],
    )
    by = forms.ChoiceField(required=False, label="Stack by", choices=BY.items())
    meter = forms.ChoiceField(required=False, label="Meter")
    environment = forms.ChoiceField(
        required=False, label="Environment", choices=[("", "All"), *Environment.choices]
    )
    show = forms.ChoiceField(
        required=False, label="Show", choices=[("calls", "Calls"), ("quantity", "Quantity")]
    )
    compare = forms.BooleanField(required=False, label="Compare with the period before")
    key = forms.CharField(required=False, max_length=32, widget=forms.HiddenInput)
    table = forms.ChoiceField(required=False, choices=_TABLES.items(), widget=forms.HiddenInput)

    def __init__(self, query: QueryDict, known: Mapping[str, Meter], now: dt.datetime) -> None:
        defaults = {"range": "30d", "by": "outcome", "show": "calls", "table": "groups"}
        super().__init__(defaults | {name: value for name, value in query.items() if value})
        for name in ("bucket", "by", "meter", "environment", "show"):
            self.fields[name].widget.attrs["class"] = "input"
        field = self.fields["meter"]
        assert isinstance(field, forms.ChoiceField)
        field.choices = [("", "All, in calls"), *((meter.name, meter.title) for meter in known.values())]
        if len(known) == 1:
            field.widget = forms.HiddenInput()
        self.is_valid()
        self.chosen: dict[str, Any] = {**defaults}
        self.chosen |= {name: value for name, value in self.cleaned_data.items() if value}
        self.chosen["range"], self.span, self.complaint = _chosen_span(self.chosen, now)
        # Whoever turns to dates of their own begins with those that are shown.
        assert isinstance(self.data, dict)
        self.data = self.data | {
            "range": self.chosen["range"],
            "start": self.span.start.date().isoformat(),
            "end": (self.span.end - HOUR).date().isoformat(),
        }


def _chosen_span(chosen: Mapping[str, Any], now: dt.datetime) -> tuple[str, Span, str]:
    """The range by name and by its hours, and what is wrong with the one that was asked for instead."""
    hour = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    tomorrow = hour.replace(hour=0) + DAY
    first = hour.replace(hour=0, day=1)
    last = _month_before(first)
    days = {"7d": 7, "30d": 30}
    complaint = ""
    match name := chosen["range"]:
        case "24h":
            return name, Span(hour - 23 * HOUR, hour + HOUR), ""
        case "month":
            return name, Span(first, tomorrow, last), ""
        case "last-month":
            return name, Span(last, first, _month_before(last)), ""
        case "custom":
            start, end = chosen.get("start"), chosen.get("end")
            complaint = _complaint(start, end)
            if start and end and not complaint:
                return name, Span(_midnight(start), _midnight(end) + DAY), ""
    name = name if name in days else "30d"
    return name, Span(tomorrow - days[name] * DAY, tomorrow), complaint


def _complaint(start: dt.date | None, end: dt.date | None) -> str:
    """What is wrong with a range from `start` through `end`, in a sentence; empty: nothing."""
    longest = explorer.LONGEST["day"]
    if start is None or end is None:
        return "Choose a first and a last day; until then the last 30 days are shown."
    if end < start:
        return "The last day is before the first, so the last 30 days are shown."
    if start.year < 2000 or end.year > 9000:
        return "These days make no sense here, so the last 30 days are shown."
    if (end - start).days >= longest:
        return f"A range has at most {longest} days, so the last 30 are shown."
    return ""


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


class Compared(NamedTuple):
    """The period before; `total` and `change` are of what is drawn."""

    title: str
    calls: int
    calls_change: str
    total: str
    change: str


@dataclass(frozen=True, slots=True)
class Explorer:
    """Everything on the page and in the file."""

    form: ExplorerForm
    start: dt.datetime
    end: dt.datetime
    title: str  # of the range
    bucket: str
    by: str
    table: str
    key: Key | None
    meter: Meter | None  # None: of several, so that there are calls alone
    unit: str  # of what is drawn
    chart: StackedChart
    calls: Calls
    quantity: str
    before: Compared | None
    page: Page[Group]
    groups: list[GroupRow]  # of the page
    times: list[TimeRow]
    total: str  # of what is drawn
    reasons: list[Reason]
    answers: list[Answered]  # beside outcomes only
    kept: int | None  # how many resources are kept apart, where others are counted as `other`
    notes: list[str]  # what was not done as asked
    complete_through: dt.datetime | None

    @property
    def all_calls(self) -> int:
        return self.calls.accepted + self.calls.refused

    @property
    def calls_note(self) -> str:
        return f"{self.before.calls_change} on the period before" if self.before else ""

    @property
    def refused_note(self) -> str:
        return f"{percent(self.calls.refused, self.all_calls)} of all calls"

    @property
    def quantity_label(self) -> str:
        """What a meter counts; of several meters their own units say it."""
        return _unit(self.meter) if self.meter else "Quantity"

    @property
    def quantity_note(self) -> str:
        if self.meter is None or self.meter == meters.REQUESTS:
            return "Accepted calls times their cost"
        return f"Accepted, in units of one {self.meter.unit}"

    @property
    def chart_label(self) -> str:
        return f"{self.unit} per {self.bucket} (UTC), by {self.by}"

    @property
    def layers(self) -> list[Layer]:
        return [layer for layer, _ in self.chart.layers]


@dataclass(frozen=True, slots=True)
class _Measure:
    """What is drawn, and how its figures are written."""

    place: int  # in a `Part`
    text: Callable[[int], str]
    unit: str


def explore(
    organization: Organization, query: QueryDict, now: dt.datetime, *, whole: bool = False
) -> Explorer:
    """What `query` asks for: one page of the sums, or the `whole` of them for a file."""
    complete_through = reports.complete_through()  # before the rows are read: they hold at least this much
    known = meters.read()
    form = ExplorerForm(query, known, now)
    chosen, span, by = form.chosen, form.span, form.chosen["by"]
    bucket, notes = _bucket(chosen.get("bucket", ""), span, form.complaint)
    key = _key(organization, chosen.get("key", ""), notes)
    meter = known[chosen["meter"]] if "meter" in chosen else _only(known)
    measure = _measure(meter, chosen["show"])
    if meter is None and chosen["show"] == "quantity":
        notes.append("Quantities of different meters do not add up: choose one meter. Here are calls.")
    asked = Asked(
        *(span.start, span.end, chosen.get("meter", ""), chosen.get("environment", "")),
        key=key.pk if key else None,
    )
    if by in explorer.FEW:
        found, every = explorer.everything(organization, asked, by, bucket)
    else:
        found, every = explorer.sums(organization, asked, by), None
    order = sorted(found.groups, key=lambda group: _rank(group, found.groups[group], measure))
    page = Paginator(order, len(order) or 1 if whole else PAGE).get_page(query.get("page"))
    top = _top(order, by)
    names = _names(organization, {*top, *page.object_list}, by, known, key)
    cuts = explorer.cuts(span.start, span.end, bucket)
    if every is None:
        every = explorer.buckets(organization, asked, by, bucket, top) if order else {}
    parts = explorer.only(every, top)
    layers = [
        Layer(names[group].name, colour, _values(parts, cuts, group, measure))
        for group, colour in _coloured(top, by).items()
    ]
    if len(order) > len(top):
        layers.append(Layer("Other", _GREY, _values(parts, cuts, None, measure)))
    before = None
    if "compare" in chosen:
        before = _before(organization, asked, by, bucket, span.earlier(now), measure)
    line = before.line if before else []
    titles = [_bucket_title(at, bucket) for at in cuts]
    calls = _all(found.groups)
    return Explorer(
        form=form,
        start=span.start,
        end=span.end,
        title=_range_title(span.start, span.end),
        bucket=bucket,
        by=by,
        table=chosen["table"],
        key=key,
        meter=meter,
        unit=measure.unit,
        chart=stacked_chart(titles, [_label(at, bucket) for at in cuts], layers, line, measure.text),
        calls=calls,
        quantity=_grouped(meter.as_text(calls.quantity)) if meter else "",
        before=before and _compared(before, calls, measure),
        page=page,
        groups=_rows(page.object_list, by, found.groups, before, names, known, meter, measure),
        times=_times(cuts, titles, bucket, span, layers, line, measure),
        total=measure.text(_part(calls)[measure.place]),
        reasons=reasons(_refusals(found.outcomes)),
        answers=_answers(organization, asked, by),
        kept=_kept(organization, meter) if by == "resource" and resources.OTHER in found.groups else None,
        notes=notes,
        complete_through=complete_through,
    )


class _Name(NamedTuple):
    """How a group is called: by programs, by people, and a word more."""

    value: str
    name: str
    note: str
    key: Key | None


class _Before(NamedTuple):
    """The period before: its sums by group, and bucket by bucket."""

    title: str
    groups: Mapping[Group, Part]
    line: list[int]


def _before(
    organization: Organization,
    asked: Asked,
    by: str,
    bucket: str,
    earlier: tuple[dt.datetime, dt.datetime],
    measure: _Measure,
) -> _Before:
    """Keys may be so many that their sums bucket by bucket would be too much; of anything else one query
    has all."""
    then = asked._replace(start=earlier[0], end=earlier[1])
    parts = explorer.buckets(organization, then, by, bucket, () if by == "key" else None)
    buckets, groups = Counter[dt.datetime](), defaultdict[Group, list[Part]](list)
    for (at, group), part in parts.items():
        buckets[at] += part[measure.place]
        if group is not None:
            groups[group].append(part)
    if by == "key":
        found = explorer.sums(organization, then, by).groups
        groups.update({group: [_part(calls)] for group, calls in found.items()})
    return _Before(
        _range_title(*earlier),
        {group: Part(*map(sum, zip(*each, strict=True))) for group, each in groups.items()},
        [max(buckets[at], 0) for at in explorer.cuts(*earlier, bucket)],
    )


def _compared(before: _Before, now: Calls, measure: _Measure) -> Compared:
    was = Part(*map(sum, zip(Part(0, 0), *before.groups.values(), strict=True)))
    return Compared(
        title=before.title,
        calls=was.calls,
        calls_change=change(now.accepted + now.refused, was.calls),
        total=measure.text(was[measure.place]),
        change=change(_part(now)[measure.place], was[measure.place]),
    )


def _part(calls: Calls) -> Part:
    return Part(calls.accepted + calls.refused, calls.quantity)


def _answers(organization: Organization, asked: Asked, by: str) -> list[Answered]:
    """They are not counted by meter or environment."""
    if by != "outcome" or asked.meter or asked.environment:
        return []
    return answers(reports.responses(organization, asked.start, asked.end, key=asked.key))


def _kept(organization: Organization, meter: Meter | None) -> int | None:
    return resources.reached(organization).get(meter.name) if meter else None


def _all(groups: Mapping[Group, Calls]) -> Calls:
    """Of all groups together."""
    return Calls(*map(sum, zip(Calls(0, 0, 0), *groups.values(), strict=True)))


def _rows(
    shown: Iterable[Group],
    by: str,
    found: Mapping[Group, Calls],
    before: _Before | None,
    names: Mapping[Group, _Name],
    known: Mapping[str, Meter],
    meter: Meter | None,
    measure: _Measure,
) -> list[GroupRow]:
    total = _part(_all(found))[measure.place]
    rows = []
    for group in shown:
        calls = found[group]
        value = _part(calls)[measure.place]
        was = before.groups.get(group, Part(0, 0))[measure.place] if before else 0
        own = _known(str(group), known) if by == "meter" else meter
        rows.append(
            GroupRow(
                *names[group],
                calls=calls.accepted + calls.refused,
                accepted=calls.accepted,
                refused=calls.refused,
                meter=own,
                quantity=_grouped(own.as_text(calls.quantity)) if own else "",
                share=percent(value, total),
                before=measure.text(was),
                change=change(value, was),
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


def _bucket(asked: str, span: Span, complaint: str) -> tuple[str, list[str]]:
    """The bucket that is asked for and fits, else one that suits the range; and what to say about it."""
    notes = [complaint] if complaint else []
    if asked and span.days <= explorer.LONGEST[asked]:
        return asked, notes
    if asked:
        notes.append(f"Hours are shown for ranges of up to {explorer.LONGEST['hour']} days.")
    if span.days <= 2:
        return "hour", notes
    return ("day" if span.days <= 100 else "month"), notes


def _key(organization: Organization, public_id: str, notes: list[str]) -> Key | None:
    if not public_id:
        return None
    key = organization.keys.filter(public_id=public_id).first()
    if key is None:
        notes.append("There is no such key here, so all keys are shown.")
    return key


def _known(name: str, known: Mapping[str, Meter]) -> Meter:
    """One that this database has lost counts in smallest units of no name."""
    return known.get(name) or Meter(name, "unit", name)


def _only(known: Mapping[str, Meter]) -> Meter | None:
    return next(iter(known.values())) if len(known) == 1 else None


def _measure(meter: Meter | None, show: str) -> _Measure:
    """Quantities of one meter, in its unit, or calls; of several meters calls alone."""
    if meter is None or show != "quantity":
        return _Measure(0, "{:,}".format, "Calls")
    return _Measure(1, lambda figure: _grouped(meter.as_text(figure)), _unit(meter))


def _unit(meter: Meter) -> str:
    return "Units" if meter == meters.REQUESTS else meter.title


def _rank(group: Group, calls: Calls, measure: _Measure) -> tuple[int, int, str]:
    """The largest first; names decide between equals."""
    return -_part(calls)[measure.place], -calls.accepted - calls.refused, str(group)


def _top(order: Sequence[Group], by: str) -> list[Group]:
    """The groups that get a layer, from the ground up. What was let in is the ground of what was not."""
    top = list(order[: explorer.TOP])
    if by == "outcome" and Code.VALID.name in order:
        top = [Code.VALID.name, *(group for group in top if group != Code.VALID.name)][: explorer.TOP]
    return top


def _coloured(top: Sequence[Group], by: str) -> dict[Group, str]:
    if by != "outcome":
        return dict(zip(top, _COLOURS, strict=False))
    refusals = iter(_REFUSALS)
    return {group: _COLOURS[0] if group == Code.VALID.name else next(refusals) for group in top}


def _names(
    organization: Organization,
    groups: Collection[Group],
    by: str,
    known: Mapping[str, Meter],
    only: Key | None,
) -> dict[Group, _Name]:
    match by:
        case "key":
            # A database takes only so many parameters in one statement.
            if only is not None:
                return {only.pk: _key_name(only.pk, only)}
            keys = organization.keys.order_by()
            keys = keys.filter(pk__in=groups) if len(groups) <= 2 * PAGE else keys
            found = {key.pk: key for key in keys}
            return {group: _key_name(group, found.get(int(group))) for group in groups}
        case "meter":
            return {group: _Name(str(group), _known(str(group), known).title, "", None) for group in groups}
        case "outcome":
            return {group: _outcome_name(str(group)) for group in groups}
        case "environment":
            titles = dict(Environment.choices)
            return {group: _Name(str(group), titles.get(str(group), "Unknown"), "", None) for group in groups}
    return {group: _Name(str(group), str(group) or "None named", "", None) for group in groups}


def _key_name(group: Group, key: Key | None) -> _Name:
    if key is None:  # of a database that was restored
        return _Name(f"unknown-{group}", f"Unknown key {group}", "", None)
    return _Name(key.public_id, key.name, "Test" if key.environment == Environment.TEST else "", key)


def _outcome_name(name: str) -> _Name:
    code = Code.__members__.get(name)
    if code is Code.VALID:
        return _Name(name, "Accepted", "", None)
    return _Name(name, code.title if code else name, code.sentence if code else "", None)


def _refusals(outcomes: Mapping[str, int]) -> list[tuple[str, int]]:
    refused = [(name, calls) for name, calls in outcomes.items() if name != Code.VALID.name]
    return sorted(refused, key=lambda each: (-each[1], each[0]))


def _values(
    parts: Mapping[tuple[dt.datetime, Group | None], Part],
    cuts: Sequence[dt.datetime],
    group: Group | None,
    measure: _Measure,
) -> list[int]:
    """One figure a bucket. What was corrected below zero is drawn as nothing."""
    return [max(parts.get((at, group), Part(0, 0))[measure.place], 0) for at in cuts]


def _times(
    cuts: Sequence[dt.datetime],
    titles: Sequence[str],
    bucket: str,
    span: Span,
    layers: Sequence[Layer],
    before: Sequence[int],
    measure: _Measure,
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


def _bucket_title(at: dt.datetime, bucket: str) -> str:
    if bucket == "month":
        return f"{at:%B %Y}"
    day = f"{at:%a} {at.day} {at:%b %Y}"
    return f"{day}, {at:%H:%M}" if bucket == "hour" else day


def _label(at: dt.datetime, bucket: str) -> str:
    """Below the axis."""
    if bucket == "month":
        return f"{at:%b %Y}"
    return f"{at:%H:%M}" if bucket == "hour" and at.hour else f"{at.day} {at:%b}"


def _range_title(start: dt.datetime, end: dt.datetime) -> str:
    """The range in words: whole days by their dates, else with its hours."""
    if start.hour or end.hour:
        return f"{start.day} {start:%b %Y, %H:%M} – {end.day} {end:%b %Y, %H:%M}"
    last = end - DAY
    if start.date() == last.date():
        return f"{last.day} {last:%b %Y}"
    return f"{start.day} {start:%b %Y} – {last.day} {last:%b %Y}"


def _next_hour(now: dt.datetime) -> dt.datetime:
    return now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0) + HOUR


def _month_before(first: dt.datetime) -> dt.datetime:
    return (first - DAY).replace(day=1)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def _grouped(number: str) -> str:
    """A plain decimal with commas between its thousands."""
    whole, point, rest = number.partition(".")
    return f"{int(whole):,}{point}{rest}" if whole.lstrip("-") != "0" else number


def _plain(figure: str) -> str:
    """A figure as programs read it."""
    return figure.replace(",", "")


def _utc(at: dt.datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
