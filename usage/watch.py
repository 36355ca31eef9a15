"""Watches over keys: brings the facts, has them judged, and keeps what was found as signals.

The worker sweeps over all keys; a signal is raised when it comes true, and cleared when it no longer is, in
one row that stays. People dismiss what they know, which is an audited act. It changes no key.
"""

import datetime as dt
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from django.db import transaction
from django.db.models import Count, F, Max, Q, QuerySet, Sum

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict
from keys.lifecycle.actors import require
from keys.models import AuditEvent, Key, KeyState, Membership, Organization, Scope, Secret
from keys.permissions import Act
from keys.verdicts import Code
from usage import reports, signals
from usage.models import Refusal, Rollup, ScopeUse, Signal, Source
from usage.signals import LATELY, MEANINGS, Evidence, Facts, Kind

SECONDS: Final = 5.0
BATCH: Final = 200  # keys judged at once
FRESH: Final = dt.timedelta(hours=1)  # evidence that changed is written after so long
SNOOZE: Final = dt.timedelta(days=30)


class Sweep:
    """Where the walk over all keys is; a worker goes on there."""

    def __init__(self) -> None:
        self._after = 0

    def go_on(
        self, now: dt.datetime, *, stop: Callable[[], bool] = lambda: False, seconds: float = SECONDS
    ) -> None:
        """Judge some keys, for about so long; after the last the walk begins again the next time."""
        deadline = time.monotonic() + seconds
        if not self._after:
            clear_the_ended(now)
        while not stop():
            keys = list(_working(now).filter(pk__gt=self._after).order_by("pk")[:BATCH])
            if keys:
                refresh(keys, now)
            self._after = keys[-1].pk if len(keys) == BATCH else 0
            if not self._after or time.monotonic() >= deadline:
                return


def _working(now: dt.datetime) -> QuerySet[Key]:
    return (
        Key.objects.in_state(KeyState.ACTIVE, now)
        .select_related("organization__policy", "created_by")
        .order_by()
    )


def clear_the_ended(now: dt.datetime) -> None:
    """Nothing is amiss any more with keys that have been revoked or disabled, or have expired."""
    ended = Q(key__revoked_at__isnull=False) | Q(key__disabled_at__isnull=False) | Q(key__expires_at__lte=now)
    mine = Signal.objects.raised().filter(ended).values("pk")
    Signal.objects.filter(pk__in=mine).update(cleared_at=now)


def refresh(keys: Sequence[Key], now: dt.datetime) -> None:
    """Raise and clear the signals of these keys, which work."""
    found = judged(keys, now)
    with transaction.atomic():
        rows = {(row.key_id, row.kind): row for row in Signal.objects.filter(key__in=keys)}
        raised = []
        for key in keys:
            for kind, evidence in found[key.pk].items():
                row = rows.pop((key.pk, kind.value), None)
                if row is None or row.cleared_at is not None:
                    raised.append(_signal(key, kind, evidence, now))
                elif row.evidence != evidence and now - row.found_at >= FRESH:
                    Signal.objects.filter(pk=row.pk).update(evidence=evidence, found_at=now)
        # Two workers may find the same at once; then they write the same.
        Signal.objects.bulk_create(
            raised,
            update_conflicts=True,
            unique_fields=["key", "kind"],
            update_fields=[
                *("points", "evidence", "raised_at", "found_at", "cleared_at"),
                *("dismissed_at", "dismissed_until", "dismissed_by"),
            ],
        )
        gone = [row.pk for row in rows.values() if row.cleared_at is None]
        Signal.objects.filter(pk__in=gone, cleared_at=None).update(cleared_at=now)


def settle(key: Key, now: dt.datetime) -> None:
    """Judge a key that was just changed, so that what was mended is gone at once."""
    if key.state_at(now) in (KeyState.ACTIVE, KeyState.EXPIRING):
        refresh([key], now)
    else:
        Signal.objects.raised().filter(key=key).update(cleared_at=now)


def _signal(key: Key, kind: Kind, evidence: Evidence, now: dt.datetime) -> Signal:
    return Signal(
        organization_id=key.organization_id,
        key=key,
        kind=kind.value,
        points=MEANINGS[kind].points,
        evidence=evidence,
        raised_at=now,
        found_at=now,
    )


def judged(keys: Sequence[Key], now: dt.datetime) -> dict[int, dict[Kind, Evidence]]:
    """Key (by primary key) → the signals that it raises now. In a fixed number of queries; one that does not
    work, or is there to be found, raises none."""
    working = [
        key for key in keys if not key.canary and key.state_at(now) in (KeyState.ACTIVE, KeyState.EXPIRING)
    ]
    found: dict[int, dict[Kind, Evidence]] = {key.pk: {} for key in keys}
    found.update((facts.key.pk, signals.judge(facts, now)) for facts in _facts(working, now))
    return found


def _facts(keys: Sequence[Key], now: dt.datetime) -> Iterator[Facts]:
    ids = [key.pk for key in keys]
    secrets = Secret.objects.filter(key__in=ids, stops_at=None).select_related("created_by").order_by()
    current = {secret.key_id: secret for secret in secrets.annotate(used=reports.last_use_of("key"))}
    sources: dict[int, list[Source]] = defaultdict(list)
    for source in Source.objects.filter(secret__key__in=ids).annotate(of_key=F("secret__key_id")):
        sources[source.of_key].append(source)
    outcomes: dict[int, dict[str, int]] = defaultdict(dict)
    since = now - LATELY
    rows = Rollup.objects.filter(key__in=ids, hour__gte=since).order_by().values_list("key_id", "outcome")
    for key_id, outcome, calls in rows.annotate(total=Sum("calls")):
        outcomes[key_id][outcome] = calls
    late = _late(ids, since)
    needed: dict[int, dict[str, dt.datetime]] = defaultdict(dict)
    for use in ScopeUse.objects.filter(key__in=ids):
        needed[use.key_id][use.scope] = use.last_needed
    held: dict[int, list[str]] = defaultdict(list)
    for key_id, scope in Scope.objects.filter(keys__in=ids).order_by().values_list("keys", "name"):
        held[key_id].append(scope)
    edits = AuditEvent.objects.filter(key__in=ids, act="key.edited", data__changes__has_key="scopes")
    edited_at = dict(edits.order_by().values_list("key_id").annotate(last=Max("at")))
    members = set(
        Membership.objects.filter(
            user__in={each.created_by_id for each in current.values() if each.created_by_id},
            organization__in={key.organization_id for key in keys},
        )
        .order_by()
        .values_list("organization_id", "user_id")
    )
    for key in keys:
        if key.pk not in current:
            continue  # made or rotated just now
        calls, at = late.get(key.pk, (0, None))
        maker = current[key.pk].created_by
        yield Facts(
            key=key,
            secret=current[key.pk],
            # Staff are in no organization, and stay.
            maker_left=maker is not None
            and not maker.is_staff
            and (key.organization_id, maker.pk) not in members,
            rotate_days=key.organization.policy.rotate_days,
            last_used=current[key.pk].used,
            sources=sources[key.pk],
            outcomes=outcomes[key.pk],
            scopes=held[key.pk],
            needed=needed[key.pk],
            scopes_edited_at=edited_at.get(key.pk),
            late_calls=calls,
            late_at=at,
        )


def _late(keys: Collection[int], since: dt.datetime) -> dict[int, tuple[int, dt.datetime]]:
    """Key → calls with a secret after its end, and the last of them (see `sources.used_after_end`)."""
    rows = Refusal.objects.filter(
        key__in=keys, at__gte=since, outcome=Code.REVOKED.name, secret__stops_at__lte=F("at")
    ).order_by()
    sums = rows.values_list("key_id").annotate(rows=Count("pk"), more=Sum("more"), last=Max("at"))
    return {key: (rows + more, last) for key, rows, more, last in sums}


def dismiss(actor: Actor, signal: Signal, *, snooze: bool, now: dt.datetime) -> None:
    """Show it no more: for SNOOZE, or until it is raised anew. Raises Conflict if it is not raised or was
    dismissed meanwhile, Forbidden."""
    require(actor, Act.EDIT_KEY, signal.organization)
    until = now + SNOOZE if snooze else None
    with transaction.atomic():
        mine = Signal.objects.shown(now).filter(pk=signal.pk)
        if not mine.update(dismissed_at=now, dismissed_until=until, dismissed_by=actor.label[:254]):
            raise Conflict("This is settled already.")
        audit.append(
            "key.signal_dismissed",
            actor=actor,
            at=now,
            organization=signal.organization,
            key=signal.key,
            data={
                "signal": title(signal),
                "until": until and until.astimezone(dt.UTC).isoformat(timespec="seconds"),
            },
        )


def title(signal: Signal) -> str:
    return MEANINGS[Kind(signal.kind)].title if signal.kind in Kind else signal.kind


# --- read -----------------------------------------------------------------------------------------


def scores(organizations: Collection[Organization], now: dt.datetime) -> dict[int, int]:
    """Organization (by primary key) → the points of its signals together."""
    rows = Signal.objects.shown(now).filter(organization__in=organizations).order_by()
    return dict(rows.values_list("organization_id").annotate(score=Sum("points")))
