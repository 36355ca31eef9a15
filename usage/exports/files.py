"""Files that are there whole or not at all.

The content goes to a temporary file in the same folder, to the disk, and under its name only then. A failure
leaves what was there before, and a kill at most a temporary file beside it.
"""

import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_BLOCK = 1 << 20


def write_whole(files: Iterable[tuple[Path, Iterable[bytes]]]) -> None:
    """Write files of one folder, durably. All are complete on disk before the first gets its name; they get
    their names in the order given. Raises OSError, or what a content raises, with nothing left behind.
    """
    written: list[tuple[Path, Path]] = []
    try:
        for path, content in files:
            temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
            written.append((temporary, path))
            with temporary.open("xb") as file:
                for piece in content:
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in written:
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


def held(content: Iterable[bytes]) -> Iterator[bytes]:
    """The content, of which nothing comes before all of it could be made; on disk until then."""
    with tempfile.TemporaryFile() as file:
        for piece in content:
            file.write(piece)
        file.seek(0)
        while block := file.read(_BLOCK):
            yield block


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
