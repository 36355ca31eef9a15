"""What the customers' pages show: rows, figures and charts, fetched in a fixed number of queries.

Views ask here and render; this module alone joins keys with their usage. It reads one organization at a
time, through `organization.<related>` and `usage.reports`, and never writes.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

from keys import brownouts, compliance, history, quotas
from keys.compliance import Facts, Rule, Terms
from keys.forms import askable
from keys.history import Entry
from keys.models import (
    AuditEvent,
    Environment,
    Key,
    KeyState,
    Organization,
    ScopeRequest,
    Secret,
)
from keys.verdicts import Code
from portal.charts import BarChart, bar_chart, sparkline
from usage import ledger, reports, sources
from usage.models import SecretUse, Source
from usage.sources import LateUse, Standing

PAGE = 50
HISTORY_PAGE = 20
CHART_DAYS = 30
ASKED = 5  # requests for scopes on a key's page
SOURCES = 50  # rows
LABELS = 3  # of a key in the list
DAY = dt.timedelta(days=1)
_STATUS_CLASSES = {2: "Success", 3: "Elsewhere", 4: "The call was at fault", 5: "The API was at fault"}


class Counted(Paginator):  # type: ignore[type-arg]  # not subscriptable at run time
    """Pages of rows whose number is known already."""

    def __init__(self, rows: QuerySet[Any], size: int, count: int) -> None:
        super().__init__(rows, size)
        self._count = count

    @cached_property
    def count(self) -> int:
        return self._count


class Badge(NamedTuple):
    """A state for `components/badge.html`."""

    state: str
    text: str


class Reason(NamedTuple):
    """A refusal's code in words, and how often."""

    code: str
    title: str
    sentence: str
    calls: int
    share: str  # of all refusals


class Answered(NamedTuple):
    """How often the API answered with a class of status."""

    status: str  # `2xx`
    meaning: str
    responses: int
    share: str  # of all responses


class QuotaRow(NamedTuple):
    """A hard quota, and how much of it is used as far as roll-ups are complete."""

    owner: str  # key or organization
    limit: int
    meter: str
    unit: str
    used: int
    share: str  # of a bar's width, in percent
    is_full: bool
    anew_in: str
    anew_at: dt.datetime

    @property
    def left(self) -> int:
        return max(self.limit - self.used, 0)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """One line of the key list."""

    key: Key
    secret: Secret | None
    badge: Badge
    note: str  # what its policy wants of it
    spark: str
    requests: int
    last_used: dt.datetime | None

    @property
    def labels(self) -> list[tuple[str, str]]:
        """The first entries of its metadata."""
        return list(self.key.metadata.items())[:LABELS]


@dataclass(frozen=True, slots=True)
class SecretRow:
    """One line of a key's secrets."""

    secret: Secret
    use: SecretUse | None
    badge: Badge
    running: bool  # replaced, and still working


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


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Everything on a key's page."""

    key: Key
    badge: Badge
    secrets: list[SecretRow]
    rotation: Rotation | None
    sources: list[SourceRow]
    late: list[LateUse]
    chart: BarChart
    accepted: int
    refused: int
    last_used: dt.datetime | None
    reasons: list[Reason]
    answers: list[Answered]
    quotas: list[QuotaRow]
    outside: list[str]  # how it is outside its policy, and what mends it
    asked: list[ScopeRequest]  # for scopes, the newest first
    may_ask: bool
    rotation_due: dt.datetime | None
    is_overdue: bool
    brownouts: list[dt.datetime]  # when they begin that are to come
    complete_through: dt.datetime | None
    history: Page[AuditEvent] | None  # None: not for this member
    entries: list[Entry]


def badge(key: Key, now: dt.datetime) -> Badge:
    """A key's state in a few words; what works by itself does not while its organization is suspended."""
    state = key.state_at(now)
    if key.canary:
        return Badge("canary", "Canary")
    if key.organization.suspended and state in (KeyState.ACTIVE, KeyState.EXPIRING):
        return Badge("suspended", "Suspended")
    if state == KeyState.EXPIRING and key.expires_at is not None:
        return Badge(state.value, f"Expires in {span(key.expires_at - now)}")
    return Badge(state.value, state.label)


def _broken(key: Key, secret: Secret | None, terms: Terms, now: dt.datetime) -> list[Rule]:
    """The rules that a key breaks while anyone could still use it or let it be used again."""
    if key.state_at(now) in (KeyState.REVOKED, KeyState.EXPIRED):
        return []
    return compliance.broken(terms, Facts.of(key, secret), now)


def note(key: Key, secret: Secret | None, terms: Terms, now: dt.datetime) -> str:
    """What a policy wants of a key, in a few words; the most urgent."""
    if key.is_retired and key.state_at(now) == KeyState.DISABLED:
        return "Retired: it was not used"
    if key.retires_at is not None and key.state_at(now) in (KeyState.ACTIVE, KeyState.EXPIRING):
        return f"Not used: retires in {span(key.retires_at - now)}"
    rules = _broken(key, secret, terms, now)
    if compliance.SETTINGS.intersection(rules):
        return "Outside the policy"
    return "Rotation due" if Rule.ROTATION in rules else ""


def span(left: dt.timedelta) -> str:
    """A length of time in its largest whole unit, as in `6 days`."""
    for unit, seconds in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count = int(left.total_seconds() // seconds)
        if count:
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "a moment"


def percent(part: int, whole: int) -> str:
    """`part` of `whole` with as many digits as mean something: `0.42%`, `12%`; `—` of nothing."""
    if not whole:
        return "—"
    share = 100 * part / whole
    if 0 < share < 0.01:
        return "<0.01%"
    return f"{share:.0f}%" if share >= 10 or share == int(share) else f"{share:.2f}%"


def _chart(days: Sequence[reports.Day]) -> BarChart:
    return bar_chart([d.date for d in days], [d.accepted for d in days], [d.refused for d in days])


def reasons(reasons: Iterable[tuple[str, int]]) -> list[Reason]:
    rows = list(reasons)
    total = sum(calls for _, calls in rows)
    return [
        Reason(name, Code[name].title, Code[name].sentence, calls, percent(calls, total))
        if name in Code.__members__
        else Reason(name, name, "", calls, percent(calls, total))
        for name, calls in rows
    ]


def answers(responses: dict[int, int]) -> list[Answered]:
    total = sum(responses.values())
    return [
        Answered(f"{each}xx", _STATUS_CLASSES.get(each, ""), count, percent(count, total))
        for each, count in responses.items()
    ]


def quota_rows(organization: Organization, now: dt.datetime, key: Key | None = None) -> list[QuotaRow]:
    """The organization's quotas; before them the key's own. Calls of test keys spend none."""
    if key is not None and key.environment == Environment.TEST:
        return []
    own = [] if key is None else [quotas.parse(text) for text in key.quotas]
    shared = [quotas.parse(text) for text in organization.policy.quotas]
    return [
        QuotaRow(
            *(each.owner, each.quota.limit, each.quota.meter, each.quota.unit, each.used),
            share=f"{min(100 * each.used / each.quota.limit, 100):.2f}",
            is_full=each.used >= each.quota.limit,
            anew_in=span(each.end - now),
            anew_at=each.end,
        )
        for each in ledger.used(organization.pk, key.pk if key else 0, own, shared, now)
    ]


def _today(now: dt.datetime) -> dt.date:
    return now.astimezone(dt.UTC).date()


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


# --- the key list ---------------------------------------------------------------------------------


def expiring(organization: Organization, now: dt.datetime) -> int:
    """How many keys are about to expire."""
    return organization.keys.in_state(KeyState.EXPIRING, now).count()


def key_rows(
    organization: Organization, keys: QuerySet[Key] | Sequence[int], number: str | None, now: dt.datetime
) -> tuple[Page[Any], list[KeyRow]]:
    """One page of `keys` in their order, or of those with these primary keys, and its lines."""
    # Any: a page of keys, or of primary keys.
    page: Page[Any] = Paginator(
        keys.prefetch_related("scopes") if isinstance(keys, QuerySet) else keys, PAGE
    ).get_page(number)
    shown: list[Key] = list(page.object_list)
    if not isinstance(keys, QuerySet):
        found = organization.keys.prefetch_related("scopes").in_bulk(page.object_list)
        shown = [found[pk] for pk in page.object_list if pk in found]
    ids = [key.pk for key in shown]
    current = Secret.objects.filter(key__in=ids, stops_at=None).select_related("key")
    secrets = {secret.key_id: secret for secret in current.annotate(used=reports.last_use_of("key"))}
    tomorrow = _today(now) + DAY
    recent = reports.recent(organization, ids, tomorrow, days=CHART_DAYS)
    terms = Terms.of(organization.policy)
    return page, [
        KeyRow(
            key=key,
            secret=secrets.get(key.pk),
            badge=badge(key, now),
            note=note(key, secrets.get(key.pk), terms, now),
            spark=sparkline(recent[key.pk].line) if any(recent[key.pk].line) else "",
            requests=recent[key.pk].calls,
            last_used=secrets[key.pk].used if key.pk in secrets else None,
        )
        for key in shown
    ]


# --- a key's page ---------------------------------------------------------------------------------


def _secret_row(secret: Secret, use: SecretUse | None, key: Key, now: dt.datetime) -> SecretRow:
    if key.revoked_at is not None:
        return SecretRow(secret, use, Badge("ended", "Revoked"), running=False)
    if secret.stops_at is None:
        return SecretRow(secret, use, Badge("current", "Current"), running=False)
    if secret.works_at(now):
        return SecretRow(
            secret, use, Badge("overlap", f"Stops in {span(secret.stops_at - now)}"), running=True
        )
    return SecretRow(secret, use, Badge("ended", "Ended"), running=False)


def key_page(
    organization: Organization, key: Key, number: str | None, now: dt.datetime, *, with_history: bool
) -> KeyPage:
    """A key with its secrets, its usage of the last 30 days, and one page of its history if asked for."""
    end = _today(now) + DAY
    start = end - CHART_DAYS * DAY
    secrets = list(key.secrets.select_related("key", "created_by"))
    uses = reports.last_uses([secret.pk for secret in secrets])
    rows = [_secret_row(secret, uses.get(secret.pk), key, now) for secret in secrets]
    sums = reports.totals(organization, _midnight(start), _midnight(end), key=key)
    events = key.events.select_related("key").order_by("-number")
    page = Paginator(events, HISTORY_PAGE).get_page(number) if with_history else None
    through = reports.complete_through()
    current = next((secret for secret in secrets if secret.stops_at is None), None)
    rules = _broken(key, current, Terms.of(organization.policy), now)
    due = None
    if current is not None:
        due = compliance.rotation_due(organization.policy.rotate_days, current.created_at)
    return KeyPage(
        key=key,
        badge=badge(key, now),
        secrets=rows,
        rotation=_rotation(rows, through, now),
        sources=_source_rows(key, rows),
        late=sources.used_after_end(key, _midnight(start)),
        chart=_chart(reports.daily(organization, start, end, key=key)),
        accepted=sums.accepted,
        refused=sums.refused,
        last_used=max((use.last_used_at for use in uses.values()), default=None),
        reasons=reasons(sums.reasons),
        answers=answers(reports.responses(organization, _midnight(start), _midnight(end), key=key)),
        quotas=quota_rows(organization, now, key),
        outside=[compliance.SENTENCES[rule] for rule in rules if rule in compliance.SETTINGS],
        asked=list(key.scope_requests.select_related("scope")[:ASKED]),
        may_ask=key.revoked_at is None and bool(askable(key)),
        rotation_due=due,
        is_overdue=Rule.ROTATION in rules,
        brownouts=brownouts_to_come(organization, key, now),
        complete_through=through,
        history=page,
        entries=history.entries(page.object_list if page else []),
    )


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


def brownouts_to_come(organization: Organization, key: Key, now: dt.datetime) -> list[dt.datetime]:
    """When the key's announced brownouts begin; none of a key that is refused anyway."""
    if key.state_at(now) not in (KeyState.ACTIVE, KeyState.EXPIRING):
        return []
    days = organization.policy.brownout_days
    return brownouts.to_come(key.public_id, key.created_at, key.expires_at, days, now)


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
