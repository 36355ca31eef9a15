"""How fast keys are found in files that are in memory already, beside GNU grep looking for one fixed string.

`python -m tests.bench.scanning [FOLDER]` prints MB/s of all processors and the ratio to grep on one, the
best of some rounds. Without a folder it makes half a gigabyte of text.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from keys.scanning import scan

ROUNDS = 5
FILES, LINES = 1000, 8000  # each line has 64 bytes


def figures(folder: Path) -> dict[str, float]:
    found: list[int] = []

    def scanned() -> None:
        found.append(sum(result.size for result in scan([str(folder)], (b"lk",), history=False)))

    def searched() -> None:
        subprocess.run(["grep", "-raFc", "lk_live_", folder], stdout=subprocess.DEVNULL, check=False)

    searched()  # whatever was not in memory is now
    ours, grep = _best(scanned), _best(searched)
    return {"MB/s": found[0] / 1e6 / ours, "of grep": grep / ours, "processors": os.cpu_count() or 1}


def _best(act: Callable[[], None]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return min(took)


def _fill(folder: Path) -> None:
    for number in range(FILES):
        (folder / str(number)).write_bytes(os.urandom(24 * LINES).hex(" ", 12).encode())


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="latchkey-bench-", dir="/var/tmp") as made:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(made)
        if len(sys.argv) == 1:
            _fill(folder)
        print(json.dumps({name: round(value, 2) for name, value in figures(folder).items()}))


if __name__ == "__main__":
    main()
