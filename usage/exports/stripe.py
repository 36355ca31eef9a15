"""Stripe: meter events in JSON Lines, each what a `POST /v1/billing/meter_events` takes.

Stripe takes an event within 35 days of its timestamp, so send a month in the month after it, and knows an
identifier again for a day at least. Its values are whole numbers of at most 15 digits: others are left out
and named, never rounded.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from usage.exports.events import Event

DIGITS: Final = 15  # more, and Stripe's own numbers would no longer be exact
VALUES: Final = f"a whole number of at most {DIGITS} digits"


def takes(value: str) -> bool:
    """Whether a plain decimal is one of Stripe's `VALUES`; `2.000` is."""
    whole, _, fraction = value.partition(".")
    return not fraction.strip("0") and len(whole.removeprefix("-")) <= DIGITS


def render(events: Iterable[Event]) -> Iterator[bytes]:
    """Each event as an object, in bytes. Stripe's meter has the same event name as ours has a name."""
    for event in events:
        body = {
            "event_name": event.meter,
            "identifier": event.id,
            "timestamp": int(event.at.timestamp()),
            "payload": {"stripe_customer_id": event.customer, "value": event.value.partition(".")[0]},
        }
        yield json.dumps(body, separators=(",", ":")).encode() + b"\n"
