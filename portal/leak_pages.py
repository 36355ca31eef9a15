"""What pages show of leaks: a key's reports with what it may have been used for, and everybody's newest.

Exposure begins before anybody tells: without a day that the reader chooses, a week before the first report
is looked at. Everything is read from roll-ups and from the lists of sources, in a fixed number of queries.
"""

import datetime as dt
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from django import forms
from django.core.paginator import Page, Paginator
from django.http import QueryDict

from keys import oversight
from keys.models import Key, LeakReport
from portal.pages import Badge, badge
from usage import reports, sources
from usage.models import Source
from usage.reports import Calls, Totals

BEFORE: Final = dt.timedelta(days=7)
RESOURCES: Final = 50
PAGE: Final = 50
_HOUR: Final = dt.timedelta(hours=1)


class SinceForm(forms.Form):
    """The day from which the key was exposed; what makes no sense is as if it were empty."""

    since = forms.DateField(
        required=False,
        label="Since (UTC)",
        widget=forms.DateInput({"type": "date", "class": "input", "aria-label": "Since (UTC)"}),
    )

    def chosen(self) -> dt.date | None:
        self.is_valid()
        day: dt.date | None = self.cleaned_data.get("since")
        return day if day is not None and 1970 < day.year < 9000 else None


class Seen(NamedTuple):
    """A place that the key was used from; new: not before the exposure."""

    source: Source
    is_new: bool


@dataclass(frozen=True, slots=True)
class KeyLeaks:
    """Everything on the page about a key's leaks."""

    key: Key
    badge: Badge
    works: bool  # calls with it may still be let in
    leaks: list[LeakReport]
    form: SinceForm
    since: dt.datetime
    totals: Totals
    resources: list[tuple[str, Calls]]  # the most called first
    more: int  # resources that are not listed
    sources: list[Seen]
    new: int  # of the sources
    complete_through: dt.datetime | None


def key_leaks(key: Key, query: QueryDict, now: dt.datetime) -> KeyLeaks:
    """A key's reports, and its calls since it was exposed."""
    leaks = list(key.leaks.select_related("secret__key"))
    form = SinceForm(query)
    since = _since(key, leaks, form.chosen(), now)
    end = _hour(now) + _HOUR
    found = reports.by_resource(key.organization, since, end, key=key)
    resources = sorted(found.items(), key=lambda each: (-each[1].accepted - each[1].refused, each[0]))
    seen = [Seen(each, each.first_seen >= since) for each in sources.of_key(key).filter(last_seen__gte=since)]
    found_badge = badge(key, now)
    return KeyLeaks(
        key=key,
        badge=found_badge,
        works=found_badge.state in ("active", "expiring"),
        leaks=leaks,
        form=form,
        since=since,
        totals=reports.totals(key.organization, since, end, key=key),
        resources=resources[:RESOURCES],
        more=len(resources[RESOURCES:]),
        sources=seen,
        new=sum(each.is_new and not each.source.is_other for each in seen),
        complete_through=reports.complete_through(),
    )


def _since(key: Key, leaks: list[LeakReport], chosen: dt.date | None, now: dt.datetime) -> dt.datetime:
    """From when the key is looked at; never before it was made, and always the begin of an hour."""
    if chosen is not None:
        since = dt.datetime(chosen.year, chosen.month, chosen.day, tzinfo=dt.UTC)
    else:
        since = min((report.reported_at for report in leaks), default=now) - BEFORE
    return min(max(_hour(since), _hour(key.created_at)), _hour(now))


def _hour(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def newest(number: Any) -> Page[LeakReport]:  # whatever an address has as its page
    """Everybody's reports, newest first, one page of them."""
    return Paginator(oversight.leaks(), PAGE).get_page(number)
