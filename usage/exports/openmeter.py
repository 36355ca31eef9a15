"""OpenMeter: one batch of CloudEvents 1.0 in JSON, the body of a `POST /api/v1/events` of the media type
`application/cloudevents-batch+json`.

An event's source is this portal and its type the meter's name. OpenMeter counts an id of a source once.
"""

import json
from collections.abc import Iterable, Iterator

from django.conf import settings

from usage.exports.events import Event


def render(events: Iterable[Event]) -> Iterator[bytes]:
    """The events as a JSON array, one a line, in bytes. The value is text, so that no reader makes a float
    of it."""
    yield b"["
    before = b"\n"
    for event in events:
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
        before = b",\n"
    yield b"\n]\n"
