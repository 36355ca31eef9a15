"""The formats of the billing export: one small module each, under the name that the command takes.

A format turns statement lines into bytes and knows nothing else. The same lines always give the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from usage import meters
from usage.billing import Line
from usage.exports import cells, csv, events, focus, jsonl, lago, openmeter, stripe
from usage.exports.cells import Cells
from usage.exports.events import Event

type Render = Callable[[Iterable[Line]], Iterator[bytes]]


def _of_lines(render: Callable[[Iterable[Cells]], Iterator[bytes]]) -> Render:
    return lambda lines: render(cells.of_lines(lines, meters.read()))


def _of_events(render: Callable[[Iterable[Event]], Iterator[bytes]]) -> Render:
    return _of_lines(lambda lines: render(events.of_cells(lines)))


FORMATS: Final[Mapping[str, Render]] = {
    "csv": _of_lines(csv.render),
    "jsonl": _of_lines(jsonl.render),
    "focus": _of_lines(focus.render),
    "stripe": _of_events(stripe.render),
    "openmeter": _of_events(openmeter.render),
    "lago": _of_events(lago.render),
}
# Which id of a billing account a format's records carry; its lines go through `events.addressed` first.
ADDRESSED_BY: Final = {
    "stripe": "stripe_customer",
    "openmeter": "openmeter_subject",
    "lago": "lago_subscription",
}
# Which values of an event a system takes, where it does not take every one, and the words for them.
VALUES: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {"stripe": (stripe.takes, stripe.VALUES)}
# What a format puts beside its file, by the end of the name.
BESIDE: Final[Mapping[str, list[tuple[str, Callable[[], Iterator[bytes]]]]]] = {
    "focus": [(".metadata.json", focus.metadata)],
}
