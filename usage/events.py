"""Usage from outside: events counted exactly once, and held calls settled.

One transaction inserts an event's (source, id) and adds its quantity to the roll-ups: whatever dies, and
whoever sends the same event at once or again, both are there or neither. This module alone decides whether an
event counts. It claims nothing before that, and an event that cannot count never keeps another from it.
"""

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from django.db import connection, transaction

from keys.models import Key
from usage import bulk, counting, holds, meters, month_bound
from usage.billing.periods import Period
from usage.event_format import Identity, Refusal, Rejection, Reported
from usage.holds import Missing, Reference
from usage.meters import Meter
from usage.models import Event, Hold
from usage.month_bound import Place
from usage.records import METER_LENGTH
from usage.rollups import Sums

LATEST: Final = dt.timedelta(days=35)  # after it happened, or after the call that it settles
EARLIEST: Final = dt.timedelta(minutes=5)  # before it happened: clocks differ
# For so long its id is remembered. LATEST twice: who sends one again after that is TOO_LATE.
REMEMBERED: Final = dt.timedelta(days=70)
WAIT_SECONDS: Final = 2.0  # for the drain to come to a held call
_KEY_LENGTH: Final = 32

_INSERT = """
INSERT INTO usage_event
  (source, event_id, digest, organization_id, key_id, meter, resource, at, quantity, settles, received_at)
{rows}
ON CONFLICT (source, event_id) DO NOTHING
RETURNING source, event_id
"""


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that is not counted: its place in the batch, and why."""

    index: int
    code: Rejection
    detail: str


@dataclass
class Report:
    """What came of a batch. Accepted and duplicate events are counted, once each."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejected] = field(default_factory=list)


class _Counted(NamedTuple):
    """What an event adds, and to whom. `hold` is the call that it settles."""

    event: Reported
    organization: int
    key: int
    meter: str
    resource: str
    at: dt.datetime
    quantity: int
    hold: Reference | None

    @property
    def identity(self) -> Identity:
        return self.event.identity

    @property
    def place(self) -> Place:
        return Place(self.organization, self.meter, Period.of(self.at))


class _Facts(NamedTuple):
    """What the database knows about what a batch names."""

    keys: Mapping[str, Key]  # by public id
    keys_of_holds: Mapping[int, Key]  # by primary key
    holds: Mapping[Reference, Hold | Missing]


# What came of one event: None if it counts now, True if it did already.
type _Outcome = Refusal | bool | None


def report(events: Sequence[Reported | Refusal], now: dt.datetime, *, wait: float = WAIT_SECONDS) -> Report:
    """Count the events of one batch, each as if it had come alone and in this order.

    What is accepted is durable on return. `wait` is how many seconds a settlement may wait for the drain.
    Raises DatabaseError when the database is away; then the batch is to be sent again.
    """
    outcomes: dict[int, _Outcome] = {}
    waiting: dict[int, Reported] = {}  # their ids are counted by nobody yet
    known = _digests(event.identity for event in events if isinstance(event, Reported))
    for index, event in enumerate(events):
        if isinstance(event, Refusal):
            outcomes[index] = event
        elif event.identity in known:
            outcomes[index] = _again(event, known[event.identity])
        else:
            waiting[index] = event
    facts = _look_up(list(waiting.values()), wait)
    while waiting:
        leaders: dict[Identity, int] = {}  # who comes first with an id
        chosen: dict[int, _Counted] = {}
        for index, event in waiting.items():
            if event.identity not in leaders:
                try:
                    chosen[index] = _check(event, facts, now)
                    leaders[event.identity] = index
                except Refusal as refusal:
                    outcomes[index] = refusal
        outcomes |= _count(chosen, now)
        behind = {index: event for index, event in waiting.items() if index not in outcomes}
        waiting = {}
        for index, event in behind.items():
            leader = leaders[event.identity]
            again = _again(event, chosen[leader].event.digest)
            if not isinstance(outcomes[leader], Refusal):
                outcomes[index] = again
            elif again is True:
                outcomes[index] = outcomes[leader]
            else:
                waiting[index] = event  # nothing was counted under its id: it is free
    return _summed(outcomes)


def _summed(outcomes: Mapping[int, _Outcome]) -> Report:
    found = Report()
    for index, outcome in sorted(outcomes.items()):
        if isinstance(outcome, Refusal):
            found.rejected.append(Rejected(index, outcome.code, outcome.detail))
        elif outcome:
            found.duplicates += 1
        else:
            found.accepted += 1
    return found


def _again(event: Reported, digest: str) -> _Outcome:
    """The outcome of an event whose id is counted already."""
    if event.digest == digest:
        return True
    return Refusal(Rejection.CONFLICT, "An event with this id was counted, and it said something else.")


# --- what an event means ---------------------------------------------------------------------------


def _look_up(events: Collection[Reported], wait: float) -> _Facts:
    references = {holds.parse(event.settles) for event in events if event.settles}
    found = holds.find({reference for reference in references if reference is not None}, wait=wait)
    names = {event.key for event in events if _may_be_key(event.key)}
    by_name = {key.public_id: key for key in Key.objects.filter(public_id__in=names)}
    of_holds = {hold.key_id for hold in found.values() if isinstance(hold, Hold)}
    return _Facts(by_name, Key.objects.in_bulk(of_holds), found)


def _may_be_key(name: str) -> bool:
    return name.isascii() and name.isprintable() and 0 < len(name) <= _KEY_LENGTH


def _check(event: Reported, facts: _Facts, now: dt.datetime) -> _Counted:
    """What the event adds. Raises Refusal."""
    return _settlement(event, facts, now) if event.settles else _usage(event, facts, now)


def _usage(event: Reported, facts: _Facts, now: dt.datetime) -> _Counted:
    key = facts.keys.get(event.key)
    if key is None:
        raise Refusal(Rejection.UNKNOWN_KEY, "There is no key with this id; ids look like key_4kD….")
    quantity = _quantity(event, _meter(event.meter))
    at = now if event.at is None else event.at
    if at > now + EARLIEST:
        raise Refusal(Rejection.TOO_EARLY, "The event is of a time more than 5 minutes ahead.")
    _not_too_late(at, now)
    return _Counted(event, key.organization_id, key.pk, event.meter, event.resource, at, quantity, None)


def _settlement(event: Reported, facts: _Facts, now: dt.datetime) -> _Counted:
    """Between what the call was held for and what it really was; in the call's own hour."""
    reference = holds.parse(event.settles)
    hold = Missing.UNKNOWN if reference is None else facts.holds[reference]
    if hold is Missing.UNKNOWN:
        raise Refusal(Rejection.UNKNOWN_REQUEST, "No call of this portal has this request id.")
    if hold is Missing.NOT_YET:
        raise Refusal(Rejection.NOT_YET, "The call is not counted yet; send the event again.")
    if not isinstance(hold, Hold):
        raise Refusal(Rejection.NOT_HELD, "The call was not held, was refused, or is too long ago.")
    key = facts.keys_of_holds.get(hold.key_id)
    if event.key and (key is None or event.key != key.public_id):
        raise Refusal(Rejection.INVALID_EVENT, "The call that is settled was another key's.")
    if event.meter not in ("", hold.meter):
        raise Refusal(Rejection.INVALID_EVENT, "The call that is settled is counted by another meter.")
    if event.resource not in ("", hold.resource):
        raise Refusal(Rejection.INVALID_EVENT, "The call that is settled was of another resource.")
    really = 0 if event.void else _quantity(event, _meter(hold.meter))
    _not_too_late(hold.at, now)
    return _Counted(
        event,
        hold.organization_id,
        hold.key_id,
        hold.meter,
        hold.resource,
        hold.at,
        really - hold.cost,
        reference,
    )


def _meter(name: str) -> Meter:
    meter = meters.get(name) if name.isprintable() and len(name) <= METER_LENGTH else None
    if meter is None:
        raise Refusal(Rejection.UNKNOWN_METER, "There is no meter of this name.")
    return meter


def _quantity(event: Reported, meter: Meter) -> int:
    assert event.value is not None
    try:
        return meter.smallest(event.value)
    except ValueError as error:
        raise Refusal(Rejection.INVALID_VALUE, str(error)) from None


def _not_too_late(at: dt.datetime, now: dt.datetime) -> None:
    if at < now - LATEST:
        raise Refusal(Rejection.TOO_LATE, "It was more than 35 days ago.")


# --- counting --------------------------------------------------------------------------------------


def _count(chosen: Mapping[int, _Counted], now: dt.datetime) -> dict[int, _Outcome]:
    """Count what nobody else has in the meantime. First the turns of huge events, then the ids, then the held
    calls, then the roll-ups, each in the order of its keys: so two batches never wait for each other in a
    circle."""
    if not chosen:
        return {}
    outcomes: dict[int, _Outcome] = {}
    huge = {each.place for each in chosen.values() if month_bound.is_huge(each.quantity)}
    with transaction.atomic():
        counting.share()
        month_bound.take_turns(huge)
        inserted = _insert(chosen.values(), now)
        others = _digests(each.identity for each in chosen.values() if each.identity not in inserted)
        unsettled = holds.settle(
            {each.hold for each in chosen.values() if each.hold is not None and each.identity in inserted},
            now,
        )
        room = month_bound.room(huge)
        for index, each in chosen.items():
            if each.identity not in inserted:
                outcomes[index] = _again(each.event, others[each.identity])
            elif each.hold is not None and each.hold not in unsettled:
                outcomes[index] = Refusal(Rejection.SETTLED, "Another event has settled this call.")
            elif month_bound.is_huge(each.quantity) and each.quantity > room[each.place]:
                outcomes[index] = Refusal(Rejection.INVALID_VALUE, month_bound.SENTENCE)
            else:
                outcomes[index] = None
                if each.hold is not None:
                    unsettled.remove(each.hold)
                if month_bound.is_huge(each.quantity):
                    room[each.place] -= each.quantity
        holds.reopen(unsettled)
        counted = [chosen[index] for index, outcome in outcomes.items() if outcome is None]
        _take_back(
            each.identity
            for index, each in chosen.items()
            if each.identity in inserted and outcomes[index] is not None
        )
        sums = Sums()
        for each in counted:
            if each.quantity:  # nothing added is no row
                sums.add_event(each.organization, each.key, each.meter, each.resource, each.at, each.quantity)
        sums.store()
    return outcomes


def _insert(counted: Iterable[_Counted], now: dt.datetime) -> set[Identity]:
    """Insert the events whose ids are new, and say which. Waits for whoever is just inserting one of them."""
    time = connection.ops.adapt_datetimefield_value
    rows = [
        (
            *(each.event.source, each.event.id, each.event.digest, each.organization, each.key, each.meter),
            *(each.resource, time(each.at), each.quantity, each.event.settles, time(now)),
        )
        for each in sorted(counted, key=lambda each: each.identity)
    ]
    return set(bulk.execute(_INSERT, rows))


def _take_back(identities: Iterable[Identity]) -> None:
    """Forget ids that this transaction has inserted: their events do not count after all."""
    for source, event_id in identities:
        Event.objects.filter(source=source, event_id=event_id).delete()


def _digests(identities: Iterable[Identity]) -> dict[Identity, str]:
    """What the events with these ids said, of those that are counted."""
    wanted = set(identities)
    rows = Event.objects.filter(
        source__in={source for source, _ in wanted}, event_id__in={event_id for _, event_id in wanted}
    ).values_list("source", "event_id", "digest")
    return {(source, event_id): digest for source, event_id, digest in rows if (source, event_id) in wanted}
