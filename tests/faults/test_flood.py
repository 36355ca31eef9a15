"""Floods of calls that are refused: they cost known keys nothing, and fill neither database nor journal."""

import collections
import os
import threading
import time
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import Sum
from django.utils import timezone

from keys import lifecycle, tokens
from keys.misses import PER_SECOND
from tests import builders
from tests.faults.load import Caller, Watch, one_for_each_worker
from tests.faults.server import Server
from usage.drain import Drain
from usage.models import Refusal, Rollup

WORKERS = 2
REFUSALS = 20_000
LARGEST = 200_000  # bytes of journals
THREADS = 4
SECONDS = 3  # at least; longer on a machine that does not make enough calls


def budget(seconds: float) -> int:
    """Queries: what each worker has at first, and what each earns."""
    return int(WORKERS * PER_SECOND * (1 + seconds))


@pytest.mark.skipif("sqlite" in os.environ["DATABASE_URL"], reason="nobody but PostgreSQL counts its queries")
@pytest.mark.django_db(transaction=True)
def test_a_flood_of_unknown_keys_reaches_the_database_within_the_budget_and_hurts_no_known_key(
    journal_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = builders.key(builders.organization("acme"))
    # PostgreSQL itself notes each statement of these connections.
    environment = builders.environment(DATABASE_URL=f"{builders.database_url()}&options=-clog_statement=all")
    codes: collections.Counter[str] = collections.Counter()
    with Server(environment, "--workers", str(WORKERS), "--no-worker", log=tmp_path / "log") as server:
        stop, lock = threading.Event(), threading.Lock()

        def flood() -> None:
            callers = one_for_each_worker(server.port, known.plaintext, WORKERS)
            while not stop.is_set():
                for caller in callers.values():
                    answer = caller.ask(tokens.mint("lk", "live").plaintext)
                    with lock:
                        codes[f"{answer.status} {answer.code}"] += 1
            for caller in callers.values():
                caller.close()

        with Watch(server.port, known.plaintext) as watch:
            before = _queries()
            began = time.monotonic()
            threads = [threading.Thread(target=flood) for _ in range(THREADS)]
            for thread in threads:
                thread.start()
            while (passed := time.monotonic() - began) < SECONDS or (
                codes.total() < 1.5 * budget(passed) and passed < 10 * SECONDS
            ):
                time.sleep(0.05)
            stop.set()
            for thread in threads:
                thread.join()
            took = time.monotonic() - began
            queries = _queries() - before
        assert {answer.status for answer in watch.answers} == {200}
        assert len(watch.answers) > 20 * SECONDS
    with capsys.disabled():
        print(f"\n{codes.total()} unknown keys, {queries} queries of {budget(took)}: {dict(codes)}", end=" ")
    assert set(codes) == {"401 UNKNOWN", "503 UNAVAILABLE"}
    assert codes.total() > budget(took)  # else nothing is proved
    assert 0 < queries <= budget(took)


@pytest.mark.django_db(transaction=True)
def test_a_flood_with_a_revoked_key_leaves_a_small_journal_and_every_call_counted(
    journal_dir: Path, tmp_path: Path
) -> None:
    acme = builders.organization("acme")
    known, revoked = builders.key(acme), builders.key(acme)
    lifecycle.revoke_key(lifecycle.command_actor(), revoked.key, reason="", now=timezone.now())
    answers: collections.Counter[str] = collections.Counter()
    ids: set[str] = set()
    lock = threading.Lock()
    with Server(builders.environment(), "--no-worker", log=tmp_path / "log") as server:

        def flood() -> None:
            caller = Caller(server.port)
            mine = [caller.ask(revoked.plaintext) for _ in range(REFUSALS // THREADS)]
            mine += [caller.ask(known.plaintext) for _ in range(10)]
            caller.close()
            with lock:
                answers.update(answer.code for answer in mine)
                ids.update(answer.request for answer in mine)

        threads = [threading.Thread(target=flood) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.stop() == 0
    assert answers == {"REVOKED": REFUSALS, "VALID": 10 * THREADS}
    assert len(ids) == answers.total()
    assert 0 < sum(path.stat().st_size for path in journal_dir.iterdir()) < LARGEST
    assert Drain().once(timezone.now()).problems == []
    counted = dict(Rollup.objects.values_list("outcome").annotate(Sum("calls")))
    assert counted == answers
    rows = Refusal.objects.all()
    assert sum(1 + row.more for row in rows) == REFUSALS
    known_ids = {row.request_id for row in rows}
    refused = {request for request in ids if request.partition(".")[0] in known_ids}
    assert len(refused) == REFUSALS


def _queries() -> int:
    """How often the server was asked about a secret so far, by the statements that it has noted."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        (folder,) = cursor.fetchone()
    log = (Path(folder) / "log").read_bytes()
    words = (b"keys_secret", b"WHERE", b"digest")
    return sum(all(word in line for word in words) for line in log.splitlines())
