"""Workers that are killed while they write and send mails about expiry: nobody misses one.

`python -m tests.faults.mails --kills 300` is the long form; `test_mails.py` runs a short one. Two workers at
once, with a real mail server beside them; both are killed, again and again. What the server took and no
worker could note any more it gets once more, under the same Message-ID: at most one for each that was killed.
"""

import argparse
import datetime as dt
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults import alone
from tests.smtp import mail_server
from tests.waiting import until

MAILS = 3  # for each that is killed, so that there is always one to send
ROUND = dt.timedelta(minutes=11)  # after a kill: longer than a claim
PATIENCE = 30.0  # seconds


def _child(work: Callable[[], None]) -> int:
    """A process of its own that does this and ends; its id."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid


def _serve(taken: Path, port: Path) -> None:
    """The mail server: writes the id of each mail that it takes before it says so."""
    with mail_server() as server, taken.open("a") as file:
        server.on_taken = lambda message: print(message["Message-ID"], file=file, flush=True)
        port.with_suffix(".new").write_text(str(server.port))
        port.with_suffix(".new").rename(port)
        signal.pause()


def _work(now: dt.datetime) -> None:
    """What a worker does, at this time."""
    from django.db import DatabaseError

    from portal import expiry, outbox

    while True:
        try:
            expiry.remind(now)
            if not outbox.send_due(now):
                return
        except DatabaseError:  # SQLite, while the other one writes
            continue


def _ids(taken: Path) -> list[str]:
    return taken.read_text().splitlines() if taken.exists() else []


def _has_more(taken: Path, count: int) -> bool:
    return len(_ids(taken)) >= count


def kill(taken: Path, now: dt.datetime, kills: int, chance: random.Random) -> dt.datetime:
    """Two workers at once, both killed after a few more mails, so many times; the time it is then."""
    for _ in range(kills // 2):
        workers = [_child(partial(_work, now)) for _ in range(2)]
        enough = partial(_has_more, taken, len(_ids(taken)) + chance.choice((0, 1, 2, 4)))
        until(enough, PATIENCE, why="no mail is taken any more", pause=0.0005)
        time.sleep(chance.choice((0, 0, chance.uniform(0, 0.05))))
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        for pid in workers:
            os.waitpid(pid, 0)
        now += ROUND
    return now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    with alone.portal(os.environ.get("DATABASE_URL", "")) as (_, folder):
        from django.conf import settings
        from django.urls import reverse

        from portal import expiry, outbox
        from portal.models import Mail, Reminder
        from portal.serving import release_database
        from tests import builders

        now = builders.NOW.replace(hour=0)
        alice = builders.user(f"alice-{options.seed}")
        wanted = MAILS * options.kills
        for number in range(wanted):
            of = builders.organization(f"mails-{options.seed}-{number}", owner=alice)
            builders.key(
                of, expires_at=now + dt.timedelta(days=expiry.DAYS[1]), now=now - dt.timedelta(days=90)
            )
        reverse("landing")  # reads all routes, once instead of in every child
        release_database()  # before a fork
        taken, port = folder / "taken", folder / "port"
        server = _child(lambda: _serve(taken, port))
        until(port.exists, PATIENCE, why="the mail server does not start")
        options_of_mail = {"host": "127.0.0.1", "port": int(port.read_text())}
        backend = "django.core.mail.backends.smtp.EmailBackend"
        settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": options_of_mail}}
        now = kill(taken, now, options.kills, random.Random(options.seed))
        _work(now)
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        mails = list(Mail.objects.filter(to=alice.email))
        reminders = Reminder.objects.filter(key__organization__memberships__user=alice).count()
        ids = _ids(taken)
        again = len(ids) - len(set(ids))
        expected = {outbox.message_id(mail) for mail in mails}
        wrong = {
            "queued": len(mails) - wanted,
            "noted": reminders - wanted,
            "not sent": len([mail for mail in mails if mail.sent_at is None]) + len(expected - set(ids)),
            "of nothing": len(set(ids) - expected),
            "doubles too many": max(again - options.kills, 0),
        }
        print(
            f"{options.kills} workers killed: {len(mails)} mails, {again} sent again under the same id, "
            f"{sum(map(abs, wrong.values()))} wrong ({options.seed})"
        )
        if any(wrong.values()):
            sys.exit(str(wrong))


if __name__ == "__main__":
    main()
