"""The formats of the billing export: one small module each, under the name that the command takes.

A format turns statement lines into bytes and knows nothing else. The same lines always give the same bytes.
"""

from collections.abc import Callable, Iterable, Iterator

from usage.billing import Line
from usage.exports import csv, jsonl

type Render = Callable[[Iterable[Line]], Iterator[bytes]]

FORMATS: dict[str, Render] = {"csv": csv.render, "jsonl": jsonl.render}
