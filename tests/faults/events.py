"""Kill -9 of everything that `serve` started, while usage is reported: no event that was acknowledged is
lost, and none counts twice, though a batch whose answer never came is sent again.

`python -m tests.faults.events --kills 100` is the long form, on a database of its own; `test_kill.py` has a
short one.
"""

import argparse
import http.client
import json
import os
import random
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults import alone
from tests.faults.kill import kill_under
from tests.faults.load import SILENT_SECONDS

if TYPE_CHECKING:
    from keys.models import Key

MOST = 20  # events in a batch

type Batch = dict[str, int]  # event id → value


@dataclass
class Reports:
    """What the clients sent and were told."""

    key: str  # whose usage it is
    chance: random.Random
    sent: Batch = field(default_factory=dict)
    acknowledged: set[str] = field(default_factory=set)
    doubtful: list[Batch] = field(default_factory=list)  # to be sent again
    again: int = 0  # batches that were
    duplicates: int = 0  # events that had been counted, though the answer never came
    wrong: list[str] = field(default_factory=list)  # answers that may not be
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_batch(self) -> Batch:
        with self.lock:
            if self.doubtful:
                self.again += 1
                return self.doubtful.pop()
            batch = {
                f"e{len(self.sent) + n}": self.chance.randint(1, 9)
                for n in range(self.chance.randint(1, MOST))
            }
            self.sent |= batch
            return batch

    def doubt(self, batch: Batch) -> None:
        with self.lock:
            self.doubtful.append(batch)

    def answered(self, batch: Batch, status: int, body: bytes) -> None:
        said = json.loads(body) if status == 200 else {}
        with self.lock:
            if said.get("accepted", 0) + said.get("duplicates", 0) == len(batch):
                self.acknowledged |= batch.keys()
                self.duplicates += said["duplicates"]
            elif status == 503:  # it is not ready yet, or any more
                self.doubtful.append(batch)
            else:
                self.wrong.append(f"{status}: {body[:200]!r}")


def _load(port: int, secret: str, reports: Reports, stop: threading.Event) -> None:
    """Report until told to stop or the server is gone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SILENT_SECONDS)
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
    while not stop.is_set():
        batch = reports.next_batch()
        events = [
            {"id": name, "key": reports.key, "meter": "requests", "value": value}
            for name, value in batch.items()
        ]
        try:
            connection.request("POST", "/v1/usage/events", json.dumps({"events": events}), headers)
            answer = connection.getresponse()
            reports.answered(batch, answer.status, answer.read())
        except (OSError, http.client.HTTPException):
            reports.doubt(batch)
            connection.close()
            if stop.wait(0.05):
                return
    connection.close()


def run(kills: int, of: "Key", secret: str, environment: Mapping[str, str], log: Path, seed: int) -> Reports:
    """Report usage of a key with this secret, and kill whom it is reported to."""
    reports = Reports(of.public_id, random.Random(seed))

    def load(port: int, stop: threading.Event) -> None:
        _load(port, secret, reports, stop)

    kill_under(load, kills, environment, log, workers=2, seed=seed)
    return reports


def wrong(reports: Reports, of: "Key") -> list[str]:
    """What is not as it must be."""
    from django.db.models import Sum

    from usage.models import Event, Rollup

    found = list(reports.wrong)
    counted = dict(Event.objects.filter(key_id=of.pk).values_list("event_id", "quantity"))
    if lost := reports.acknowledged - counted.keys():
        found.append(f"{len(lost)} acknowledged events are lost")
    if any(reports.sent.get(name) != value for name, value in counted.items()):
        found.append("an event is counted that nobody sent so")
    quantity = Rollup.objects.filter(key=of).aggregate(sum=Sum("quantity"))["sum"] or 0
    if quantity != sum(counted.values()):
        found.append(f"the roll-ups have {quantity}, the events {sum(counted.values())}")
    return found


def figures(reports: Reports, kills: int, wrong: int) -> str:
    return (
        f"{kills} kills: {len(reports.acknowledged)} of {len(reports.sent)} events acknowledged, "
        f"{reports.again} batches sent again with {reports.duplicates} events that were counted already, "
        f"{len(reports.doubtful)} batches in doubt at the end; {wrong} wrong"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with alone.portal(os.environ.get("DATABASE_URL", "")) as (environment, folder):
        from django.db import connections

        from tests import builders

        organization = builders.organization(f"events-{options.seed}")
        secret = builders.key(organization, name="Reporter", scopes=("portal:report",)).plaintext
        key = builders.key(organization).key
        connections.close_all()
        reports = run(options.kills, key, secret, environment, folder / "log", options.seed)
        found = wrong(reports, key)
        print(figures(reports, options.kills, len(found)), f"(seed {options.seed})")
        if found:
            sys.exit("\n".join(found[:10]))


if __name__ == "__main__":
    main()
