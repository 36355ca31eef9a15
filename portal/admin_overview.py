"""What the admin's index shows above its tables: how it goes today, and what waits for staff.

Everything is read from roll-ups and from rows that have an index, in a fixed number of queries however much
there is. It changes nothing: each line leads to the page where it is explained or mended.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.urls import reverse

from keys import oversight
from keys.models import Organization
from keys.verdicts import Code
from portal import attention, outbox, staff_billing, terms
from portal.attention import RankedKey
from portal.pages import percent
from portal.staff_billing import MonthState
from usage import reports, staff_reports
from usage.staff_reports import Journals, SpoolHealth, Today

SHOWN: Final = 5  # rows of each list
LATELY: Final = dt.timedelta(days=7)


class Task(NamedTuple):
    """Something that waits for staff. `tone` is bad or warn."""

    text: str
    url: str
    tone: str = "warn"


class Traffic(NamedTuple):
    """Today's calls, and what there is to say about them."""

    today: Today
    change: str  # against yesterday
    refused: str  # the share, and the most frequent reason
    refusals_url: str


class Counting(NamedTuple):
    """How far the journals are counted."""

    through: dt.datetime | None
    journals: int
    behind: list[SpoolHealth]


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything above the tables."""

    traffic: Traffic
    tasks: list[Task]
    counting: Counting
    keys: list[RankedKey]
    months: list[MonthState]
    newest: QuerySet[Organization]
    terms: str  # how many have accepted the current ones; empty: there are none


def overview(now: dt.datetime) -> Overview:
    """How it stands at `now`."""
    journals, months = staff_reports.journals(now), staff_billing.months(now)
    spools = staff_reports.spools(now)
    return Overview(
        traffic=_traffic(now),
        tasks=[*_machinery(journals), *_waiting(now), *_billing(months)],
        counting=Counting(reports.complete_through(), len(spools), [each for each in spools if each.behind]),
        keys=attention.weightiest_keys(now, SHOWN),
        months=months[:SHOWN],
        newest=oversight.newest_organizations(SHOWN),
        terms=_terms(),
    )


# --- calls ----------------------------------------------------------------------------------------


def _traffic(now: dt.datetime) -> Traffic:
    today = staff_reports.today(now)
    refused = f"{percent(today.refused, today.accepted + today.refused)} of all"
    url = reverse("staff_refusals")
    if today.reasons:
        name = today.reasons[0][0]
        code = Code.__members__.get(name)
        refused += f", mostly {code.title.lower() if code else name}"
        url += "?" + urlencode({"code": name})
    return Traffic(today, change(today), refused, url)


def change(today: Today) -> str:
    """Today's whole hours against the same ones of yesterday, in words."""
    was, now_is = today.accepted_yesterday, today.accepted_until
    if not today.until.hour:
        return "The day has just begun"
    by = f"by {today.until:%H:%M} UTC"
    if not was:
        return f"None yesterday {by}"
    share = round(100 * abs(now_is - was) / was)
    if not share:
        return f"As many as yesterday {by}"
    if share >= 1000:
        return f"{now_is // was:,} times yesterday’s {by}"
    return f"{share}% {'more' if now_is > was else 'fewer'} than yesterday {by}"


# --- what waits -----------------------------------------------------------------------------------


def _machinery(journals: Journals) -> Iterable[Task]:
    staff = reverse("staff")
    if journals.held:
        yield Task(f"Journals of this host hold {journals.held}", staff, "bad")
    if journals.holder is not None:
        since = f"{journals.holder.since:%-d %b %H:%M} UTC"
        yield Task(f"Counting waits for {journals.holder.host} since {since}", staff, "bad")
    if journals.findings:
        url = reverse("admin:usage_finding_changelist") + "?seen_at__isempty=1"
        yield Task(f"{_count(journals.findings, 'finding')} in the journals that nobody has seen", url)


def _waiting(now: dt.datetime) -> Iterable[Task]:
    if leaked := oversight.leaked_and_alive(now - LATELY, now):
        verb = "works" if leaked == 1 else "work"
        yield Task(f"{_count(leaked, 'leaked key')} still {verb}", reverse("staff_leaks"), "bad")
    if requests := oversight.waiting_requests().count():
        verb = "waits" if requests == 1 else "wait"
        yield Task(f"{_count(requests, 'request')} for a scope {verb}", reverse("staff_requests"))
    if lost := outbox.given_up(now - LATELY):
        url = reverse("admin:portal_mail_changelist") + "?state=given+up"
        yield Task(f"{_count(lost, 'mail')} of the last 7 days could not be sent", url)


def _terms() -> str:
    if not terms.version():
        return ""
    accepted, members = terms.accepted_and_members()
    return f"Terms {terms.version()}: accepted by {accepted:,}; {_count(members, 'member')} in all"


def _billing(months: list[MonthState]) -> Iterable[Task]:
    billing = reverse("staff_billing")
    for month in months:
        url = f"{billing}?period={month.period}"
        if month.verified is not None and month.verified.difference:
            yield Task(f"{month.period} differs from its statement", url, "bad")
        elif month.state == "ready":
            yield Task(f"{month.period} can be closed", url)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
