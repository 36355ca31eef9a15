"""Which keys the key list has, and in what order; and what became of several that were chosen at once.

It finds through `organization.keys` only. An act on several is as many acts of `keys.lifecycle`: each key has
its own event. Labels are set in a transaction a key, so that what one is refused stops no other.
"""

import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from django.db import connection
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery, TextField
from django.db.models.expressions import OrderBy
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Cast, Lower
from django.views.decorators.debug import sensitive_variables

from keys import oversight, tokens
from keys.audit import Actor
from keys.lifecycle import Refused
from keys.models import Key, Organization, Scope, Secret
from portal import revocations
from portal.pages import CHART_DAYS, DAY
from usage import reports

LARGER_PAGE: Final = 200  # keys; who wants to look through many has so many on a page
MOST: Final = 1_000  # keys changed at once
REVOKED: Final = "It is revoked already."


@sensitive_variables()
def pasted_secret(q: str) -> str | None:
    """What to search for instead where somebody pasted a secret, whole or most of one, with or without words
    around it: its last four characters, or nothing where they cannot be known. None: it is no secret."""
    for word in q.split():
        parsed = tokens.parse(word)
        if parsed is not None:
            return parsed.hint
    return "" if oversight.may_be_secret(q) else None


def find(
    organization: Organization,
    now: dt.datetime,
    *,
    q: str = "",
    state: str = "",
    environment: str = "",
    scope: str = "",
    label: str = "",
    sort: str = "",
) -> QuerySet[Key] | dict[int, int]:
    """An organization's keys, newest first if no order is chosen; by calls, how many each (by primary key)
    made in `CHART_DAYS`. `q` is part of a name or a label, an id, or a secret's last four; `label` is a
    label's name, or `name=value`."""
    keys: QuerySet[Key] = organization.keys.all()
    if state:
        keys = organization.keys.in_state(state, now)
    if environment:
        keys = keys.filter(environment=environment)
    if scope:
        named = Subquery(Scope.objects.filter(name=scope).values("pk")[:1])
        keys = keys.filter(Exists(Key.scopes.through.objects.filter(key=OuterRef("pk"), scope=named)))
    if label:
        keys = _labelled(keys, label)
    if q:
        keys = _matching(keys, q)
    if sort.endswith("calls"):
        return _by_calls(organization, keys, now, most_first=sort.startswith("-"))
    return _ordered(keys, sort)


def held_scopes(organization: Organization) -> list[str]:
    """The names of the scopes that keys here hold."""
    held = Key.scopes.through.objects.filter(key__organization=organization).values("scope")
    return list(Scope.objects.filter(pk__in=held).order_by("name").values_list("name", flat=True))


def _labelled(keys: QuerySet[Key], label: str) -> QuerySet[Key]:
    """Names that are numbers, or have quotes, no path into JSON can say; `q` finds them."""
    name, equals, value = (part.strip() for part in label.partition("="))
    if not equals:
        return keys.filter(metadata__has_key=name)
    return keys.annotate(label=KeyTransform(name, "metadata")).filter(label=value)


def _matching(keys: QuerySet[Key], q: str) -> QuerySet[Key]:
    # SQLite has JSON as it was written, where what is not ASCII is escaped.
    written = json.dumps(q)[1:-1] if connection.vendor == "sqlite" else q
    labelled = ~Q(metadata={}) & Q(written__icontains=written)
    found = Q(name__icontains=q) | Q(public_id=q) | labelled
    last_four = q.rpartition("…")[2]
    if len(last_four) == tokens.HINT_LENGTH:
        found |= Q(Exists(Secret.objects.filter(key=OuterRef("pk"), hint=last_four)))
    return keys.alias(written=Cast("metadata", TextField())).filter(found)


def _ordered(keys: QuerySet[Key], sort: str) -> QuerySet[Key]:
    if sort.endswith("used"):
        keys = keys.annotate(used=reports.last_use_of("pk"))
    orders: dict[str, OrderBy] = {
        "created": F("created_at").asc(),
        "name": Lower("name").asc(),
        "-used": F("used").desc(nulls_last=True),
        "used": F("used").asc(nulls_first=True),
        "expires": F("expires_at").asc(nulls_last=True),
    }
    if sort not in orders:
        return keys.order_by("-created_at", "-id")
    return keys.order_by(orders[sort], "id")


def _by_calls(
    organization: Organization, keys: QuerySet[Key], now: dt.datetime, *, most_first: bool
) -> dict[int, int]:
    """Two queries: usage has no row for a key that was never called, and none knows what is filtered."""
    end = now.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    calls = reports.calls_by_key(organization, end - CHART_DAYS * DAY, end)
    pks = keys.order_by("-created_at", "-id").values_list("pk", flat=True)
    return {pk: calls.get(pk, 0) for pk in sorted(pks, key=lambda pk: calls.get(pk, 0), reverse=most_first)}


# --- several at once ------------------------------------------------------------------------------


_ID: Final = re.compile(r"key_[0-9A-Za-z]{16}", re.ASCII)


class Failure(NamedTuple):
    """A key that stays as it was, and why."""

    key: Key
    sentence: str


@dataclass(slots=True)
class Done:
    """What became of each of the keys."""

    changed: list[Key] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def chosen(organization: Organization, public_ids: Iterable[str]) -> tuple[list[Key], int]:
    """The keys with these ids in the list's order, and how many ids are none of this organization's."""
    wanted = {public_id for public_id in public_ids if _ID.fullmatch(public_id)}
    keys = list(organization.keys.filter(public_id__in=wanted).order_by("-created_at", "-id"))
    return keys, len(wanted) - len(keys)


def matching(organization: Organization, now: dt.datetime, **chosen: str) -> list[Key]:
    """The keys that `find` finds and that can still be changed, newest first; no more than one above MOST."""
    found = find(organization, now, **{**chosen, "sort": ""})
    assert isinstance(found, QuerySet)  # only by calls it has numbers
    return list(found.filter(revoked_at=None)[: MOST + 1])


def revoke(actor: Actor, keys: Sequence[Key], *, reason: str, now: dt.datetime) -> Done:
    """Revoke the keys, with the mails about it."""
    try:
        revoked = revocations.revoke(actor, keys, reason=reason, now=now)
    except Refused as refusal:
        return Done(failures=[Failure(key, refusal.sentence) for key in keys])
    left = {key.pk for key in keys} - {key.pk for key in revoked}
    return Done(revoked, [Failure(key, REVOKED) for key in keys if key.pk in left])


def each(keys: Iterable[Key], act: Callable[[Key], Any]) -> Done:
    """`act` on one key after the other; a refusal is kept beside its key."""
    done = Done()
    for key in keys:
        if key.revoked_at is not None:
            done.failures.append(Failure(key, REVOKED))
            continue
        try:
            act(key)
        except Refused as refusal:
            done.failures.append(Failure(key, refusal.sentence))
        else:
            done.changed.append(key)
    return done
