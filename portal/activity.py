"""The activity page: an organization's audit events, narrowed, page by page, and the same as a file.

What is asked for stands in the address, a time zone for its days included, and junk there narrows nothing.
Pages are cut by the events' numbers, which never change; nothing here writes.
"""

import datetime as dt
import json
import re
import zoneinfo
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from django import forms
from django.db.models import QuerySet
from django.http import QueryDict
from django.urls import reverse
from django.utils.functional import cached_property

from keys import history
from keys.history import Entry
from keys.models import AuditEvent, Membership, Organization
from keys.permissions import Act, allows
from usage.exports.csv import guarded, row

PAGE: Final = 50
CHUNK: Final = 1000  # rows of the file that are read at once
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_KEY = re.compile(r"key_[0-9A-Za-z]{16}", re.ASCII)
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}", re.ASCII)
_COLUMNS = (
    "number",
    "at",
    "act",
    "what",
    "actor",
    "actor_kind",
    "key",
    "key_name",
    "details",
    "data",
    "hash",
)

# Where an act can be seen: (what its name begins with, route, the act that opens that page).
_PLACES = (
    ("organization.transferred", "team", Act.VIEW_TEAM),
    ("organization.credited", "billing", Act.VIEW_BILLING),
    ("member.", "team", Act.VIEW_TEAM),
    ("billing_alert.", "billing", Act.VIEW_BILLING),
    ("subscription.", "billing", Act.VIEW_BILLING),
    ("period.", "billing", Act.VIEW_BILLING),
)


def _groups() -> list[tuple[str, Any]]:
    """The acts as a select's choices, under what they are done to."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for act, title in history.TITLES.items():
        name = act.partition(".")[0].replace("_", " ").capitalize()
        groups.setdefault(name, []).append((act, title))
    return [("", "Everything"), *groups.items()]


def _select(label: str, choices: Any) -> forms.ChoiceField:
    widget = forms.Select(attrs={"class": "input", "aria-label": label})
    return forms.ChoiceField(required=False, choices=choices, widget=widget)


def _text(label: str, maximum: int, **attrs: str) -> forms.CharField:
    attrs |= {"class": "input", "aria-label": label, "placeholder": label, "autocomplete": "off"}
    return forms.CharField(required=False, max_length=maximum, widget=forms.TextInput(attrs=attrs))


def _day(label: str) -> forms.DateField:
    widget = forms.DateInput({"type": "date", "class": "input", "aria-label": label, "title": label})
    return forms.DateField(required=False, widget=widget)


class FilterForm(forms.Form):
    """What the list is narrowed to; a value that makes no sense narrows nothing."""

    act = _select("What", _groups)
    actor = _text("Who", 254)
    key = _text("Key, by name or ID", 100)
    start = _day("From this day")
    end = _day("To this day")
    zone = forms.CharField(
        required=False, max_length=64, widget=forms.HiddenInput(attrs={"data-time-zone": ""})
    )

    @cached_property
    def chosen(self) -> dict[str, Any]:
        """The values that make sense."""
        self.is_valid()
        return {name: value for name, value in self.cleaned_data.items() if value}

    @cached_property
    def zone_info(self) -> dt.tzinfo:
        """The zone of the days; UTC where none is given, or none that is known."""
        return _zone(self.chosen.get("zone", "")) or dt.UTC

    @property
    def zone_name(self) -> str:
        return "UTC" if self.zone_info is dt.UTC else str(self.zone_info)

    @property
    def narrows(self) -> bool:
        return bool(self.chosen.keys() - {"zone"})

    @property
    def query(self) -> str:
        """What is chosen, for an address."""
        query = QueryDict(mutable=True)
        query.update({name: str(value) for name, value in self.chosen.items()})
        return query.urlencode()


def _zone(name: str) -> dt.tzinfo | None:
    if not _ZONE.fullmatch(name):
        return None
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


class Activity(NamedTuple):
    """A page of events. `newer` and `older` are queries of the pages beside it; empty: there are none."""

    form: FilterForm
    entries: list[Entry]
    newer: str
    older: str


def activity(organization: Organization, membership: Membership, query: QueryDict) -> Activity:
    """The page that an address asks for: the newest events, those before or those after one."""
    form = FilterForm(query)
    found = _find(organization, form)
    before, after = _number(query.get("before")), _number(query.get("after"))
    if after is not None:
        rows = list(found.filter(number__gt=after).order_by("number")[: PAGE + 1])
        newer, older = len(rows) > PAGE, True
        rows = rows[:PAGE][::-1]
    else:
        rows = list((found.filter(number__lt=before) if before else found)[: PAGE + 1])
        newer, older = before is not None, len(rows) > PAGE
        rows = rows[:PAGE]
    entries = [
        entry._replace(url=_place(organization, membership, event))
        for entry, event in zip(history.entries(rows), rows, strict=True)
    ]
    return Activity(
        form=form,
        entries=entries,
        newer=_beside(form, "after", rows[0].number) if newer and rows else "",
        older=_beside(form, "before", rows[-1].number) if older and rows else "",
    )


def file(organization: Organization, query: QueryDict) -> Iterator[bytes]:
    """What the address asks for as CSV, all of its pages, newest first. Events that come meanwhile are not
    in it. A text that a spreadsheet would take for a formula gets an apostrophe in front."""
    found = _find(organization, FilterForm(query))
    yield row(_COLUMNS)
    rows = list(found[:CHUNK])
    while rows:
        yield b"".join(map(_row, rows))
        rows = list(found.filter(number__lt=rows[-1].number)[:CHUNK])


def _row(event: AuditEvent) -> bytes:
    entry = history.entries([event])[0]
    details = "; ".join(
        f"{detail.label}: {' → '.join(value.text for value in detail.values)}" for detail in entry.details
    )
    key = event.key
    return row(
        [
            str(event.number),
            event.at.astimezone(dt.UTC).isoformat(timespec="milliseconds"),
            event.act,
            entry.title,
            guarded(entry.actor),
            event.actor_kind,
            key.public_id if key else "",
            guarded(key.name) if key else "",
            guarded(details),
            json.dumps(event.data, ensure_ascii=False, sort_keys=True),
            event.hash,
        ]
    )


def _find(organization: Organization, form: FilterForm) -> QuerySet[AuditEvent]:
    chosen = form.chosen
    key = chosen.get("key", "")
    return history.find(
        organization,
        act=chosen.get("act", ""),
        actor=chosen.get("actor", ""),
        key_id=key if _KEY.fullmatch(key) else "",
        key_name="" if _KEY.fullmatch(key) else key,
        since=_midnight(chosen.get("start"), form.zone_info),
        until=_midnight(chosen.get("end"), form.zone_info, days=1),
    )


def _midnight(day: dt.date | None, zone: dt.tzinfo, *, days: int = 0) -> dt.datetime | None:
    """When the day begins there, or one some days later. None: no day, or one that no event can be of."""
    if day is None or not 1970 < day.year < 9000:
        return None
    return dt.datetime.combine(day + dt.timedelta(days=days), dt.time(), zone)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _beside(form: FilterForm, name: str, number: int) -> str:
    return f"{form.query}&{name}={number}".lstrip("&")


def _place(organization: Organization, membership: Membership, event: AuditEvent) -> str:
    """The page that shows what came of it; a key's has a link of its own."""
    for begins, route, needs in _PLACES:
        if event.act.startswith(begins) and allows(membership.role, needs):
            return reverse(route, args=[organization.slug])
    return ""
