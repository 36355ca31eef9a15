"""How much the journals of a folder hold of what they may: counted by what they take on the disk, whoever's.

It alone measures the folder, twice a second and off the path of any call; those who want more room look at
what it found. It never opens, changes or deletes a file. Between two measures every process may take what it
writes in half a second, and one reservation more.
"""

import logging
import os
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

SUFFIX: Final = ".journal"
BLOCK_BYTES: Final = 512  # of st_blocks, whatever the file system's own are
# The alarm begins at the one share of the bound and ends below the other, so that it does not flicker.
ALARM_PERCENT: Final = 80
CALM_PERCENT: Final = 75


def held_bytes(directory: Path) -> int:
    """What the journals in the folder that are not drained take on the disk. 0 without a folder."""
    held = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    try:
                        held += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
                    except FileNotFoundError:
                        continue  # drained meanwhile
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return held


def readable(size: int) -> str:
    """A number of bytes as people read it: `512 MiB`, `7.9 GiB`."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


class Room:
    """The folder's journals against their bound of `most` bytes; 0: there is none."""

    def __init__(self, directory: Path, most: int) -> None:
        self._directory = directory
        self._most = most
        self._held: int | None = None  # not measured yet
        self.alarm = False

    @property
    def is_full(self) -> bool:
        """May nothing more be reserved?"""
        if not self._most:
            return False
        if self._held is None:
            self.measure()
        return self._held is not None and self._held >= self._most

    @property
    def sentence(self) -> str:
        return (
            f"the journals here hold {readable(self._held or 0)} of the {readable(self._most)} that "
            "USAGE_JOURNAL_MAX_BYTES allows; is a worker draining them?"
        )

    def measure(self) -> None:
        """Look at the folder; say once when the alarm begins and once when it ends. Never raises."""
        if not self._most:
            return
        try:
            self._held = held_bytes(self._directory)
        except OSError as error:  # what was measured last still holds
            logger.warning("The journals cannot be measured: %s", error)
            return
        percent = 100 * self._held // self._most
        if not self.alarm and percent >= ALARM_PERCENT:
            self.alarm = True
            logger.warning("Little room: %s", self.sentence)
        elif self.alarm and percent < CALM_PERCENT:
            self.alarm = False
            logger.info("There is room again: %s", self.sentence)

    def take(self, size: int) -> None:
        """Count what this process has just reserved, until the next measure."""
        if self._held is not None:
            self._held += size
