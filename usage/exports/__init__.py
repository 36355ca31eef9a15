"""The formats of the billing export: one small module each, under the name that the command takes.

A format turns the cells of statement lines into bytes and knows nothing else. The same lines always give the
same bytes.
"""

from collections.abc import Callable, Iterable, Iterator

from usage import meters
from usage.billing import Line
from usage.exports import cells, csv, jsonl
from usage.exports.cells import Cells

type Render = Callable[[Iterable[Line]], Iterator[bytes]]


def _of_lines(render: Callable[[Iterable[Cells]], Iterator[bytes]]) -> Render:
    return lambda lines: render(cells.of_lines(lines, meters.read()))


FORMATS: dict[str, Render] = {"csv": _of_lines(csv.render), "jsonl": _of_lines(jsonl.render)}
