"""Who must have heard of a revocation before it is confirmed, and who needs not."""

import datetime as dt
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from keys import lifecycle, presence
from keys.directory import Directory
from keys.models import Process
from keys.verdicts import Code
from tests import builders
from tests.keys.directories import COMMAND, NOW, Clock, code, head


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[Path]:
    """A lock that a living process holds: it is this one."""
    path = tmp_path / "alive.lock"
    fd = presence.take_lock(path)
    yield path
    os.close(fd)


def listed(lock_path: Path, number: int, host: str = "elsewhere") -> None:
    presence.join("other", host, lock_path, number)


@pytest.mark.django_db
def test_nobody_serves_then_everyone_has_heard() -> None:
    builders.organization("acme")
    assert presence.known_everywhere(head(), wait=0) == []


@pytest.mark.django_db
def test_a_process_that_has_not_acknowledged_is_waited_for_and_named(lock: Path) -> None:
    builders.organization("acme")
    listed(lock, head() - 1)
    (waiting,) = presence.known_everywhere(head(), wait=0)
    assert (waiting.host, waiting.pid) == ("elsewhere", os.getpid())
    assert waiting.until > dt.datetime.now(dt.UTC) + dt.timedelta(seconds=50)
    assert presence.acknowledge("other", head())
    assert presence.known_everywhere(head(), wait=0) == []


@pytest.mark.django_db
def test_a_dead_process_on_this_host_is_not_waited_for_but_a_living_one_is(lock: Path) -> None:
    builders.organization("acme")
    listed(lock, 0, host=os.uname().nodename[:100])
    assert len(presence.known_everywhere(head(), wait=0)) == 1
    free = lock.with_name("free.lock")
    free.touch()
    listed(free, 0, host=os.uname().nodename[:100])
    assert presence.known_everywhere(head(), wait=0) == []


@pytest.mark.django_db
def test_a_lock_that_somebody_removed_proves_no_death(lock: Path) -> None:
    builders.organization("acme")
    listed(lock.with_name("no such lock"), 0, host=os.uname().nodename[:100])
    assert len(presence.known_everywhere(head(), wait=0)) == 1


@pytest.mark.django_db
def test_a_process_that_may_answer_no_longer_is_not_waited_for_and_cannot_acknowledge(
    lock: Path, settings: Settings
) -> None:
    builders.organization("acme")
    settings.KEYS_STALE_SECONDS = -1
    listed(lock, 0)
    assert presence.known_everywhere(head(), wait=0) == []
    assert not presence.acknowledge("other", head())


@pytest.mark.django_db
def test_a_process_that_came_back_too_late_reads_again_before_it_answers(
    directory: Directory, clock: Clock, settings: Settings
) -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    directory.refresh()
    # Cut off so long that others stopped waiting for it; the key was revoked meanwhile.
    Process.objects.update(serves_until=NOW - dt.timedelta(days=300))
    clock.now += settings.KEYS_STALE_SECONDS
    lifecycle.revoke_key(COMMAND, issued.key, now=NOW)
    assert presence.known_everywhere(head(), wait=0) == []
    assert code(directory, issued.plaintext) is Code.UNAVAILABLE
    directory.refresh()
    assert code(directory, issued.plaintext) is Code.REVOKED
    assert Process.objects.get().feed_number == head()


@pytest.mark.django_db
def test_the_dead_are_forgotten_and_the_living_are_not(lock: Path, tmp_path: Path) -> None:
    here = os.uname().nodename[:100]
    presence.join("living", here, lock)
    free = tmp_path / "free.lock"
    free.touch()
    presence.join("dead", here, free)
    presence.join("elsewhere", "another host", free)
    assert presence.forget_the_dead() == 1
    assert not free.exists()
    assert set(Process.objects.values_list("pk", flat=True)) == {"living", "elsewhere"}


def test_a_lock_that_another_holds_is_not_free(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert not presence.lock_is_free(path)  # not there: nobody can tell
    fd = presence.take_lock(path)
    assert not presence.lock_is_free(path)
    fcntl.flock(fd, fcntl.LOCK_UN)
    assert presence.lock_is_free(path)
    os.close(fd)
