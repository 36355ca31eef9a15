"""The clock of a serving machine is set an hour or a day forward or back, under load."""

import collections
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from tests.builders import environment, key, organization
from tests.faults.load import Caller
from tests.faults.server import Server
from tests.waiting import until
from usage import drain
from usage.models import Rollup

LEAPS = (3600, -3600, 86_400, -86_400)
SECONDS = 20.0  # to notice
# Python runs this first: the clock of these processes, and only of these, is off by what a file says.
# (libfaketime cannot be used: under it CPython's time.sleep fails.)
SET_CLOCK = """
import os, time
_real, _file = time.time_ns, os.environ["TEST_CLOCK"]
def time_ns():
    with open(_file) as file:
        return _real() + int(file.read()) * 1_000_000_000
time.time_ns, time.time = time_ns, lambda: time_ns() / 1e9
"""


class Machine:
    """A server whose clock is set by hand."""

    def __init__(self, folder: Path, secret: str) -> None:
        self._file = folder / "clock"
        self.set(0)
        (folder / "sitecustomize.py").write_text(SET_CLOCK)
        path = f"{folder}:{environment()['PYTHONPATH']}"
        self.server = Server(environment(PYTHONPATH=path, TEST_CLOCK=str(self._file)), log=folder / "log")
        self.answers: collections.Counter[int] = collections.Counter()
        self.watermarks: list[dt.datetime] = []
        self._secret = secret

    def set(self, seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.rename(self._file)

    def call(self) -> int:
        caller = Caller(self.server.port)
        status = caller.ask(self._secret).status
        caller.close()
        self.answers[status] += 1
        if (reached := drain.complete_through()) is not None:
            self.watermarks.append(reached)
        return status

    def call_until(self, status: int) -> None:
        until(
            lambda: self.call() == self.server.get("/readyz").status == status,
            SECONDS,
            why=lambda: self.server.get("/readyz").body,
        )


@pytest.fixture
def machine(journal_dir: Path, tmp_path: Path) -> Iterator[Machine]:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no clock of its own")
    machine = Machine(tmp_path, key(organization("acme")).plaintext)
    with machine.server:
        yield machine


@pytest.mark.django_db(transaction=True)
def test_a_clock_that_is_set_dates_nothing_wrong(machine: Machine) -> None:
    began = timezone.now()
    machine.call_until(200)
    for leap in LEAPS:
        machine.set(leap)
        machine.call_until(503)
        assert b"clock" in machine.server.get("/readyz").body
        for _ in range(20):
            assert machine.call() == 503
        machine.set(0)
        machine.call_until(200)
        for _ in range(20):
            assert machine.call() == 200
    assert machine.server.stop() == 0
    rows = Rollup.objects.filter(outcome="VALID")
    assert sum(row.calls for row in rows) == machine.answers[200]
    first, last = began.replace(minute=0, second=0, microsecond=0), timezone.now()
    assert all(first <= row.hour <= last for row in rows)
    assert machine.watermarks == sorted(machine.watermarks)
    assert max(machine.watermarks) <= timezone.now()
