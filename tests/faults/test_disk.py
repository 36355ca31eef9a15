"""A disk that fails under a real process: strace makes single system calls fail.

Whatever fails, what was answered is in a whole record, what is in no record was refused, and the next event
goes on in a new segment. A disk that is really full, under `serve`: 503 while it is, and soon after there is
room calls are answered again. (The journal alone on such a disk: `tests/usage/test_journal.py`.)
"""

import http.client
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from django.db.models import Sum

from tests.builders import environment, key, organization
from tests.faults.load import AUTHORIZE
from tests.faults.server import Server
from tests.waiting import until
from usage.models import Rollup
from usage.records import CALL, SEAL, read_records

BACK_SECONDS = 5  # after there is room

WRITER = """
import json, os, sys
from pathlib import Path
from usage.journal import Event, Journal, JournalError

journal = Journal(Path(sys.argv[1]), power=sys.argv[2] == "power", segment_bytes=3 * 1024**2, tick=False)
answered, refused = [], []
for number in range(int(sys.argv[3])):
    try:
        journal.append(Event(1, 1, number, 1, 1, ("requests", "", "192.0.2.1", "curl")))
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


# A file system of three megabytes in a mount namespace of its own, and then the command.
ON_A_SMALL_DISK = """mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@" """


def namespace() -> list[str]:
    """What to put before a command that may mount."""
    return ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]


def mounting_works() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*namespace(), "true"], check=False, capture_output=True).returncode == 0


# In CI it is never skipped: that would hide what was never tried.
@pytest.mark.skipif("CI" not in os.environ and not mounting_works(), reason="nothing may be mounted here")
@pytest.mark.django_db(transaction=True)
def test_a_full_disk_is_503_until_there_is_room_and_no_call_is_lost(tmp_path: Path) -> None:
    issued = key(organization("acme"))
    disk = tmp_path / "disk"
    disk.mkdir()
    own = environment(USAGE_JOURNAL_DIR=str(disk))
    before = [*namespace(), "sh", "-c", ON_A_SMALL_DISK, str(disk)]
    with (
        Server(own, "--no-worker", "--workers", "1", log=tmp_path / "log", before=before) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection,
    ):

        def call(number: int) -> int:
            """An agent of its own each time, so that the journal grows fast."""
            agent = f"{number:06}{'x' * 500}"
            headers = {"Authorization": f"Bearer {issued.plaintext}", "User-Agent": agent}
            connection.request("GET", AUTHORIZE, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status

        answered = [call(0)]
        ballast = Path(f"/proc/{server.process.pid}/root{disk}/ballast")
        with suppress(OSError):
            ballast.write_bytes(bytes(4 * 1024**2))
        while answered[-1] == 200:
            answered.append(call(len(answered)))
        answered += [call(len(answered)) for _ in range(20)]
        assert answered[-21:] == [503] * 21
        ballast.unlink()
        until(lambda: call(len(answered)) == 200, BACK_SECONDS)
        assert server.stop() == 0
    counted = Rollup.objects.filter(outcome="VALID").aggregate(calls=Sum("calls"))["calls"]
    assert counted == answered.count(200) + 1
