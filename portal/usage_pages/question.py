"""What the usage explorer is asked: a range, buckets, and what to stack by, as an address has them.

A value that makes no sense is as if it were not there. It reads nothing.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django import forms
from django.http import QueryDict

from keys.models import Environment
from usage import explorer
from usage.meters import Meter

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
_TABLES: Final = {"groups": "Sums", "time": "Over time"}


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
        # Whoever turns to dates of their own begins with those that are shown; wrong ones stay, to be mended.
        assert isinstance(self.data, dict)
        shown = {
            "start": self.span.start.date().isoformat(),
            "end": (self.span.end - HOUR).date().isoformat(),
        }
        if self.complaint:
            self.data = shown | self.data
        else:
            self.data = self.data | shown | {"range": self.chosen["range"]}


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


def fitting_bucket(asked: str, span: Span, complaint: str) -> tuple[str, list[str]]:
    """The bucket that is asked for and fits, else one that suits the range; and what to say about it."""
    notes = [complaint] if complaint else []
    if asked and span.days <= explorer.LONGEST[asked]:
        return asked, notes
    if asked:
        notes.append(f"Hours are shown for ranges of up to {explorer.LONGEST['hour']} days.")
    if span.days <= 2:
        return "hour", notes
    return ("day" if span.days <= 100 else "month"), notes


def _next_hour(now: dt.datetime) -> dt.datetime:
    return now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0) + HOUR


def _month_before(first: dt.datetime) -> dt.datetime:
    return (first - DAY).replace(day=1)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)
