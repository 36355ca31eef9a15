"""What a key's page shows: what it may do, who uses which of its secrets, its calls, its whole history.

It reads one organization's key in a fixed number of queries, few as long as there is little to tell, and
never writes.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.core.paginator import Page
from django.db.models import Count, Exists, Max, OuterRef, QuerySet, Subquery
from django.shortcuts import get_object_or_404

from keys import compliance, history
from keys.compliance import Rule, Terms
from keys.forms import askable
from keys.history import Entry
from keys.models import AuditEvent, Key, LeakReport, Organization, ScopeRequest, Secret
from keys.verdicts import Code
from portal import mends
from portal.charts import BarChart
from portal.mends import Mend
from portal.pages import (
    CHART_DAYS,
    DAY,
    Answered,
    Badge,
    Counted,
    QuotaRow,
    Reason,
    answers,
    badge,
    broken,
    brownouts_to_come,
    calls_chart,
    quota_rows,
    reasons,
    span,
)
from usage import reports, sources, watermark
from usage.models import ResponseRollup, SecretUse, Source, Trial
from usage.reports import Outcome
from usage.sources import LateUse, Standing

HISTORY_PAGE = 20
ASKED = 5  # requests for scopes
SOURCES = 50  # rows


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One line of a key's secrets."""

    secret: Secret
    use: SecretUse | None
    badge: Badge
    running: bool  # replaced, and still working
    stops_at: dt.datetime | None = None  # or stopped; None: never, or not before the key ended


class SourceRow(NamedTuple):
    """One line of where a key is used."""

    source: Source
    badge: Badge  # of the secret


class Rotation(NamedTuple):
    """A rotation whose old secret still works, and whether anybody would miss it."""

    old: Secret
    new: Secret
    began_at: dt.datetime
    tone: str
    title: str
    text: str
    is_safe: bool
    sources: list[Source]  # of the old secret, since the rotation


class Refused(NamedTuple):
    """Why calls were refused, and what would make them work."""

    reason: Reason
    mend: Mend | None


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Everything on a key's page."""

    key: Key
    badge: Badge
    last_source: str  # where it was used last
    current: Secret | None
    secrets: list[SecretRow]
    rotation: Rotation | None
    sources: list[SourceRow]
    late: list[LateUse]
    chart: BarChart
    last_used: dt.datetime | None
    reasons: list[Refused]
    answers: list[Answered]
    quotas: list[QuotaRow]
    outside: list[str]  # how it is outside its policy, and what mends it
    asked: list[ScopeRequest]  # for scopes, the newest first
    may_ask: bool
    rotation_due: dt.datetime | None
    is_overdue: bool
    brownouts: list[dt.datetime]  # when they begin that are to come
    complete_through: dt.datetime | None
    leaks: int
    trial: int | None  # the one that is running, by primary key
    changed_at: dt.datetime | None  # when somebody last did something with it
    history: Page[AuditEvent] | None  # None: not for this member
    entries: list[Entry]


def find(organization: Organization, public_id: str) -> Key:
    """The organization's key with its scopes and maker, or 404."""
    keys = organization.keys.select_related("organization__policy", "created_by").prefetch_related("scopes")
    return get_object_or_404(keys, public_id=public_id)


class _Beside(NamedTuple):
    """What there is beside a key, known before it is read."""

    leaks: int
    trial: int | None
    may_ask: bool
    is_asked: bool  # are there requests for scopes?
    is_answered: bool  # is it known how the API answered?
    complete_through: dt.datetime | None
    events: int = 0
    changed_at: dt.datetime | None = None


def _beside(key: Key, since: dt.datetime, *, with_history: bool) -> _Beside:
    """One query for what most keys have little or nothing of."""

    def one(rows: QuerySet[Any], sum_: Count | Max) -> Subquery:
        return Subquery(rows.order_by().values("key").annotate(found=sum_).values("found"))

    of_key = {"key": OuterRef("pk")}
    answered = ResponseRollup.objects.filter(organization=key.organization_id, hour__gte=since, **of_key)
    columns = [
        one(LeakReport.objects.filter(**of_key), Count("pk")),
        Subquery(Trial.objects.running().filter(**of_key).values("pk")[:1]),
        Exists(askable(key)),
        Exists(ScopeRequest.objects.filter(**of_key)),
        Exists(answered),
        *watermark.columns(),
    ]
    if with_history:
        events = AuditEvent.objects.filter(**of_key)
        columns += [one(events, Count("pk")), one(events, Max("at"))]
    leaks, trial, may_ask, is_asked, is_answered, *rest = Key.objects.values_list(*columns).get(pk=key.pk)
    through, known = watermark.told(*rest[:4]), rest[4:]
    return _Beside(leaks or 0, trial, may_ask, is_asked, is_answered, through, *known)


def key_page(
    organization: Organization, key: Key, number: str | None, now: dt.datetime, *, with_history: bool
) -> KeyPage:
    """A key with its secrets, its usage of the last 30 days, and one page of its history if asked for."""
    end = now.astimezone(dt.UTC).date() + DAY
    start = _midnight(end - CHART_DAYS * DAY)
    beside = _beside(key, start, with_history=with_history)
    through = beside.complete_through  # read before the sums: they hold at least this much
    secrets = _secret_rows(key, now)
    calls = reports.outcomes(organization, start.date(), end, key=key)
    events = key.events.select_related("key").order_by("-number")
    page = Counted(events, HISTORY_PAGE, beside.events).get_page(number) if with_history else None
    current = next((row.secret for row in secrets if row.secret.stops_at is None), None)
    rules = broken(key, current, Terms.of(organization.policy), now)
    due = None
    if current is not None:
        due = compliance.rotation_due(organization.policy.rotate_days, current.created_at)
    last = max((row.use for row in secrets if row.use), key=lambda use: use.last_used_at, default=None)
    was_rotated = any(row.secret.stops_at is not None for row in secrets)
    return KeyPage(
        key=key,
        badge=badge(key, now),
        last_used=last.last_used_at if last else None,
        last_source=_source(last) if last else "",
        current=current,
        secrets=secrets,
        rotation=_rotation(secrets, through, now),
        sources=_source_rows(key, secrets) if last else [],
        late=sources.used_after_end(key, start) if was_rotated else [],
        chart=calls_chart(calls, end),
        reasons=_refused(key, calls),
        answers=_answers(key, start, _midnight(end)) if beside.is_answered else [],
        quotas=quota_rows(organization, now, key) if key.revoked_at is None else [],
        outside=[compliance.SENTENCES[rule] for rule in rules if rule in compliance.SETTINGS],
        asked=list(key.scope_requests.select_related("scope")[:ASKED]) if beside.is_asked else [],
        may_ask=key.revoked_at is None and beside.may_ask,
        rotation_due=due,
        is_overdue=Rule.ROTATION in rules,
        brownouts=brownouts_to_come(organization, key, now),
        complete_through=through,
        leaks=beside.leaks,
        trial=beside.trial,
        changed_at=beside.changed_at,
        history=page,
        entries=history.entries(page.object_list if page else []),
    )


def _secret_rows(key: Key, now: dt.datetime) -> list[SecretRow]:
    rows = []
    for secret in key.secrets.select_related("last_use", "created_by"):
        secret.key = key
        rows.append(_secret_row(secret, getattr(secret, "last_use", None), key, now))
    return rows


def _source(use: SecretUse) -> str:
    return " · ".join(each for each in (use.address or "unknown address", use.user_agent[:48]) if each)


def _refused(key: Key, calls: Sequence[Outcome]) -> list[Refused]:
    """The commonest first, each with what mends it."""
    sums: dict[str, int] = {}
    for each in calls:
        if not each.is_accepted:
            sums[each.outcome] = sums.get(each.outcome, 0) + each.calls
    return [
        Refused(
            reason,
            mends.of(Code[reason.code], key, key.organization) if reason.code in Code.__members__ else None,
        )
        for reason in reasons(sorted(sums.items(), key=lambda each: (-each[1], each[0])))
    ]


def _answers(key: Key, start: dt.datetime, end: dt.datetime) -> list[Answered]:
    return answers(reports.responses(key.organization, start, end, key=key))


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def _secret_row(secret: Secret, use: SecretUse | None, key: Key, now: dt.datetime) -> SecretRow:
    stops_at = secret.stops_at
    if key.revoked_at is not None:
        # An overlap that would have gone on ended with the key.
        stopped = stops_at if stops_at is not None and stops_at <= key.revoked_at else None
        return SecretRow(secret, use, Badge("ended", "Revoked"), running=False, stops_at=stopped)
    if stops_at is None:
        return SecretRow(secret, use, Badge("current", "Current"), running=False)
    if secret.works_at(now):
        badge = Badge("overlap", f"Stops in {span(stops_at - now)}")
        return SecretRow(secret, use, badge, running=True, stops_at=stops_at)
    return SecretRow(secret, use, Badge("ended", "Ended"), running=False, stops_at=stops_at)


def _rotation(secrets: Sequence[SecretRow], through: dt.datetime | None, now: dt.datetime) -> Rotation | None:
    """The rotation whose overlap runs, if one does: it began when the current secret was made."""
    old = next((row.secret for row in secrets if row.running), None)
    new = next((row.secret for row in secrets if row.secret.stops_at is None), None)
    if old is None or new is None:
        return None
    use = sources.old_use(old, new.created_at, through, now)
    since = span(now - (use.last or new.created_at))
    tone, title, text = {
        Standing.USED: (
            "warn",
            "The old secret is still used",
            f"Its last call was {since} ago. Whoever is listed here needs the new one.",
        ),
        Standing.QUIET: (
            "info",
            "Nobody has used the old secret since the rotation",
            f"That is only {since} ago. After 24 hours without a call it is safe to end.",
        ),
        Standing.SAFE: (
            "good",
            "Safe to end now",
            f"Nobody has used the old secret for {since}.",
        ),
        Standing.UNKNOWN: (
            "info",
            "Not all calls are counted yet",
            "Whether the old secret is still used is known once they are.",
        ),
    }[use.standing]
    is_safe = use.standing is Standing.SAFE
    return Rotation(old, new, new.created_at, tone, title, text, is_safe, use.sources)


def _source_rows(key: Key, secrets: Sequence[SecretRow]) -> list[SourceRow]:
    """Where the key was used last; what is summed up of each secret comes after what is kept apart."""
    badges = {row.secret.pk: _short(row) for row in secrets}
    found = [SourceRow(each, badges[each.secret_id]) for each in sources.of_key(key)[:SOURCES]]
    return sorted(found, key=lambda row: row.source.is_other)


def _short(row: SecretRow) -> Badge:
    return Badge("overlap", "Old") if row.running else row.badge


def recent_use(organization: Organization, key: Key, now: dt.datetime) -> tuple[int, dt.datetime | None]:
    """Accepted calls of the last 24 hours (by whole hours), and the last use: who would notice?"""
    hour = now.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)
    sums = reports.totals(organization, hour - DAY, hour + dt.timedelta(hours=1), key=key)
    return sums.accepted, reports.key_last_used(organization, [key.pk]).get(key.pk)
