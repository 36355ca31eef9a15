"""The reference format: CSV (RFC 4180) in UTF-8, with `\\n` line ends and a header.

Made for spreadsheets too, so a text that one would take for a formula gets an apostrophe in front; numbers
never do.
"""

import csv
import io
from collections.abc import Iterable, Iterator

from usage.billing import Line
from usage.exports.cells import Cells

# OWASP's list for CSV injection: the ASCII starters, and the full-width forms that some programs fold.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20")
NUMBERS = frozenset({"quantity", "included", "billable", "unit_price", "amount"})


def render(lines: Iterable[Cells]) -> Iterator[bytes]:
    """The header, then each line, as bytes."""
    yield row(Line._fields)
    for line in lines:
        yield row(
            "" if value is None else str(value) if name in NUMBERS else guarded(str(value))
            for name, value in line.items()
        )


def guarded(text: str) -> str:
    """`text`, with an apostrophe in front if it could start a formula."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def row(cells: Iterable[str]) -> bytes:
    """One row of a file."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue().encode()
