"""One JSON object a line (JSON Lines), with the columns of the CSV as names, real nulls and whole numbers;
what has decimals is text.

ASCII throughout (other characters as `\\u…`), so that no reader takes a character in a name for a line end.
"""

import json
from collections.abc import Iterable, Iterator

from usage.exports.cells import Cells


def render(lines: Iterable[Cells]) -> Iterator[bytes]:
    """Each line as an object, in bytes."""
    for line in lines:
        yield json.dumps(line, separators=(",", ":")).encode() + b"\n"
