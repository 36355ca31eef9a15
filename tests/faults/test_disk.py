"""A disk that fails under a real process: strace makes single system calls fail.

Whatever fails, what was answered is in a whole record, what is in no record was refused, and the next event
goes on in a new segment. (A disk that is really full: `tests/usage/test_journal.py`.)
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from usage.records import CALL, SEAL, read_records

WRITER = """
import json, os, sys
from pathlib import Path
from usage.journal import Journal, JournalError

journal = Journal(Path(sys.argv[1]), power=sys.argv[2] == "power", segment_bytes=3 * 1024**2, tick=False)
answered, refused = [], []
for number in range(int(sys.argv[3])):
    try:
        journal.append(1, 1, number, 1, 1, ("requests", "", "192.0.2.1", "curl"))
        answered.append(number)
    except JournalError:
        refused.append(number)
print(json.dumps([answered, refused]))
sys.stdout.flush()
os._exit(0)  # as a kill: nothing is sealed
"""


def strace_works() -> bool:
    """Is it there, and may it trace?"""
    if shutil.which("strace") is None:
        return False
    return (
        subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True).returncode == 0
    )


def write(folder: Path, fault: str, durability: str, count: int) -> tuple[list[int], list[int]]:
    """Have a process write `count` events under this fault; the numbers answered, and those refused."""
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={fault.partition(':')[0]}"]
    command += ["-e", f"inject={fault}", sys.executable, "-c", WRITER, str(folder), durability, str(count)]
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "portal.settings"}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answered, refused = json.loads(done.stdout)
    return answered, refused


@pytest.mark.skipif(
    "CI" not in os.environ and not strace_works(), reason="strace is not installed, or may not trace"
)
@pytest.mark.parametrize(
    ("fault", "durability", "count"),
    [
        ("fdatasync:error=EIO:when=3", "power", 10),
        ("fdatasync:error=ENOSPC:when=1", "power", 10),
        ("fsync:error=EIO:when=1", "power", 10),
        ("fallocate:error=ENOSPC:when=1", "process", 10),
        ("fallocate:error=EIO:when=2", "process", 20_000),
        ("ftruncate:error=EIO:when=1", "process", 10),
        ("ftruncate:error=EIO:when=2", "process", 60_000),
    ],
)
def test_a_call_to_the_disk_that_fails_refuses_one_event_at_most(
    tmp_path: Path, fault: str, durability: str, count: int
) -> None:
    answered, refused = write(tmp_path, fault, durability, count)
    assert len(refused) <= 1
    assert answered == [number for number in range(count) if number not in refused]
    found = [
        record for path in sorted(tmp_path.glob("*.journal")) for record in read_records(path.read_bytes())
    ]
    written = [record.secret for record in found if record.kind == CALL]
    # An event whose sync failed was refused, and may be in the file all the same.
    assert [number for number in written if number not in refused] == answered
    assert len(written) == len(set(written))
    sequences = [record.sequence for record in found if record.kind != SEAL]
    assert sequences == list(range(1, len(sequences) + 1))


@pytest.mark.skipif(
    "CI" not in os.environ and not strace_works(), reason="strace is not installed, or may not trace"
)
def test_a_sync_that_failed_is_not_tried_again_in_that_segment(tmp_path: Path) -> None:
    answered, refused = write(tmp_path, "fdatasync:error=EIO:when=3", "power", 10)
    assert (refused, len(answered)) == ([2], 9)
    first, second = sorted(tmp_path.glob("*.journal"))
    kinds = [record.kind for record in read_records(first.read_bytes())]
    assert kinds.count(CALL) == 3
    assert [r.secret for r in read_records(second.read_bytes()) if r.kind == CALL] == list(range(3, 10))
