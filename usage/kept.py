"""Journals that are drained, and kept for a while: what was counted can be counted again from them.

They lie in `drained/` below the journals, under the names they had; one that ended with bytes that are no
record has `.torn` behind its name. This module alone moves and deletes journals, and only once the database
has all that is in them.
"""

import datetime as dt
import os
import time
from pathlib import Path
from typing import Final

from usage.room import SUFFIX

FOLDER: Final = "drained"
TORN_SUFFIX: Final = ".torn"
BATCH: Final = 200  # files deleted at once
_ABANDONED_SECONDS: Final = 3600.0


def keep(path: Path, *, torn: bool, now: dt.datetime) -> None:
    """Move a finished journal to those that are kept; `now` is when it was finished. A failure before the end
    is repaired by the next pass, which finds the file where it was."""
    folder = path.parent / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        os.utime(path, (now.timestamp(), now.timestamp()))  # `prune` goes by it
        path.rename(folder / (path.name + TORN_SUFFIX if torn else path.name))
    except FileNotFoundError:
        pass  # another drain has moved it


def prune(directory: Path, *, days: int, now: dt.datetime, most: int = BATCH) -> int:
    """Delete the journals of `directory` that were finished `days` ago or longer, the oldest first and at
    most so many; return how many."""
    until = (now - dt.timedelta(days=days)).timestamp()
    old = []
    try:
        with os.scandir(directory / FOLDER) as entries:
            for entry in entries:
                if entry.name.endswith((SUFFIX, SUFFIX + TORN_SUFFIX)):
                    changed = entry.stat(follow_symlinks=False).st_mtime
                    if changed <= until:
                        old.append((changed, entry.path))
    except FileNotFoundError:
        return 0
    for _, name in sorted(old)[:most]:
        Path(name).unlink(missing_ok=True)
    return min(len(old), most)


def remove_abandoned(path: Path) -> None:
    """Delete a file left by a process that died while making it; it holds no event."""
    try:
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            path.unlink()
    except FileNotFoundError:
        pass
