"""What staff look up across all organizations: a key by its secret, what is new, what needs attention.

It alone finds a key by a pasted secret for people. It reads and never writes, and keeps no secret.
"""

import datetime as dt
import re
from typing import NamedTuple

from django.db.models import QuerySet
from django.views.decorators.debug import sensitive_variables

from keys import audit, tokens
from keys.models import (
    AuditEvent,
    Feed,
    Key,
    KeyState,
    LeakDoor,
    LeakReport,
    Organization,
    Policy,
    Process,
    RequestState,
    ScopeRequest,
    Secret,
    Visit,
)

# A whole secret of ours or most of one, checksum right or wrong: nothing that may stand in an address.
_SECRETIVE = re.compile(r"[a-z][a-z0-9]{0,15}_(live|test)_[0-9A-Za-z]{12,}", re.ASCII)
TAIL = 200  # events


@sensitive_variables()
def find_by_secret(text: str, organization: Organization | None = None) -> Secret | None:
    """The secret that this text is (surrounding space aside), and its key; working or not. `organization`:
    of this one only."""
    text = text.strip()
    if not text or len(text) > tokens.MAX_LENGTH:
        return None
    secrets = Secret.objects.filter(digest=tokens.digest(text))
    if organization is not None:
        secrets = secrets.filter(key__organization=organization)
    return secrets.select_related("key__organization").defer("digest").first()


@sensitive_variables()
def may_be_secret(text: str) -> bool:
    """Does it look like a secret of ours, whole or mistyped?"""
    return _SECRETIVE.search(text) is not None


def newest_organizations(count: int = 6) -> QuerySet[Organization]:
    return Organization.objects.order_by("-id")[:count]  # as they were made, by the primary key's index


def expiring_keys(now: dt.datetime, count: int = 10) -> QuerySet[Key]:
    """Keys that expire soon, the soonest first."""
    expiring = Key.objects.in_state(KeyState.EXPIRING, now)
    return (
        expiring.filter(organization__suspended_at=None)
        .select_related("organization")
        .order_by("expires_at", "id")[:count]
    )


class ProcessHealth(NamedTuple):
    """A process that answers from memory."""

    process: Process
    behind: int  # audit events it has not acknowledged
    serving: bool  # may it still answer from memory?


def processes(now: dt.datetime) -> list[ProcessHealth]:
    number = head().number
    return [
        ProcessHealth(process, max(number - process.feed_number, 0), process.serves_until > now)
        for process in Process.objects.order_by("host", "started_at", "id")
    ]


def head() -> Feed:
    """The audit's last number and hash."""
    return Feed.objects.filter(pk=1).first() or Feed()


class Chain(NamedTuple):
    """Whether the audit's last events continue each other."""

    number: int
    checked: int
    broken: list[int]  # numbers of events that do not fit


def chain(last: int = TAIL) -> Chain:
    """Recompute the hashes of the last events; `audit.broken_links` walks the whole."""
    feed = head()
    events = list(AuditEvent.objects.filter(number__lte=feed.number).order_by("-number")[:last])
    broken = []
    expected = (feed.number, feed.hash)
    for event in events:
        intact = event.hash == audit.digest(event.previous_hash, event)
        if not intact or (event.number, event.hash) != expected:
            broken.append(event.number)
        expected = (event.number - 1, event.previous_hash)
    if not events and feed.number:
        broken.append(feed.number)
    return Chain(feed.number, len(events), broken)


def recent_acts(user_id: int, count: int = 10) -> QuerySet[AuditEvent]:
    """What this person did lately as staff."""
    mine = AuditEvent.objects.filter(actor_kind="staff", actor_id=user_id)
    return mine.select_related("organization", "key").order_by("-number")[:count]


def canaries() -> QuerySet[Key]:
    """The keys whose use is an alarm."""
    return Key.objects.filter(canary=True)


def leaks() -> QuerySet[LeakReport]:
    """Reports of leaked secrets, newest first."""
    found = LeakReport.objects.select_related("key__organization", "secret__key")
    return found.order_by("-reported_at", "-id")


def leaked_and_alive(since: dt.datetime, now: dt.datetime) -> int:
    """How many keys were reported as leaked since then and may still be used."""
    leaked = LeakReport.objects.filter(reported_at__gte=since).exclude(door=LeakDoor.CANARY)
    return Key.objects.in_state(KeyState.ACTIVE, now).filter(pk__in=leaked.values("key")).count()


def visits(organization: Organization) -> QuerySet[Visit]:
    """Staff's visits to an organization's pages, the newest first."""
    return Visit.objects.filter(organization=organization).select_related("user")


def waiting_requests() -> QuerySet[ScopeRequest]:
    """Requests for scopes that nobody has decided, the oldest first."""
    waiting = ScopeRequest.objects.filter(state=RequestState.PENDING).order_by("requested_at", "pk")
    return waiting.select_related("key__organization", "scope")


def scope_request(number: int) -> ScopeRequest | None:
    return ScopeRequest.objects.filter(pk=number).select_related("key__organization", "scope").first()


def policies() -> QuerySet[Policy]:
    return Policy.objects.order_by("name", "pk")


def organization(slug: str) -> Organization | None:
    return Organization.objects.filter(slug=slug).first()


def keys() -> QuerySet[Key]:
    return Key.objects.all()


def key(public_id: str) -> Key | None:
    return Key.objects.filter(public_id=public_id).select_related("organization").first()
