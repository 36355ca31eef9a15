"""Hard quotas: never above the limit and all of it spent, by however many processes."""

import contextlib
import datetime as dt
import itertools
import math
from collections.abc import Callable

import pytest
from django.db import DatabaseError, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keys import lifecycle
from keys import quotas as texts
from keys.lifecycle import Issued
from keys.records import KeyRecord, OrganizationRecord
from keys.verdicts import Code
from tests.builders import key, organization
from usage import counting, ledger
from usage.ledger import Held, Place
from usage.models import QuotaUse
from usage.quotas import Quotas
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
            sums.add(
                Record(
                    *(CALL, 0, int(NOW.timestamp()) * 1_000_000, b"", 0, self.key.organization.id),
                    *(self.key.id, 1, cost, 1, VALID.number, self.meter, "", "", "", charged),
                )
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
    from usage.models import Rollup

    return sum(row.quantity for row in Rollup.objects.filter(meter=meter))
