"""Lago: JSON Lines, each the body of a `POST /api/v1/events/batch` with the hundred events that it may have.

A billable metric's code is the meter's name, the property that it sums up is `value`. Lago counts a
transaction id of a subscription once.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import batched
from typing import Final

from usage.exports.events import Event

BATCH: Final = 100


def render(events: Iterable[Event]) -> Iterator[bytes]:
    """The batches, in bytes."""
    for batch in batched(events, BATCH):
        body = {
            "events": [
                {
                    "transaction_id": event.id,
                    "external_subscription_id": event.customer,
                    "code": event.meter,
                    "timestamp": int(event.at.timestamp()),
                    "properties": {"value": event.value} | event.about,
                }
                for event in batch
            ]
        }
        yield json.dumps(body, separators=(",", ":")).encode() + b"\n"
