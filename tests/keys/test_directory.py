"""How the picture of all keys is read, stays fresh, and when it may be believed."""

import datetime as dt
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from keys import directory as directory_module
from keys import lifecycle, presence, records
from keys.directory import STALE, Directory
from keys.models import AuditEvent, Feed, Key, Process
from keys.records import SecretRecord
from keys.verdicts import Code
from keys.verification import verify
from tests import builders
from tests.keys.directories import COMMAND, NOW, Clock, code, head
from tests.waiting import until


@pytest.mark.django_db
def test_every_act_on_a_key_reaches_the_picture_with_the_next_read(directory: Directory) -> None:
    acme = builders.organization("acme")
    builders.scope("orders:read")
    issued = builders.key(acme, now=NOW)
    directory.refresh()
    assert code(directory, issued.plaintext) is Code.VALID
    for act, after in (
        (lambda: lifecycle.disable_key(COMMAND, issued.key, now=NOW), Code.DISABLED),
        (lambda: lifecycle.enable_key(COMMAND, issued.key, now=NOW), Code.VALID),
        (
            lambda: lifecycle.edit_key(COMMAND, issued.key, networks=["10.0.0.0/8"], now=NOW),
            Code.IP_NOT_ALLOWED,
        ),
        (lambda: lifecycle.edit_key(COMMAND, issued.key, networks=[], now=NOW), Code.VALID),
        (
            lambda: lifecycle.suspend_organization(COMMAND, acme, reason="", now=NOW),
            Code.ORGANIZATION_SUSPENDED,
        ),
        (lambda: lifecycle.resume_organization(COMMAND, acme, now=NOW), Code.VALID),
        (lambda: lifecycle.revoke_key(COMMAND, issued.key, now=NOW), Code.REVOKED),
    ):
        act()
        directory.refresh()
        assert code(directory, issued.plaintext) is after


@pytest.mark.django_db
def test_a_policys_limits_reach_all_its_organizations(directory: Directory) -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme, now=NOW)
    directory.refresh()
    lifecycle.edit_policy(COMMAND, acme.policy, rates=["10/second"], quotas=["9/day"], now=NOW)
    directory.refresh()
    secret = directory.recall(issued.plaintext)
    assert isinstance(secret, SecretRecord)
    assert [rate.text for rate in secret.key.organization.rates] == ["10/second"]
    assert [quota.text for quota in secret.key.organization.quotas] == ["9/day"]


@pytest.mark.django_db
def test_memory_is_believed_until_it_is_stale_and_then_nothing_is(
    directory: Directory, clock: Clock, settings: Settings
) -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    directory.refresh()
    clock.now += settings.KEYS_STALE_SECONDS - 1
    assert code(directory, issued.plaintext) is Code.VALID
    clock.now += 1
    assert code(directory, issued.plaintext) is Code.UNAVAILABLE
    assert code(directory, "junk") is Code.UNAVAILABLE
    assert not directory.ready
    directory.refresh()
    assert code(directory, issued.plaintext) is Code.VALID
    assert directory.ready


@pytest.fixture
def slow(directory: Directory, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Directory:
    """A directory that loads one key a round."""
    reload = directory._reload_keys

    def reload_slowly(ids: Collection[int]) -> None:
        reload(ids)
        clock.now += directory_module.LOAD_SECONDS

    monkeypatch.setattr(directory_module, "LOAD_CHUNK", 1)
    monkeypatch.setattr(directory, "_reload_keys", reload_slowly)
    return directory


@pytest.mark.django_db
def test_a_load_holds_up_neither_calls_nor_revocations(slow: Directory) -> None:
    acme = builders.organization("acme")
    first, second, third = (builders.key(acme, name=f"Key {n}", now=NOW) for n in range(3))
    slow.refresh()
    assert (slow.size, slow.ready) == (1, False)
    assert "1 so far" in slow.explain()
    assert code(slow, first.plaintext) is Code.VALID
    assert code(slow, third.plaintext) is Code.VALID  # by a query
    lifecycle.revoke_key(COMMAND, first.key, now=NOW)
    lifecycle.revoke_key(COMMAND, second.key, now=NOW)
    slow.refresh()
    assert presence.known_everywhere(Feed.objects.get().number, wait=0) == []
    assert code(slow, first.plaintext) is code(slow, second.plaintext) is Code.REVOKED
    for _ in range(3):
        slow.refresh()
    assert slow.ready
    with CaptureQueriesContext(connection) as queries:
        assert code(slow, third.plaintext) is Code.VALID
    assert len(queries) == 0


@pytest.mark.django_db
def test_a_load_that_is_interrupted_leaves_no_key_out(
    slow: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = builders.organization("acme")
    issued = [builders.key(acme, name=f"Key {n}", now=NOW) for n in range(3)]
    slow.refresh()

    def fail(ids: Collection[int]) -> None:
        raise DatabaseError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(slow, "_reload_keys", fail)
        with pytest.raises(DatabaseError):
            slow.refresh()
    assert not slow.ready
    for _ in range(3):
        slow.refresh()
    assert slow.ready
    assert all(isinstance(slow.recall(each.plaintext), SecretRecord) for each in issued)


@pytest.mark.django_db
def test_junk_is_not_called_malformed_before_imported_keys_are_in(slow: Directory, clock: Clock) -> None:
    acme = builders.organization("acme")
    for number in range(2):
        lifecycle.import_key(
            COMMAND, acme, name=f"Key {number}", sha256=f"{number:064x}", expires_at=None, now=NOW
        )
    slow.refresh()
    assert code(slow, "junk") is Code.UNAVAILABLE
    for _ in range(4):
        slow.refresh()
    assert code(slow, "junk") is Code.MALFORMED


@pytest.mark.django_db
def test_keys_that_are_read_at_once_share_their_organizations_record(
    directory: Directory, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KEYS_IN_MEMORY = 0
    directory.refresh()
    acme = builders.organization("acme")
    first, second = builders.key(acme), builders.key(acme)
    read_keys = records.read_keys

    def another_thread_is_quicker(ids: list[int], known: Any) -> records.Found:
        found = read_keys(ids, dict(known))
        monkeypatch.setattr(directory_module, "read_keys", read_keys)
        assert code(directory, second.plaintext) is Code.VALID
        return found

    monkeypatch.setattr(directory_module, "read_keys", another_thread_is_quicker)
    assert code(directory, first.plaintext) is Code.VALID
    lifecycle.suspend_organization(COMMAND, acme, reason="", now=NOW)
    directory.refresh()
    codes = [code(directory, issued.plaintext) for issued in (first, second)]
    assert codes == [Code.ORGANIZATION_SUSPENDED] * 2


@pytest.mark.django_db
def test_another_history_is_noticed_and_read_from_its_beginning(directory: Directory) -> None:
    """A restored database, or a replica that had not the last acts, goes on under the same numbers."""
    acme = builders.organization("acme")
    issued = builders.key(acme)
    kept = head()
    head_hash = Feed.objects.get().hash
    for name in ("a", "b", "c"):
        lifecycle.edit_key(COMMAND, issued.key, name=name, now=NOW)
    directory.refresh()
    AuditEvent.objects.filter(number__gt=kept).delete()
    Feed.objects.update(number=kept, hash=head_hash)
    for act in (lifecycle.disable_key, lifecycle.enable_key, lifecycle.revoke_key):
        act(COMMAND, issued.key, now=NOW)  # as many acts as were lost
    directory.refresh()
    assert code(directory, issued.plaintext) is Code.REVOKED
    Feed.objects.update(number=kept, hash=head_hash)
    AuditEvent.objects.filter(number__gt=kept).delete()
    Key.objects.update(revoked_at=None)
    directory.refresh()
    assert code(directory, issued.plaintext) is Code.VALID
    assert Process.objects.get().feed_number == kept


@pytest.mark.django_db
def test_full_memory_makes_room_by_letting_go_of_what_is_dead(
    tmp_path: Path, clock: Clock, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.KEYS_IN_MEMORY = 2
    monkeypatch.setattr(directory_module, "MAX_CLOCK_SKEW", float("inf"))  # the clock is the test's own
    acme = builders.organization("acme")
    for name in ("a", "b"):
        builders.key(acme, name=name, expires_at=NOW + dt.timedelta(days=1))
    epoch = Clock()
    epoch.now = NOW.timestamp()
    directory = Directory(process_id="test", lock_dir=tmp_path, monotonic=clock, clock=epoch)
    directory.refresh()
    assert directory.size == 2
    epoch.now += 86_400
    clock.now += directory_module.RETIRE_SECONDS
    directory.refresh()
    assert directory.size == 0


@pytest.mark.django_db
@pytest.mark.parametrize("leap", [-86_400, -3600, -3, 3, 3600, 86_400])
def test_a_clock_that_is_off_the_databases_answers_nothing(tmp_path: Path, clock: Clock, leap: int) -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    epoch = Clock()
    epoch.now = dt.datetime.now(dt.UTC).timestamp()
    directory = Directory(process_id="test", lock_dir=tmp_path, monotonic=clock, clock=epoch)
    directory.refresh()
    assert directory.clock_agrees
    assert code(directory, issued.plaintext) is Code.VALID
    epoch.now += leap
    directory.refresh()
    assert directory.clock_agrees is False
    assert code(directory, issued.plaintext) is Code.UNAVAILABLE
    assert f"{leap:+}" in directory.explain() or f"{leap - 1:+}" in directory.explain()
    assert "off the database's" in directory.explain()
    epoch.now -= leap
    directory.refresh()
    assert directory.clock_agrees
    assert code(directory, issued.plaintext) is Code.VALID
    clock.now += 10
    assert directory.clock_agrees is None  # nobody has asked lately


@pytest.mark.django_db
def test_a_database_that_answers_late_is_no_skew(tmp_path: Path, clock: Clock) -> None:
    class Late(Clock):
        def __call__(self) -> float:
            self.now += 30  # seconds, between question and answer
            return self.now

    epoch = Late()
    epoch.now = dt.datetime.now(dt.UTC).timestamp() - 45
    directory = Directory(process_id="test", lock_dir=tmp_path, monotonic=clock, clock=epoch)
    directory.refresh()
    assert directory.clock_agrees


@pytest.mark.django_db
def test_a_read_that_takes_long_leaves_memory_believed(directory: Directory, clock: Clock) -> None:
    def late(execute: Callable[..., Any], *asked: Any) -> Any:  # Any: as Django's wrappers are typed
        clock.now += directory_module.HEALTHY_SECONDS + 1
        return execute(*asked)

    issued = builders.key(builders.organization("acme"), now=NOW)
    directory.refresh()
    with connection.execute_wrapper(late):
        directory.refresh()
        assert code(directory, issued.plaintext) is Code.VALID


@pytest.mark.django_db
def test_what_is_closed_stays_closed_whatever_round_was_under_way(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledge = presence.acknowledge

    def closed_meanwhile(process_id: str, number: int) -> bool:
        directory.close()
        return acknowledge(process_id, number)

    monkeypatch.setattr(presence, "acknowledge", closed_meanwhile)
    directory.refresh()
    assert not directory.ready
    assert directory.recall("") is STALE


@pytest.mark.django_db
def test_the_picture_is_loaded_in_a_few_queries(directory: Directory, settings: Settings) -> None:
    acme = builders.organization("acme")
    for n in range(30):
        builders.key(acme, name=str(n), scopes=("a:b", f"a:{n}"), now=NOW)
    with CaptureQueriesContext(connection) as queries:
        directory.refresh()
    assert directory.size == 30
    assert len(queries) < 25


@pytest.mark.django_db(transaction=True)
def test_a_started_directory_loads_acknowledges_and_signs_off(tmp_path: Path) -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme)
    running = Directory(process_id="run", lock_dir=tmp_path)
    running.start()
    try:
        until(lambda: running.ready, 10, why=running.explain)
        assert running.explain() == ""
        assert verify(issued.plaintext, directory=running, now=time.time()).allowed
        late = builders.key(acme)  # a miss, answered by a thread of the directory's own
        assert verify(late.plaintext, directory=running, now=time.time()).allowed
        lifecycle.revoke_key(COMMAND, Key.objects.get(pk=issued.key.pk), now=dt.datetime.now(dt.UTC))
        assert presence.known_everywhere(head(), wait=10) == []
        assert verify(issued.plaintext, directory=running, now=time.time()).code is Code.REVOKED
        assert not presence.lock_is_free(tmp_path / "run.lock")
    finally:
        running.close()
    assert not Process.objects.exists()
    assert not (tmp_path / "run.lock").exists()
    assert running.recall("") is STALE
