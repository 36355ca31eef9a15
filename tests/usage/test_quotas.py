"""Hard quotas: never above the limit and all of it spent, by however many processes."""

import collections
import contextlib
import datetime as dt
import itertools
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from keys import lifecycle, presence
from keys import quotas as texts
from keys.directory import Directory
from keys.lifecycle import Issued
from keys.records import KeyRecord, OrganizationRecord
from keys.verdicts import Code
from portal import server
from tests.builders import key, organization
from usage import counting, journal, ledger, metering
from usage.drain import Drain
from usage.ledger import Held, Place
from usage.models import QuotaLease, QuotaUse, Rollup, Spool
from usage.quotas import LOST_SECONDS, WAITERS, Quotas
from usage.records import CALL, Record
from usage.rollups import Sums

pytestmark = pytest.mark.django_db

ACTOR = lifecycle.command_actor()
NOW = dt.datetime(2026, 10, 1, 12, tzinfo=dt.UTC)
MONTH_END = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
VALID, EXCEEDED, UNAVAILABLE = Code.VALID, Code.QUOTA_EXCEEDED, Code.UNAVAILABLE

numbers = itertools.count(1)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issued() -> Issued:
    return key(organization("acme"))


def record(issued: Issued, *own: str, shared: tuple[str, ...] = ()) -> KeyRecord:
    """The key as a process knows it, with these quotas of its own and of its organization."""
    owner = issued.key.organization
    acme = OrganizationRecord(
        owner.pk, owner.slug, owner.name, False, (), tuple(texts.parse(text) for text in shared)
    )
    return KeyRecord(
        *(issued.key.pk, issued.key.public_id, "Backend", acme, issued.key.environment, frozenset(), ""),
        *((), math.inf, False, False, (), {}, tuple(texts.parse(text) for text in own)),
    )


class Forgetful(Quotas):
    """Of what the ledger wrote it does not hear the next answer, once it was told to lose it."""

    loses = False

    def _renew(self, places: list[Place], decide: Callable[[Place, Held], int]) -> None:
        super()._renew(places, decide)
        if self.loses:
            self.loses = False
            raise DatabaseError("the answer is lost")


class Process:
    """One that spends: its quotas, and the calls of its journal that are not drained yet."""

    def __init__(self, of: KeyRecord, meter: str, clock: Clock) -> None:
        self.key, self.meter, self.clock = of, meter, clock
        self.spool = f"spool-{next(numbers)}"
        self.quotas = Forgetful(self.spool, monotonic=clock, clock=lambda: NOW.timestamp() + clock.now)
        self.journal: list[tuple[int, int]] = []  # cost, charged

    def call(self, cost: int = 1, now: dt.datetime = NOW) -> Code:
        balance = self.quotas.spend(self.key, self.meter, cost, now.timestamp())
        charged = 0 if balance is None else balance.charged
        code = VALID if balance is None else balance.code
        if code is VALID:
            self.journal.append((cost, charged))
        return code

    def drain(self, most: int | None = None, *, ends: bool = False) -> None:
        """Count the journal's first calls, as the drain does: in one transaction."""
        some, self.journal = self.journal[:most], self.journal[most:] if most is not None else []
        sums = Sums()
        for cost, charged in some:
            at, owner = int(NOW.timestamp()) * 1_000_000, self.key.organization.id
            labels = self.meter, "", "", ""
            sums.add(
                Record(CALL, 0, at, b"", 0, owner, self.key.id, 1, cost, 1, VALID.number, *labels, charged)
            )
        with transaction.atomic():
            counting.share()
            sums.store(self.spool)
            if ends:
                ledger.settle_spool(self.spool)

    def rest(self) -> None:
        """A second without a call, in which what is idle is given back."""
        for _ in range(2):
            self.clock.now += 0.5
            self.quotas.tick()
            with contextlib.suppress(DatabaseError):
                self.quotas.look()


steps = st.lists(
    st.tuples(
        st.sampled_from(["call", "call", "call", "drain", "rest", "tick", "kill", "lose"]),
        st.integers(0, 1),
        st.integers(1, 9),
    ),
    max_size=40,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_two_processes_never_exceed_a_quota_and_can_spend_all_of_it(
    issued: Issued, steps: list[tuple[str, int, int]]
) -> None:
    meter, clock, limit = f"meter_{next(numbers)}", Clock(), 40
    mine = record(issued, f"{limit} {meter}/month")
    processes = [Process(mine, meter, clock) for _ in range(2)]
    dead: list[Process] = []
    allowed = 0
    for act, number, size in steps:
        process = processes[number]
        clock.now += 0.1
        match act:
            case "call":
                code = process.call(size)
                assert code in (VALID, EXCEEDED, UNAVAILABLE)
                allowed += size if code is VALID else 0
            case "drain":
                process.drain(size)
            case "rest":
                process.rest()
            case "tick":
                process.quotas.tick()
            case "lose":
                process.quotas.loses = True
            case "kill":
                dead.append(process)
                processes[number] = Process(mine, meter, clock)
        assert allowed <= limit
        for use in QuotaUse.objects.filter(meter=meter):
            outstanding = sum(lease.granted - lease.drained for lease in use.leases.all())
            assert all(lease.granted >= lease.drained for lease in use.leases.all())
            assert use.spent + outstanding <= limit
    # All of it can be spent, by one of them, once the dead are drained and the other rests.
    for process in dead:
        process.drain(ends=True)
    first, second = processes
    for process in processes * 2:  # an answer may still get lost
        process.rest()
    for _ in range(limit):
        clock.now += 0.3
        allowed += first.call() is VALID
    assert allowed == limit
    first.drain()
    second.drain()
    assert _counted(meter) == QuotaUse.objects.get(meter=meter).spent == limit


def _counted(meter: str) -> int:
    return sum(row.quantity for row in Rollup.objects.filter(meter=meter))


# --- what a call takes ------------------------------------------------------------------------------


def process(of: KeyRecord, clock: Clock | None = None) -> Process:
    return Process(of, "requests", clock or Clock())


def test_cost_is_taken_whole_or_not_at_all(issued: Issued) -> None:
    one = process(record(issued, "10/month"))
    assert [one.call(cost) for cost in (7, 4, 3, 1)] == [VALID, EXCEEDED, VALID, EXCEEDED]


def test_a_call_takes_from_every_quota_or_from_none(issued: Issued) -> None:
    mine = record(issued, "5/day", shared=("3/month",))
    one = process(mine)
    assert [one.call(2), one.call(2), one.call(1)] == [VALID, EXCEEDED, VALID]
    one.drain()
    assert {use.unit: use.spent for use in QuotaUse.objects.all()} == {"day": 3, "month": 3}
    assert {lease.use.unit: lease.drained for lease in QuotaLease.objects.select_related("use")} == {
        "day": 3,
        "month": 3,
    }


def test_keys_of_an_organization_share_its_quota() -> None:
    acme = organization("acme")
    clock = Clock()
    first, second = (
        Process(record(key(acme, name=name), shared=("5/month",)), "requests", clock) for name in "ab"
    )
    codes = []
    for one in (first, second, first, second, first, second, first):
        clock.now += 0.3
        codes.append(one.call())
    assert codes == [VALID] * 5 + [EXCEEDED] * 2


def test_a_quota_of_another_meter_is_another(issued: Issued) -> None:
    mine = record(issued, "1/month", "2 input_tokens/month")
    clock = Clock()
    requests, tokens = Process(mine, "requests", clock), Process(mine, "input_tokens", clock)
    assert [requests.call(), requests.call()] == [VALID, EXCEEDED]
    assert [tokens.call(2), tokens.call(1)] == [VALID, EXCEEDED]


def test_test_keys_and_free_calls_spend_nothing(issued: Issued) -> None:
    test = key(issued.key.organization, name="Test", environment="test")
    tester = process(record(test, "1/month", shared=("3/month",)))
    live = process(record(issued, shared=("3/month",)))
    assert [tester.call() for _ in range(5)] == [VALID] * 5
    tester.drain(2)
    assert [live.call(0), live.call()] == [VALID, VALID]
    tester.drain()
    assert [live.call(2), live.call()] == [VALID, EXCEEDED]
    live.drain()
    assert QuotaUse.objects.get().spent == 3


def test_a_quota_that_begins_in_the_month_counts_what_was_used_before(issued: Issued) -> None:
    before = process(record(issued))
    assert [before.call() for _ in range(4)] == [VALID] * 4
    before.drain(3)
    mine = process(record(issued, "5/month"))
    assert [mine.call(), mine.call(), mine.call()] == [VALID, VALID, EXCEEDED]
    before.drain()  # decided before the quota was: it counts too, and no lease shrinks by it
    mine.drain()
    assert QuotaUse.objects.get().spent == 6
    assert [(lease.granted, lease.drained) for lease in QuotaLease.objects.all()] == [(2, 2)]


def test_a_new_month_begins_anew(issued: Issued) -> None:
    one = process(record(issued, "2/month"))
    assert [one.call(), one.call(), one.call()] == [VALID, VALID, EXCEEDED]
    assert one.call(now=MONTH_END - dt.timedelta(seconds=1)) is EXCEEDED
    assert [one.call(now=MONTH_END) for _ in range(3)] == [VALID, VALID, EXCEEDED]
    assert one.call(now=NOW) is EXCEEDED  # a clock that went back stays in the later month


def test_a_refusal_says_which_quota_and_when_it_begins_anew(issued: Issued) -> None:
    one = process(record(issued, "1000/month"))
    one.call(1000)
    balance = one.quotas.spend(one.key, "requests", 1, NOW.timestamp())
    assert balance is not None
    assert balance.sentence == (
        "The quota of 1,000 requests a month of this key is used up; "
        "it begins anew on 1 November 2026 at 00:00 UTC."
    )
    assert (balance.name, balance.remaining) == ("key-month", 0)
    assert balance.reset == balance.retry == (MONTH_END - NOW).total_seconds()


def test_while_others_hold_some_of_it_a_refusal_says_to_come_again_soon(issued: Issued) -> None:
    mine, clock = record(issued, "10/month"), Clock()
    first, second = process(mine, clock), process(mine, clock)
    first.call(9)
    second.call()
    balance = second.quotas.spend(mine, "requests", 1, NOW.timestamp())
    assert balance is not None
    assert (balance.code, balance.retry) == (EXCEEDED, 1)


def test_remaining_is_never_negative_and_adds_up(issued: Issued) -> None:
    one = process(record(issued, "3/month"))
    left = []
    for _ in range(5):
        balance = one.quotas.spend(one.key, "requests", 1, NOW.timestamp())
        assert balance is not None
        left.append(balance.remaining)
    assert left == [2, 1, 0, 0, 0]


def test_what_is_given_back_may_be_spent(issued: Issued) -> None:
    one = process(record(issued, "2/month"))
    balance = one.quotas.spend(one.key, "requests", 2, NOW.timestamp())
    assert balance is not None
    one.quotas.give_back(one.key, 2, balance)
    assert [one.call(), one.call(), one.call()] == [VALID, VALID, EXCEEDED]


def test_nothing_is_given_back_into_another_month(issued: Issued) -> None:
    one = process(record(issued, "2/month"))
    balance = one.quotas.spend(one.key, "requests", 2, NOW.timestamp())
    assert balance is not None
    assert one.call(now=MONTH_END) is VALID
    one.quotas.give_back(one.key, 2, balance)
    assert [one.call(now=MONTH_END) for _ in range(2)] == [VALID, EXCEEDED]


# --- leases -----------------------------------------------------------------------------------------


def outstanding() -> int:
    return sum(lease.granted - lease.drained for lease in QuotaLease.objects.all())


def test_idle_grants_are_back_within_a_second(issued: Issued) -> None:
    one = process(record(issued, "1000/month"))
    for _ in range(20):
        one.call()
    assert outstanding() > 20
    one.rest()
    assert outstanding() == 20


def test_what_a_process_gave_up_while_it_stood_still_is_back_in_the_ledger(issued: Issued) -> None:
    clock, mine = Clock(), record(issued, "10/month")
    frozen, other = process(mine, clock), process(mine, clock)
    for _ in range(2):
        assert frozen.call() is VALID
    assert QuotaLease.objects.get().granted > 2
    clock.now += LOST_SECONDS + 1
    frozen.rest()

    assert QuotaLease.objects.get().granted == 2
    assert [other.call() for _ in range(9)] == [VALID] * 8 + [EXCEEDED]


def test_steady_calls_ask_ahead_and_seldom(issued: Issued) -> None:
    clock = Clock()
    one = process(record(issued, "100000/month"), clock)
    for _ in range(400):
        clock.now += 0.005
        one.call()
    looks = one.quotas._looks
    for number in range(400):
        clock.now += 0.005
        if not number % 100:
            one.quotas.tick()
        assert one.quotas._accounts[issued.key.organization_id, issued.key.pk, "requests", "month"].left > 0
        one.call()
        if one.quotas._asked:
            one.quotas.look()  # the thread's part
    assert one.quotas._looks - looks < 20


def test_blocks_shrink_near_the_cap(issued: Issued) -> None:
    mine, clock = record(issued, "40/month"), Clock()
    first, second = process(mine, clock), process(mine, clock)
    for _ in range(30):
        first.call()
    one = first.quotas._accounts[issued.key.organization_id, issued.key.pk, "requests", "month"]
    assert 0 <= one.left <= 5
    assert second.call() is VALID


def test_a_flood_at_the_cap_costs_a_few_queries(issued: Issued) -> None:
    clock = Clock()
    one = process(record(issued, "1/month"), clock)
    one.call()
    looks = one.quotas._looks
    for _ in range(1000):
        clock.now += 0.002
        assert one.call() is EXCEEDED
    assert one.quotas._looks - looks <= 3


def test_everything_is_given_back_at_the_end(issued: Issued) -> None:
    one = process(record(issued, "1000/month"))
    for _ in range(20):
        one.call()
    one.quotas.give_everything_back()
    assert outstanding() == 20
    assert one.call() is UNAVAILABLE


def test_a_lower_limit_is_kept_at_once_and_unspent_leases_go_back(issued: Issued) -> None:
    one = process(record(issued, "1000/month"))
    for _ in range(20):
        one.call()
    one.key = record(issued, "15/month")
    assert one.call() is EXCEEDED
    assert outstanding() == 20
    one.key = record(issued, "21/month")
    assert [one.call(), one.call()] == [VALID, EXCEEDED]


def test_a_dead_process_lease_is_what_its_journal_says(issued: Issued) -> None:
    mine, clock = record(issued, "100/month"), Clock()
    dead, other = process(mine, clock), process(mine, clock)
    for _ in range(30):
        dead.call()
    dead.drain(ends=True)
    clock.now += 1
    assert [other.call(70), other.call()] == [VALID, EXCEEDED]


def test_a_lease_without_a_journal_ends_once_its_process_is_off_the_list(issued: Issued) -> None:
    lost = process(record(issued, "10/month"))
    lost.call(4)
    taken = dt.datetime.fromtimestamp(lost.quotas._clock(), tz=dt.UTC)
    ledger.settle_the_dead(taken + ledger.UNKNOWN_FOR)
    assert outstanding() == 4
    Spool.objects.create(id=lost.spool, host="host", pid=1, started_at=taken)
    ledger.settle_the_dead(taken + 2 * ledger.UNKNOWN_FOR)
    assert outstanding() == 4  # its journal is still to be drained
    Spool.objects.all().delete()
    ledger.settle_the_dead(taken + 2 * ledger.UNKNOWN_FOR)
    assert outstanding() == 0


def test_a_lease_ends_at_once_where_the_journal_was_finished_while_its_process_held_its_lock(
    issued: Issued,
) -> None:
    killed = process(record(issued, "10/month"))
    killed.call(4)
    taken = dt.datetime.fromtimestamp(killed.quotas._clock(), tz=dt.UTC)
    Spool.objects.create(id=killed.spool, host="host", pid=1, started_at=taken, finished_at=taken)
    presence.join(killed.spool, "host", Path("nowhere.lock"))
    ledger.settle_the_dead(taken)
    assert outstanding() == 4  # it may go on in another journal
    presence.leave(killed.spool)
    ledger.settle_the_dead(taken)
    assert outstanding() == 0


def test_old_periods_are_forgotten(issued: Issued) -> None:
    one = process(record(issued, "10/month", "10/day"))
    one.call()
    ledger.forget_the_past(NOW + dt.timedelta(days=90))
    assert [use.unit for use in QuotaUse.objects.all()] == ["month"]
    ledger.forget_the_past(NOW + dt.timedelta(days=500))
    assert not QuotaUse.objects.exists()


def test_what_is_used_elsewhere_is_added_and_taken_off(issued: Issued) -> None:
    one = process(record(issued, "10/month", shared=("10/month",)))
    one.call()
    owner, pk = issued.key.organization_id, issued.key.pk
    ledger.add_spent([(owner, pk, "requests", NOW, 8), (owner, pk, "other", NOW, 5)])
    one.clock.now += 1
    assert [one.call(), one.call()] == [VALID, EXCEEDED]
    ledger.add_spent([(owner, pk, "requests", NOW, -2)])
    one.clock.now += 1
    assert [one.call(), one.call(), one.call()] == [VALID, VALID, EXCEEDED]


def test_pages_read_how_quotas_stand_in_two_queries(
    issued: Issued, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    one = process(record(issued, "10/month"))
    one.call(3)
    one.drain()
    one.call(2)
    one.rest()
    own, shared = (texts.parse("10/month"), texts.parse("5/day")), (texts.parse("20/month"),)
    with django_assert_num_queries(2):
        found = ledger.used(issued.key.organization_id, issued.key.pk, own, shared, NOW)
    assert [(used.owner, used.used, used.remaining) for used in found] == [
        ("key", 3, 5),
        ("key", 3, 2),
        ("organization", 3, 17),
    ]
    assert found[0].end == MONTH_END


# --- in the gateway's decision -----------------------------------------------------------------------


@pytest.fixture
def directory(journal_dir: Path) -> Directory:
    """This process's keys, read when the test says so; who asks about quotas waits for the answer itself."""
    found = Directory(process_id="test", lock_dir=journal_dir)
    metering.start(found)
    return found


def authorize(issued: Issued, now: float | None = None) -> metering.Decision:
    return metering.authorize(issued.plaintext, now=now or time.time())


def test_exactly_the_limit_is_allowed_and_drained_as_charged(directory: Directory) -> None:
    issued = key(organization("acme"), quotas=["5/month"])
    directory.refresh()
    decisions = [authorize(issued) for _ in range(7)]
    assert [decision.code for decision in decisions] == [VALID] * 5 + [EXCEEDED] * 2
    Drain().once(timezone.now())
    assert QuotaUse.objects.get().spent == 5
    assert [(lease.granted, lease.drained) for lease in QuotaLease.objects.all()] == [(5, 5)]


def test_neither_quotas_nor_rates_are_spent_by_what_the_other_refuses(directory: Directory) -> None:
    acme = organization("acme")
    slow = key(acme, name="slow", rates=["1/day"], quotas=["2/month"])
    small = key(acme, name="small", rates=["2/day"], quotas=["1/month"])
    directory.refresh()
    assert [authorize(slow).code for _ in range(3)] == [VALID, Code.RATE_LIMITED, Code.RATE_LIMITED]
    lifecycle.edit_key(ACTOR, slow.key, rates=[], now=timezone.now())
    assert [authorize(small).code for _ in range(2)] == [VALID, EXCEEDED]
    lifecycle.edit_key(ACTOR, small.key, quotas=[], now=timezone.now())
    directory.refresh()
    assert [authorize(slow).code for _ in range(2)] == [VALID, EXCEEDED]
    assert [authorize(small).code for _ in range(2)] == [VALID, Code.RATE_LIMITED]


def test_a_call_at_the_end_of_a_month_is_of_the_month_of_its_record(directory: Directory) -> None:
    issued = key(organization("acme"), quotas=["1/day", "1/month"])
    directory.refresh()
    decision = authorize(issued, now=time.time() - 86_400)
    assert decision.code is VALID
    Drain().once(timezone.now())
    today, _ = texts.period("day", timezone.now())
    assert QuotaUse.objects.get(unit="day", start=today).spent == 1
    assert authorize(issued).code is EXCEEDED


def test_a_call_that_cannot_be_recorded_takes_nothing(directory: Directory, journal_dir: Path) -> None:
    issued = key(organization("acme"), quotas=["2/month"])
    directory.refresh()
    journal_dir.rmdir()
    journal_dir.touch()
    assert [authorize(issued).code for _ in range(3)] == [UNAVAILABLE] * 3
    journal_dir.unlink()
    journal_dir.mkdir()
    assert [authorize(issued).code for _ in range(3)] == [VALID, VALID, EXCEEDED]


def test_a_policys_quota_changes_within_a_look_at_the_feed(directory: Directory) -> None:
    now = timezone.now()
    policy = lifecycle.create_policy(ACTOR, slug="small", name="Small", quotas=["2/month"], now=now)
    issued = key(organization("acme", policy=policy))
    directory.refresh()
    assert [authorize(issued).code for _ in range(3)] == [VALID, VALID, EXCEEDED]
    for quotas, code in ((["3/month"], VALID), (["1/month"], EXCEEDED), ([], VALID)):
        lifecycle.edit_policy(ACTOR, policy, quotas=quotas, now=timezone.now())
        directory.refresh()
        assert authorize(issued).code is code


@pytest.mark.django_db(transaction=True)
def test_with_the_database_away_a_lease_is_spent_and_then_it_is_503(directory: Directory) -> None:
    issued = key(organization("acme"), quotas=["100/month"])
    directory.refresh()
    for _ in range(10):
        assert authorize(issued).code is VALID
    _rename("usage_quotause", "usage_quotause_away")
    try:
        codes = [authorize(issued).code for _ in range(40)]
        assert set(codes) == {VALID, UNAVAILABLE}
        assert codes[-1] is UNAVAILABLE
        assert metering.readiness().warnings == [
            "quotas cannot be asked about; calls beyond what this process holds of one are refused"
        ]
    finally:
        _rename("usage_quotause_away", "usage_quotause")
    while authorize(issued).code is VALID:
        pass
    Drain().once(timezone.now())
    assert QuotaUse.objects.get().spent == 100


def _rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


def test_a_journal_that_is_left_by_a_living_process_settles_nothing(
    directory: Directory, journal_dir: Path
) -> None:
    issued = key(organization("acme"), quotas=["100/month"])
    directory.refresh()
    authorize(issued)
    own = journal.current()
    lock = journal_dir / f"{own.spool}.lock"
    held = presence.take_lock(lock)
    presence.join(own.spool, "host", lock)
    _leave(own)  # as when its disk was full
    Drain().once(timezone.now())
    assert Spool.objects.get(pk=own.spool).finished_at is not None
    assert QuotaLease.objects.exists()
    authorize(issued)
    _leave(own)
    os.close(held)
    Drain().once(timezone.now())
    assert not QuotaLease.objects.exists()
    assert QuotaUse.objects.get().spent == 2


def _leave(own: journal.Journal) -> None:
    """Let go of the journal's file as a process that ends does."""
    with own._lock:
        assert own._segment is not None
        own._segment.let_go()
        own._segment = None


# --- with a thread of its own -------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_many_threads_at_once_spend_exactly_the_limit(issued: Issued) -> None:
    mine = record(issued, "100/month")
    quotas = Quotas("threaded")
    quotas.start()
    together = threading.Barrier(8)
    codes: collections.Counter[Code] = collections.Counter()
    lock = threading.Lock()

    def call() -> None:
        together.wait(10)
        for _ in range(40):
            balance = quotas.spend(mine, "requests", 1, NOW.timestamp())
            assert balance is not None
            with lock:
                codes[balance.code] += 1

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    quotas.close()
    assert codes[VALID] == 100
    assert codes[VALID] + codes[EXCEEDED] == 320
    assert [(lease.granted, lease.drained) for lease in QuotaLease.objects.all()] == [(100, 0)]


def test_half_of_the_servers_threads_are_never_kept_waiting() -> None:
    assert 2 * WAITERS <= server.THREADS
