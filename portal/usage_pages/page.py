"""What the usage explorer shows: a range of calls, cut into buckets, stacked by what they have in common.

Page and file are made from one `Explorer`, so that they cannot disagree. It reads roll-ups of one
organization through `usage.explorer`, in a fixed number of queries, and never writes.
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from django.core.paginator import Page, Paginator
from django.http import QueryDict

from keys.models import Key, Organization
from keys.verdicts import Code
from portal.charts import Layer, StackedChart, stacked_chart
from portal.pages import PAGE, Answered, Reason, answers, percent, reasons
from portal.usage_pages.question import ExplorerForm, fitting_bucket
from portal.usage_pages.table import (
    Before,
    GroupRow,
    Measure,
    TimeRow,
    all_of,
    bucket_label,
    bucket_title,
    change,
    group_rows,
    grouped,
    measure_of,
    names_of,
    part_of,
    range_title,
    time_rows,
    unit_of,
)
from usage import explorer, meters, reports, resources
from usage.explorer import Asked, Group, Part
from usage.meters import Meter
from usage.reports import Calls

# The layers' colours from the ground up. Calls that were let in have the first one, refusals warmer ones.
_COLOURS: Final = ("1", "2", "3", "4", "5", "6")
_REFUSALS: Final = ("refused", "3", "5", "6", "4", "2")
_GREY: Final = "other"


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
        return unit_of(self.meter) if self.meter else "Quantity"

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


def explore(
    organization: Organization, query: QueryDict, now: dt.datetime, *, whole: bool = False
) -> Explorer:
    """What `query` asks for: one page of the sums, or the `whole` of them for a file."""
    complete_through = reports.complete_through()  # before the rows are read: they hold at least this much
    known = meters.read()
    form = ExplorerForm(query, known, now)
    chosen, span, by = form.chosen, form.span, form.chosen["by"]
    bucket, notes = fitting_bucket(chosen.get("bucket", ""), span, form.complaint)
    key = _key(organization, chosen.get("key", ""), notes)
    meter = known[chosen["meter"]] if "meter" in chosen else _only(known)
    measure = measure_of(meter, chosen["show"])
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
    names = names_of(organization, {*top, *page.object_list}, by, known, key)
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
    titles = [bucket_title(at, bucket) for at in cuts]
    calls = all_of(found.groups)
    return Explorer(
        form=form,
        start=span.start,
        end=span.end,
        title=range_title(span.start, span.end),
        bucket=bucket,
        by=by,
        table=chosen["table"],
        key=key,
        meter=meter,
        unit=measure.unit,
        chart=stacked_chart(titles, [bucket_label(at, bucket) for at in cuts], layers, line, measure.text),
        calls=calls,
        quantity=grouped(meter.as_text(calls.quantity)) if meter else "",
        before=before and _compared(before, calls, measure),
        page=page,
        groups=group_rows(page.object_list, by, found.groups, calls, before, names, known, meter, measure),
        times=time_rows(cuts, titles, bucket, span, layers, line, measure),
        total=measure.text(part_of(calls)[measure.place]),
        reasons=reasons(_refusals(found.outcomes)),
        answers=_answers(organization, asked, by),
        kept=_kept(organization, meter) if by == "resource" and resources.OTHER in found.groups else None,
        notes=notes,
        complete_through=complete_through,
    )


def _before(
    organization: Organization,
    asked: Asked,
    by: str,
    bucket: str,
    earlier: tuple[dt.datetime, dt.datetime],
    measure: Measure,
) -> Before:
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
        groups.update({group: [part_of(calls)] for group, calls in found.items()})
    return Before(
        range_title(*earlier),
        {group: Part(*map(sum, zip(*each, strict=True))) for group, each in groups.items()},
        [max(buckets[at], 0) for at in explorer.cuts(*earlier, bucket)],
    )


def _compared(before: Before, now: Calls, measure: Measure) -> Compared:
    was = Part(*map(sum, zip(Part(0, 0), *before.groups.values(), strict=True)))
    return Compared(
        title=before.title,
        calls=was.calls,
        calls_change=change(now.accepted + now.refused, was.calls),
        total=measure.text(was[measure.place]),
        change=change(part_of(now)[measure.place], was[measure.place]),
    )


def _answers(organization: Organization, asked: Asked, by: str) -> list[Answered]:
    """They are not counted by meter or environment."""
    if by != "outcome" or asked.meter or asked.environment:
        return []
    return answers(reports.responses(organization, asked.start, asked.end, key=asked.key))


def _kept(organization: Organization, meter: Meter | None) -> int | None:
    return resources.reached(organization).get(meter.name) if meter else None


def _key(organization: Organization, public_id: str, notes: list[str]) -> Key | None:
    if not public_id:
        return None
    key = organization.keys.filter(public_id=public_id).first()
    if key is None:
        notes.append("There is no such key here, so all keys are shown.")
    return key


def _only(known: Mapping[str, Meter]) -> Meter | None:
    return next(iter(known.values())) if len(known) == 1 else None


def _rank(group: Group, calls: Calls, measure: Measure) -> tuple[int, int, str]:
    """The largest first; names decide between equals."""
    return -part_of(calls)[measure.place], -calls.accepted - calls.refused, str(group)


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


def _refusals(outcomes: Mapping[str, int]) -> list[tuple[str, int]]:
    refused = [(name, calls) for name, calls in outcomes.items() if name != Code.VALID.name]
    return sorted(refused, key=lambda each: (-each[1], each[0]))


def _values(
    parts: Mapping[tuple[dt.datetime, Group | None], Part],
    cuts: Sequence[dt.datetime],
    group: Group | None,
    measure: Measure,
) -> list[int]:
    """One figure a bucket. What was corrected below zero is drawn as nothing."""
    return [max(parts.get((at, group), Part(0, 0))[measure.place], 0) for at in cuts]
