"""What the customers' pages show: rows, figures and charts, fetched in a fixed number of queries.

Views ask here and render; this module alone joins keys with their usage. It reads one organization at a
time, through `organization.<related>` and `usage.reports`, and never writes.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.utils.functional import cached_property

from keys import brownouts, compliance, quotas
from keys.compliance import Facts, Rule, Terms
from keys.models import Environment, Key, KeyState, Organization, Secret
from keys.verdicts import Code
from portal.charts import BarChart, bar_chart, sparkline
from usage import ledger, reports
from usage.reports import Outcome

PAGE = 25
CHART_DAYS = 30
LINE_DAYS = 7  # of a key in the list
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
    scopes: list[str]
    badge: Badge
    note: str  # what its policy wants of it
    spark: str
    requests: int
    last_used: dt.datetime | None

    @property
    def labels(self) -> list[tuple[str, str]]:
        """The first entries of its metadata."""
        return list(self.key.metadata.items())[:LABELS]


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


def broken(
    key: Key, secret: Secret | None, terms: Terms, now: dt.datetime, scopes: Collection[str] | None = None
) -> list[Rule]:
    """The rules that a key breaks while anyone could still use it or let it be used again; `scopes` as for
    `Facts`."""
    if key.state_at(now) in (KeyState.REVOKED, KeyState.EXPIRED):
        return []
    return compliance.broken(terms, Facts.of(key, secret, scopes), now)


def note(
    key: Key, secret: Secret | None, terms: Terms, now: dt.datetime, scopes: Collection[str] | None = None
) -> str:
    """What a policy wants of a key, in a few words; the most urgent. `scopes` as for `Facts`."""
    if key.is_retired and key.state_at(now) == KeyState.DISABLED:
        return "Retired: it was not used"
    if key.retires_at is not None and key.state_at(now) in (KeyState.ACTIVE, KeyState.EXPIRING):
        return f"Not used: retires in {span(key.retires_at - now)}"
    rules = broken(key, secret, terms, now, scopes)
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


def calls_chart(calls: Iterable[Outcome], end: dt.date) -> BarChart:
    """The `CHART_DAYS` days before `end`, a bar each; calls of other days are left out."""
    sums = {end - n * DAY: [0, 0] for n in range(CHART_DAYS, 0, -1)}
    for each in calls:
        if each.date in sums:
            sums[each.date][0 if each.is_accepted else 1] += each.calls
    return bar_chart(list(sums), [each[0] for each in sums.values()], [each[1] for each in sums.values()])


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


def brownouts_to_come(organization: Organization, key: Key, now: dt.datetime) -> list[dt.datetime]:
    """When the key's announced brownouts begin; none of a key that is refused anyway."""
    if key.state_at(now) not in (KeyState.ACTIVE, KeyState.EXPIRING):
        return []
    days = organization.policy.brownout_days
    return brownouts.to_come(key.public_id, key.created_at, key.expires_at, days, now)


def _today(now: dt.datetime) -> dt.date:
    return now.astimezone(dt.UTC).date()


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


# --- the key list ---------------------------------------------------------------------------------


def expiring(organization: Organization, now: dt.datetime) -> int:
    """How many keys are about to expire."""
    return organization.keys.in_state(KeyState.EXPIRING, now).count()


def key_rows(
    organization: Organization,
    keys: QuerySet[Key] | dict[int, int],
    number: str | None,
    now: dt.datetime,
    *,
    size: int = PAGE,
) -> tuple[Page[Any], list[KeyRow]]:
    """One page of `keys` in their order, and its lines; or of those with these primary keys, which made so
    many calls in `CHART_DAYS`."""
    # Any: a page of primary keys.
    pks = list(keys) if isinstance(keys, dict) else keys.values_list("pk", flat=True)
    page: Page[Any] = Paginator(pks, size).get_page(number)
    ids, tomorrow = list(page.object_list), _today(now) + DAY
    rows = organization.keys.all()
    if not isinstance(keys, dict):
        start = _midnight(tomorrow - CHART_DAYS * DAY)
        rows = rows.annotate(calls=reports.calls_of("pk", start, _midnight(tomorrow)))
    found = rows.in_bulk(ids)
    shown = [found[pk] for pk in ids if pk in found]
    scopes = _scopes(ids)
    current = Secret.objects.filter(key__in=ids, stops_at=None).order_by()
    secrets = {secret.key_id: secret for secret in current.annotate(used=reports.last_use_of("key"))}
    for key in shown:
        if key.pk in secrets:
            secrets[key.pk].key = key
    recent = reports.recent(organization, ids, tomorrow, line=LINE_DAYS, days=LINE_DAYS)
    terms = Terms.of(organization.policy)
    return page, [
        KeyRow(
            key=key,
            secret=secrets.get(key.pk),
            scopes=scopes[key.pk],
            badge=badge(key, now),
            note=note(key, secrets.get(key.pk), terms, now, scopes[key.pk]),
            spark=sparkline(recent[key.pk].line) if any(recent[key.pk].line) else "",
            requests=keys[key.pk] if isinstance(keys, dict) else key.calls,  # type: ignore[attr-defined]  # as annotated
            last_used=secrets[key.pk].used if key.pk in secrets else None,
        )
        for key in shown
    ]


def _scopes(key_ids: Collection[int]) -> defaultdict[int, list[str]]:
    """Their names only, in order: as objects they would cost as much as all else of a row."""
    held: defaultdict[int, list[str]] = defaultdict(list)
    rows = Key.scopes.through.objects.filter(key__in=key_ids).order_by("scope__name")
    for key_id, name in rows.values_list("key_id", "scope__name"):
        held[key_id].append(name)
    return held
