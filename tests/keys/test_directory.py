"""How the picture stays fresh, when it may be believed, and who must have heard of a revocation."""

import datetime as dt
import fcntl
import os
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from keys import directory as directory_module
from keys import lifecycle, presence, records, tokens
from keys.directory import STALE, Directory
from keys.models import AuditEvent, Feed, Key, Process, Secret
from keys.records import SecretRecord
from keys.verdicts import Code
from keys.verification import verify
from tests import builders
from tests.waiting import until

COMMAND = lifecycle.command_actor()
NOW = dt.datetime.now(dt.UTC)  # what is kept in memory depends on the real time


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(tmp_path: Path, clock: Clock) -> Directory:
    return Directory(process_id="test", lock_dir=tmp_path, monotonic=clock)


def code(directory: Directory, credential: str) -> Code:
    return verify(credential, directory=directory, now=NOW.timestamp()).code


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


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was looked for by its digest."""
    texts: list[str] = []

    def sha256(content: bytes) -> object:
        texts.append(content.decode())
        return tokens.sha256(content)

    monkeypatch.setattr(directory_module, "sha256", sha256)
    return texts


@pytest.mark.django_db
@pytest.mark.parametrize("hint", ["", "eign"])
def test_only_what_may_be_a_secret_is_digested(directory: Directory, digested: list[str], hint: str) -> None:
    acme = builders.organization("acme")
    directory.refresh()
    assert code(directory, "sk_foreign") is Code.MALFORMED
    assert digested == []
    foreign = tokens.digest("sk_foreign").hex()
    lifecycle.import_key(COMMAND, acme, name="Old", sha256=foreign, hint=hint, expires_at=None, now=NOW)
    directory.refresh()
    assert code(directory, "sk_foreign") is Code.VALID
    assert code(directory, "sk_other") is Code.MALFORMED
    assert digested == ["sk_foreign", "sk_other"]


@pytest.mark.django_db
def test_what_has_the_hint_of_no_secret_needs_no_digest(directory: Directory, digested: list[str]) -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme, now=NOW)
    directory.refresh()
    strangers = [tokens.mint("lk", "live").plaintext for _ in range(5)]
    assert {code(directory, each) for each in strangers} == {Code.UNKNOWN}
    assert digested == []
    assert {code(directory, each) for each in strangers} == {Code.UNKNOWN}  # now that they are remembered
    assert digested == strangers
    assert code(directory, issued.plaintext) is Code.VALID
    brand_new = builders.key(acme, name="New", now=NOW)  # not read yet
    assert [code(directory, brand_new.plaintext) for _ in range(2)] == [Code.VALID] * 2


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["a secret without a hint", "too many hints"])
def test_what_may_have_any_hint_is_digested(
    directory: Directory, digested: list[str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "too many hints":
        monkeypatch.setattr(directory_module, "MOST_HINTS", 0)
    issued = builders.key(builders.organization("acme"), now=NOW)
    if why == "a secret without a hint":
        Secret.objects.update(hint="")
    directory.refresh()
    stranger = tokens.mint("lk", "live").plaintext
    assert code(directory, issued.plaintext) is Code.VALID
    assert code(directory, stranger) is Code.UNKNOWN
    assert digested == [issued.plaintext, stranger]


@pytest.mark.django_db
def test_of_strangers_only_the_last_are_remembered(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "OTHERS", 3)
    directory.refresh()
    strangers = [tokens.mint("lk", "live").plaintext for _ in range(5)]
    assert {code(directory, each) for each in strangers} == {Code.UNKNOWN}
    with CaptureQueriesContext(connection) as queries:
        assert {code(directory, each) for each in strangers[2:]} == {Code.UNKNOWN}
    assert len(queries) == 0
    assert len(directory._strange_hints) == 3
    with CaptureQueriesContext(connection) as queries:
        assert code(directory, strangers[0]) is Code.UNKNOWN
    assert len(queries) == 1


@pytest.mark.django_db
def test_a_miss_asks_no_database_that_was_silent_a_moment_ago(directory: Directory, clock: Clock) -> None:
    directory.refresh()
    issued = builders.key(builders.organization("acme"), now=NOW)
    clock.now += directory_module.HEALTHY_SECONDS + 0.1
    with CaptureQueriesContext(connection) as queries:
        assert code(directory, issued.plaintext) is Code.UNAVAILABLE
    assert len(queries) == 0


@pytest.mark.django_db
def test_a_flood_of_well_formed_unknown_keys_costs_at_most_the_budget(directory: Directory) -> None:
    directory.refresh()
    budget = directory_module.ASKS_WHEN_COMPLETE
    flood = [tokens.mint("lk", "live").plaintext for _ in range(budget * 3)]
    with CaptureQueriesContext(connection) as queries:
        codes = [code(directory, credential) for credential in flood]
    assert len(queries) == budget
    assert codes.count(Code.UNKNOWN) == budget
    assert codes.count(Code.UNAVAILABLE) == len(flood) - budget
    assert code(directory, flood[0]) is Code.UNKNOWN  # memory knows it, budget or not


def asked_about_strangers(directory: Directory, times: int) -> int:
    """How many of so many unknown keys the database was asked about."""
    with CaptureQueriesContext(connection) as queries:
        for _ in range(times):
            code(directory, tokens.mint("lk", "live").plaintext)
    return len(queries)


@pytest.mark.django_db
@pytest.mark.parametrize("complete", [True, False])
def test_a_spent_budget_is_earned_back_one_question_at_a_time(
    complete: bool, directory: Directory, clock: Clock, settings: Settings
) -> None:
    first, a_second = directory_module.ASKS_WHEN_COMPLETE, directory_module.ASKS_IN_VAIN
    if not complete:
        settings.KEYS_IN_MEMORY = 0
        first = a_second = directory_module.ASKS_PER_SECOND
    directory.refresh()
    assert asked_about_strangers(directory, 200) == first
    for _ in range(5):
        clock.now += 1.001 / a_second
        directory.refresh()
        assert asked_about_strangers(directory, 3) == 1
    clock.now += 4.001 / a_second
    directory.refresh()
    assert asked_about_strangers(directory, 30) == 4
    clock.now += 3600
    directory.refresh()
    assert asked_about_strangers(directory, 200) == first  # and no more, however long nobody asked


@pytest.mark.django_db
def test_a_question_that_found_something_ends_a_flood(directory: Directory, clock: Clock) -> None:
    directory.refresh()
    assert asked_about_strangers(directory, 200) == directory_module.ASKS_WHEN_COMPLETE
    issued = builders.key(builders.organization("acme"), now=NOW)
    assert code(directory, issued.plaintext) is Code.UNAVAILABLE
    clock.now += 1.001 / directory_module.ASKS_IN_VAIN
    assert code(directory, issued.plaintext) is Code.VALID
    clock.now += 0.501  # a second's questions are ASKS_WHEN_COMPLETE again
    assert asked_about_strangers(directory, 30) == directory_module.ASKS_WHEN_COMPLETE // 2


@pytest.mark.django_db
def test_beyond_its_size_the_rest_is_asked_for(directory: Directory, settings: Settings) -> None:
    settings.KEYS_IN_MEMORY = 3
    acme = builders.organization("acme")
    keys = [builders.key(acme, name=str(n), now=NOW) for n in range(6)]
    directory.refresh()
    assert directory.size == 3
    assert [code(directory, issued.plaintext) for issued in keys] == [Code.VALID] * 6
    lifecycle.revoke_key(COMMAND, keys[5].key, now=NOW)
    directory.refresh()
    assert code(directory, keys[5].plaintext) is Code.REVOKED


@pytest.mark.django_db
def test_what_was_read_before_a_revocation_is_not_kept_after_it(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race between a miss's query and the feed: the feed wins."""
    directory.refresh()
    issued = builders.key(builders.organization("acme"), now=NOW)
    read_keys = records.read_keys

    def revoked_right_after_the_read(*arguments: object) -> object:
        monkeypatch.setattr(directory_module, "read_keys", read_keys)
        found = read_keys(*arguments)  # type: ignore[arg-type]  # passed through
        lifecycle.revoke_key(COMMAND, issued.key, now=NOW)
        directory.refresh()
        return found

    monkeypatch.setattr(directory_module, "read_keys", revoked_right_after_the_read)
    code(directory, issued.plaintext)  # began before the revocation: either answer is right
    assert code(directory, issued.plaintext) is Code.REVOKED


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


# --- has everyone heard? --------------------------------------------------------------------------


def head() -> int:
    return Feed.objects.get().number


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


@pytest.mark.django_db
def test_a_flood_takes_no_lock_while_enough_calls_wait_for_an_answer(directory: Directory) -> None:
    directory.refresh()
    unknown = tokens.mint("lk", "live").plaintext
    directory._asking = directory_module.ASKS_AT_ONCE
    with directory._mutex:  # whoever wanted it would wait for ever
        assert code(directory, unknown) is Code.UNAVAILABLE
    directory._asking = 0
    assert code(directory, unknown) is Code.UNKNOWN


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
