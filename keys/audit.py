"""The feed: every act's event, numbered in commit order and chained by hash.

`append` is the last write of an act's transaction. It locks the one `Feed` row until commit, so that a
reader who has seen number n has seen every number below it; other processes stay fresh by reading on
from there, and there is no second mechanism. The chain (each event's SHA-256 covers the one before)
makes a change to history visible.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction

from keys.models import AuditEvent, Feed, Key, Organization
from keys.permissions import Role


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: `kind` is user, staff, key, command or system; `label` is shown in the history.

    A `user` acts in one organization with one role, and lifecycle holds it to both.
    """

    kind: str
    label: str
    id: int | None = None
    organization_id: int | None = None
    role: Role | None = None


SYSTEM = Actor("system", "Latchkey")


def digest(previous: str, event: AuditEvent) -> str:
    """The event's hash: SHA-256 over the previous hash and the event's canonical JSON (RFC 8785's
    ordering; values are text, whole numbers, booleans, null, lists and objects of these)."""
    body = json.dumps(
        {
            "number": event.number,
            "at": event.at.astimezone(dt.UTC).isoformat(timespec="microseconds"),
            "act": event.act,
            "actor": [event.actor_kind, event.actor_id, event.actor_label],
            "organization": event.organization_id,
            "key": event.key_id,
            "data": event.data,
        },
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest()


def append(
    act: str,
    *,
    actor: Actor,
    at: dt.datetime,
    organization: Organization | None = None,
    key: Key | None = None,
    data: dict[str, Any] | None = None,
) -> AuditEvent:
    """Write the act's event. Call it last in the act's transaction; it never opens one of its own."""
    if not connection.in_atomic_block:
        raise transaction.TransactionManagementError("audit.append needs the act's transaction")
    feed, _ = Feed.objects.select_for_update().get_or_create(pk=1)
    event = AuditEvent(
        number=feed.number + 1,
        at=at,
        act=act,
        actor_kind=actor.kind,
        actor_id=actor.id,
        actor_label=actor.label[:254],
        organization=organization,
        key=key,
        data=data or {},
        previous_hash=feed.hash,
    )
    event.hash = digest(feed.hash, event)
    event.save(force_insert=True)
    Feed.objects.filter(pk=1).update(number=event.number, hash=event.hash)
    return event


def append_of(
    key: Key, act: str, actor: Actor, at: dt.datetime, data: dict[str, Any] | None = None
) -> AuditEvent:
    """As `append`, of a key: the event is its organization's too."""
    return append(act, actor=actor, at=at, organization=key.organization, key=key, data=data)


def broken_links() -> Iterator[tuple[int, str]]:
    """Walk the whole chain; yield (number, what is wrong) for each break."""
    previous, number = "", 0
    for event in AuditEvent.objects.order_by("number").iterator(chunk_size=2000):
        number += 1
        if event.number != number:
            yield event.number, f"expected number {number}"
            number = event.number
        if event.previous_hash != previous:
            yield event.number, "does not continue the event before"
        if event.hash != digest(event.previous_hash, event):
            yield event.number, "was changed after it was written"
        previous = event.hash
    feed, _ = Feed.objects.get_or_create(pk=1)
    if (feed.number, feed.hash) != (number, previous):
        yield feed.number, "the feed's head does not match the last event"
