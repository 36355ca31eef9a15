"""Long work leaves SQLite to others now and then."""

import os
import threading
import time
from contextlib import suppress

import pytest
from django.db import OperationalError, connection

from keys.models import Organization
from tests import builders
from tests.usage.journals import NOW, call
from usage import breaks
from usage.drain import Drain
from usage.journal import Journal

BATCH, BATCHES = 5_000, 12

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("sqlite" not in os.environ["DATABASE_URL"], reason="PostgreSQL needs no breaks"),
]


def test_a_long_drain_lets_others_write(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaks, "EVERY_SECONDS", 0.1)
    organization = builders.organization("acme")
    for _ in range(BATCH * BATCHES):
        call(journal)
    under_way, written, passes = threading.Event(), threading.Event(), []

    def write() -> None:
        """As SQLite does for whoever has waited for a while."""
        under_way.wait()
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
        while not written.is_set():
            time.sleep(0.1)
            with suppress(OperationalError):
                Organization.objects.filter(pk=organization.pk).update(name="Acme & Co")
                written.set()
        connection.close()

    def progress(_: int) -> None:
        passes.append(written.is_set())
        under_way.set()

    writer = threading.Thread(target=write)
    writer.start()
    report = Drain(batch=BATCH).once(NOW, progress=progress)
    writer.join()
    assert report.calls == BATCH * BATCHES
    assert len(passes) >= BATCHES
    assert passes[-1]
