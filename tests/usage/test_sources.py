"""Where secrets are used: every accepted call in one source, and a bounded number of them, none too old."""

import datetime as dt
from collections import Counter

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import Settings

from keys import lifecycle
from keys.models import Key, Organization, Secret
from keys.verdicts import Code
from tests import builders
from tests.usage.journals import BEGIN, NOW, SECOND, Clock
from usage import retention, sources
from usage.drain import Drain, drain_once
from usage.journal import Event, Journal
from usage.models import Source
from usage.models.sources import OTHER
from usage.records import CALL, Record
from usage.rollups import Sums

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)


def call(
    journal: Journal, address: str, agent: str = "curl", *, secret: int = 20, code: Code = Code.VALID
) -> None:
    journal.append(Event(1, 2, secret, code.number, 1, ("requests", "", address, agent)))


def listed(secret: int = 20) -> dict[tuple[str, str], int]:
    """(address, user agent) → calls."""
    rows = Source.objects.filter(secret=secret)
    return {(row.address, row.user_agent): row.calls for row in rows}


def test_accepted_calls_are_listed_by_address_and_user_agent(journal: Journal, clock: Clock) -> None:
    call(journal, "192.0.2.1")
    clock.now += SECOND
    call(journal, "192.0.2.1")
    call(journal, "192.0.2.1", "python")
    call(journal, "2001:db8::1")
    call(journal, "192.0.2.9", code=Code.RATE_LIMITED)
    drain_once(NOW)
    assert listed() == {("192.0.2.1", "curl"): 2, ("192.0.2.1", "python"): 1, ("2001:db8::1", "curl"): 1}
    first = Source.objects.get(address="192.0.2.1", user_agent="curl")
    assert (first.first_seen, first.last_seen) == (BEGIN, BEGIN + dt.timedelta(seconds=1))


def test_drained_twice_or_in_pieces_is_counted_once(journal: Journal) -> None:
    for n in range(30):
        call(journal, f"192.0.2.{n % 3}")
    drain = Drain(batch=7)
    drain.once(NOW)
    Drain().once(NOW)
    assert listed() == {(f"192.0.2.{n}", "curl"): 10 for n in range(3)}


def test_with_less_precision_only_networks_are_kept(journal: Journal, settings: Settings) -> None:
    settings.SOURCES_PRECISION = "network"
    for address in ("192.0.2.1", "192.0.2.254", "2001:db8:1:2::3", "2001:db8:1::9", ""):
        call(journal, address)
    drain_once(NOW)
    assert listed() == {("192.0.2.0/24", "curl"): 2, ("2001:db8:1::/48", "curl"): 2, ("", "curl"): 1}


def test_the_sources_seen_last_are_kept_apart_and_the_others_summed(journal: Journal, clock: Clock) -> None:
    for n in range(sources.MOST + 3):
        clock.now += SECOND
        call(journal, f"192.0.2.{n}")
        call(journal, f"192.0.2.{n}", secret=30)
        if n % 20 == 0:
            drain_once(NOW)
    drain_once(NOW)
    clock.now += SECOND
    call(journal, "192.0.2.0")  # gone, and back again
    drain_once(NOW)
    of = listed()
    assert len(of) == sources.MOST + 1
    assert of[OTHER, ""] == 4
    assert ("192.0.2.3", "curl") not in of
    assert of["192.0.2.0", "curl"] == 1
    assert listed(30)[OTHER, ""] == 3
    other = Source.objects.get(secret=20, address=OTHER)
    assert other.is_other
    assert other.first_seen == BEGIN + dt.timedelta(seconds=1)


def record(secret: int, address: str, at: int) -> Record:
    return Record(
        CALL, 0, at, b"", 0, organization=1, key=2, secret=secret, cost=1, calls=1, code=Code.VALID.number,
        meter="requests", address=address, user_agent="curl",
    )  # fmt: skip


@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), min_size=1, max_size=25), max_size=6
    )
)
@hypothesis_settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_no_call_is_lost_and_the_bound_holds_however_calls_are_batched(
    batches: list[list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST", 4)
    Source.objects.all().delete()
    at, made, last = 1_790_812_800_000_000, Counter[int](), {}
    for batch in batches:
        sums = Sums()
        for secret, n in batch:
            at += 1
            made[secret] += 1
            last[secret, f"192.0.2.{n}"] = at
            sums.add(record(secret, f"192.0.2.{n}", at))
        with transaction.atomic():
            sources.store(sums.sources)
    for secret, total in made.items():
        rows = listed(secret)
        assert sum(rows.values()) == total
        mine = sorted((at, address) for (of, address), at in last.items() if of == secret)
        assert {address for address, _ in rows if address != OTHER} == {address for _, address in mine[-4:]}


def test_sources_that_were_not_seen_for_long_are_forgotten(journal: Journal, clock: Clock) -> None:
    call(journal, "192.0.2.1")
    clock.now += 10 * 86_400 * SECOND
    call(journal, "192.0.2.2")
    drain_once(NOW + 11 * DAY)
    list(retention.forget(BEGIN + 95 * DAY))
    assert listed() == {("192.0.2.2", "curl"): 1}


def test_junk_from_clients_is_listed_as_text(journal: Journal) -> None:
    call(journal, "192.0.2.1", "\0\ud800" + "x" * 10_000)
    drain_once(NOW)
    [(_, agent)] = listed()
    assert agent.startswith("\ufffd?x")
    assert len(agent) == 256


# --- read -----------------------------------------------------------------------------------------


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", now=BEGIN - 30 * DAY)


def use(secret: Secret, address: str, at: dt.datetime, calls: int = 1) -> None:
    Source.objects.create(
        secret=secret, address=address, user_agent="curl", calls=calls, first_seen=at, last_seen=at
    )


def test_a_keys_sources_are_those_of_its_secrets_and_of_no_other_key(acme: Organization) -> None:
    first = builders.key(acme, now=BEGIN)
    other = builders.key(acme, now=BEGIN)
    second = lifecycle.rotate_key(lifecycle.command_actor(), first.key, overlap=DAY, now=BEGIN + DAY)
    use(first.secret, "192.0.2.1", BEGIN)
    use(second.secret, "192.0.2.2", BEGIN + DAY)
    use(other.secret, "192.0.2.3", BEGIN)
    assert [row.address for row in sources.of_key(first.key)] == ["192.0.2.2", "192.0.2.1"]
    assert [row.address for row in sources.of_secret(first.secret)] == ["192.0.2.1"]


def late_calls(journal: Journal, key: Key, secret: Secret, code: Code = Code.REVOKED) -> None:
    for n in range(25):  # more than have rows of their own
        labels = "requests", "orders", f"192.0.2.{n}", "curl"
        journal.append(Event(key.organization_id, key.pk, secret.pk, code.number, 1, labels))
    drain_once(NOW)


def test_calls_with_a_secret_after_its_end_are_found(journal: Journal, acme: Organization) -> None:
    issued = builders.key(acme, now=BEGIN - 9 * DAY)
    lifecycle.rotate_key(lifecycle.command_actor(), issued.key, overlap=DAY, now=BEGIN - 5 * DAY)
    late_calls(journal, issued.key, issued.secret)
    [late] = sources.used_after_end(issued.key, BEGIN - DAY)
    assert (late.secret, late.calls, late.last) == (issued.secret, 25, BEGIN)
    assert late.address.startswith("192.0.2.")
    assert sources.used_after_end(issued.key, BEGIN + DAY) == []


def test_calls_with_the_secret_of_a_revoked_key_are_no_use_after_its_end(
    journal: Journal, acme: Organization
) -> None:
    issued = builders.key(acme, now=BEGIN - 9 * DAY)
    lifecycle.revoke_key(lifecycle.command_actor(), issued.key, now=BEGIN - DAY)
    late_calls(journal, issued.key, issued.secret)
    assert sources.used_after_end(issued.key, BEGIN - DAY) == []
