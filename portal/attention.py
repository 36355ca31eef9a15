"""What the attention pages show: signals in words, each with what mends it.

Views ask here and render. Signals are judged again as they are shown, so that what was mended a moment ago is
gone; it never writes, but by `mend`, which does through `keys.lifecycle` what the page proposed.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q, QuerySet, Sum
from django.urls import reverse

from keys import lifecycle
from keys.audit import Actor
from keys.lifecycle import Conflict
from keys.models import Key, Organization
from keys.networks import in_words
from portal.pages import Counted
from usage import watch
from usage.models import Signal
from usage.signals import MEANINGS, Evidence, Kind

PAGE: Final = 25
STAFF_ORGANIZATIONS: Final = 20
_WITH: Final = ("key__organization__policy", "key__created_by")


class Mend(NamedTuple):
    """What mends a signal: a page to go to, or an act that a button does at once."""

    label: str
    url: str
    proposal: str = ""  # what the button is to do, word for word; empty: the URL is a page
    text: str = ""  # what it will do, in words


class Row(NamedTuple):
    """One signal for people."""

    signal: Signal
    key: Key
    title: str
    reason: str
    sentence: str
    mend: Mend | None


@dataclass(frozen=True, slots=True)
class Attention:
    """Everything on an organization's attention page."""

    rows: list[Row]
    page: Page[Signal]
    warnings: int
    keys: int
    score: int
    dismissed: int


class RankedKey(NamedTuple):
    """A key with signals on the staff's list."""

    key: Key
    score: int
    titles: list[str]


class RankedOrganization(NamedTuple):
    """An organization with signals on the staff's list."""

    organization: Organization
    score: int
    warnings: int
    keys: int


def of_organization(organization: Organization, number: str | None, now: dt.datetime) -> Attention:
    """Its signals, the weightiest first."""
    raised, shown = organization.signals.raised(), organization.signals.shown(now)
    is_shown = Q(pk__in=shown.values("pk"))
    sums = raised.aggregate(
        raised=Count("pk"),
        warnings=Count("pk", filter=is_shown),
        keys=Count("key", filter=is_shown, distinct=True),
        score=Sum("points", filter=is_shown),
    )
    rows = shown.select_related(*_WITH).order_by("-points", "raised_at", "pk")
    page = Counted(rows, PAGE, sums["warnings"]).get_page(number)
    return Attention(
        rows=_rows(page.object_list, now),
        page=page,
        warnings=sums["warnings"],
        keys=sums["keys"],
        score=sums["score"] or 0,
        dismissed=sums["raised"] - sums["warnings"],
    )


def dismissed(organization: Organization, number: str | None, now: dt.datetime) -> Page[Signal]:
    """Its signals that somebody has dismissed, the latest first."""
    hidden = organization.signals.raised().exclude(pk__in=organization.signals.shown(now).values("pk"))
    return Paginator(hidden.select_related("key").order_by("-dismissed_at", "pk"), PAGE).get_page(number)


def of_key(key: Key, changed_at: dt.datetime | None, now: dt.datetime) -> list[Row]:
    """A key's signals, the weightiest first: as they were last found, and judged again if somebody has done
    something with the key since."""
    found = list(key.signals.shown(now).select_related(*_WITH).order_by("-points", "pk"))
    if changed_at is not None and any(signal.found_at <= changed_at for signal in found):
        return _rows(found, now)
    return [_row(each, Kind(each.kind), each.evidence, now) for each in found if each.kind in Kind]


def _rows(found: Iterable[Signal], now: dt.datetime) -> list[Row]:
    signals = list(found)
    keys = {signal.key_id: signal.key for signal in signals}
    judged = watch.judged(list(keys.values()), now)
    return [
        _row(signal, kind, judged[signal.key_id][kind], now)
        for signal in signals
        if signal.kind in Kind
        for kind in (Kind(signal.kind),)
        if kind in judged[signal.key_id]
    ]


def _row(signal: Signal, kind: Kind, evidence: Evidence, now: dt.datetime) -> Row:
    meaning, sentence = MEANINGS[kind], evidence.get("sentence", "")
    mend = _mend(signal.key, kind, evidence, now)
    return Row(signal, signal.key, meaning.title, meaning.reason, sentence, mend)


# --- what mends it --------------------------------------------------------------------------------


def _mend(key: Key, kind: Kind, evidence: Evidence, now: dt.datetime) -> Mend | None:
    where = {"organization": key.organization.slug, "key_id": key.public_id}
    if kind in _ACTS:
        proposal, label, text = _ACTS[kind].propose(key, evidence, now)
        if proposal:
            url = reverse("signal_mend", kwargs={**where, "kind": kind.value})
            return Mend(label, url, proposal, text)
        return Mend("Edit the key", reverse("key_edit", kwargs=where))
    if kind in (Kind.LATE, Kind.REFUSALS):
        query = urlencode({"key": key.public_id, "code": evidence.get("code", "REVOKED")})
        return Mend("See the calls", f"{reverse('refusals', args=[key.organization.slug])}?{query}")
    if kind is Kind.MANY_NETWORKS:
        return Mend("See where it is used", reverse("key", kwargs=where) + "#sources-title")
    return Mend("Rotate the key", reverse("key_rotate", kwargs=where))


class _Act(NamedTuple):
    """How a kind is mended by a button: the proposal (empty: none can be made) with its label and its words,
    and the act that does it."""

    propose: Callable[[Key, Evidence, dt.datetime], tuple[str, str, str]]
    do: Callable[[Actor, Key, str, dt.datetime], Key]


def _propose_expiry(key: Key, evidence: Evidence, now: dt.datetime) -> tuple[str, str, str]:
    expires_at = lifecycle.default_expiry(key.organization, now)
    if expires_at is None:
        return "", "", ""
    day = expires_at.astimezone(dt.UTC).date()
    return day.isoformat(), "Set expiry", f"expires on {day:%-d %B %Y}"


def _expire(actor: Actor, key: Key, proposal: str, now: dt.datetime) -> Key:
    return lifecycle.edit_key(actor, key, expires_at=lifecycle.default_expiry(key.organization, now), now=now)


def _propose_networks(key: Key, evidence: Evidence, now: dt.datetime) -> tuple[str, str, str]:
    networks = ", ".join(evidence["networks"])
    places = ", ".join(in_words(network) for network in evidence["networks"])
    return networks, "Limit to them", f"only from {places}"


def _limit(actor: Actor, key: Key, proposal: str, now: dt.datetime) -> Key:
    return lifecycle.edit_key(actor, key, networks=proposal.split(", "), now=now)


def _propose_scopes(key: Key, evidence: Evidence, now: dt.datetime) -> tuple[str, str, str]:
    scopes = " ".join(evidence["scopes"])
    return scopes, "Leave only these", f"only {', '.join(evidence['scopes'])}"


def _narrow(actor: Actor, key: Key, proposal: str, now: dt.datetime) -> Key:
    return lifecycle.edit_key(actor, key, scopes=proposal.split(), now=now)


def _propose_disabling(key: Key, evidence: Evidence, now: dt.datetime) -> tuple[str, str, str]:
    return "disable", "Disable", "refused until somebody enables it again"


def _disable(actor: Actor, key: Key, proposal: str, now: dt.datetime) -> Key:
    return lifecycle.disable_key(actor, key, now=now)


_ACTS: Final = {
    Kind.NO_EXPIRY: _Act(_propose_expiry, _expire),
    Kind.NETWORKS: _Act(_propose_networks, _limit),
    Kind.SCOPES: _Act(_propose_scopes, _narrow),
    Kind.IDLE: _Act(_propose_disabling, _disable),
}


def mend(actor: Actor, key: Key, kind: Kind, proposal: str, now: dt.datetime) -> str:
    """Do what the page proposed, if it still would; returns what was done, in words. Raises Conflict where it
    would not, and what the act raises."""
    evidence = watch.judged([key], now)[key.pk].get(kind)
    if evidence is None or kind not in _ACTS:
        raise Conflict("This is settled already.")
    proposed, _, text = _ACTS[kind].propose(key, evidence, now)
    if not proposed or proposed != proposal:
        raise Conflict("What is known of this key has changed; look again.")
    changed = _ACTS[kind].do(actor, key, proposal, now)
    watch.settle(changed, now)
    return text


# --- staff ----------------------------------------------------------------------------------------


def ranked_organizations(now: dt.datetime) -> list[RankedOrganization]:
    """Those whose signals weigh most."""
    rows = (
        Signal.objects.shown(now)
        .order_by()
        .values_list("organization")
        .annotate(score=Sum("points"), warnings=Count("pk"), keys=Count("key", distinct=True))
        .order_by("-score", "organization")[:STAFF_ORGANIZATIONS]
    )
    sums = {pk: rest for pk, *rest in rows}
    organizations = Organization.objects.in_bulk(sums)
    return [RankedOrganization(organizations[pk], *rest) for pk, rest in sums.items()]


def ranked_keys(number: str | None, now: dt.datetime) -> tuple[Page[Any], list[RankedKey]]:
    """One page of the keys with signals, the weightiest first."""
    count = Signal.objects.shown(now).aggregate(keys=Count("key", distinct=True))["keys"]
    page = Counted(_scores(now), PAGE, count).get_page(number)
    return page, _ranked(page.object_list, now)


def weightiest_keys(now: dt.datetime, count: int) -> list[RankedKey]:
    """The first of them, without counting the others."""
    return _ranked(_scores(now)[:count], now)


def _scores(now: dt.datetime) -> QuerySet[Signal, tuple[int, int]]:
    """Keys, by their numbers, with what their signals weigh together; the weightiest first."""
    shown = Signal.objects.shown(now).order_by().values_list("key")
    return shown.annotate(score=Sum("points")).order_by("-score", "key")


def _ranked(found: Iterable[tuple[int, int]], now: dt.datetime) -> list[RankedKey]:
    scores = dict(found)
    keys = Key.objects.select_related("organization").in_bulk(scores)
    titles: dict[int, list[str]] = {}
    shown = Signal.objects.shown(now).filter(key__in=keys)
    for signal in shown.order_by("-points", "pk"):
        titles.setdefault(signal.key_id, []).append(watch.title(signal))
    return [RankedKey(keys[pk], score, titles.get(pk, [])) for pk, score in scores.items()]
