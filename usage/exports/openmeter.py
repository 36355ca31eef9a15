"""OpenMeter: JSON Lines, each a batch of CloudEvents 1.0 and the body of a `POST /api/v1/events` of the media
type `application/cloudevents-batch+json`.

OpenMeter names no bound on a batch; this one stays below the mebibyte that proxies let pass. An event's
source is this portal and its type the meter's name. OpenMeter counts an id of a source once.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from django.conf import settings

from usage.exports.events import Event

BATCH: Final = 500  # events of some 400 bytes; 2 KiB where texts are as long as they may be


def render(events: Iterable[Event]) -> Iterator[bytes]:
    """The batches, in bytes; a month without events is an empty one. The value is text, so that no reader
    makes a float of it."""
    before = b"["
    for number, event in enumerate(events, 1):
        body = {
            "specversion": "1.0",
            "id": event.id,
            "source": settings.PORTAL_URL,
            "type": event.meter,
            "subject": event.customer,
            "time": f"{event.at:%Y-%m-%dT%H:%M:%SZ}",
            "datacontenttype": "application/json",
            "data": {"value": event.value} | event.about,
        }
        yield before + json.dumps(body, separators=(",", ":")).encode()
        before = b"," if number % BATCH else b"]\n["
    yield b"[]\n" if before == b"[" else b"]\n"
