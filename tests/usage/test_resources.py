"""Resources are bounded: exactly, first come first kept, whoever drains and however often."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from django.db import transaction
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries, Settings

from keys.verdicts import Code
from tests.builders import NOW, organization, version
from tests.threads import at_once
from usage import resources
from usage.drain import Drain
from usage.journal import Event, Journal
from usage.models import PlanVersion, Price, Resource, ResourceBound, ResponseRollup, Rollup
from usage.records import CALL, RESPONSE, Record
from usage.resources import OTHER, bounded
from usage.rollups import Sums

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _three_are_kept(settings: Settings) -> None:
    settings.USAGE_RESOURCES = 3


def booked(*names: str, organization: int = 1, meter: str = "requests") -> list[str]:
    """The names under which these are booked, each in the order given."""
    with transaction.atomic():
        found = bounded((organization, meter, name) for name in names)
    return [found[organization, meter, name] for name in names]


def kept(organization: int = 1, meter: str = "requests") -> list[str]:
    rows = Resource.objects.filter(organization=organization, meter=meter).order_by("name")
    return list(rows.values_list("name", flat=True))


def call(name: str, *, key: int = 2, meter: str = "requests", cost: int = 1, calls: int = 1) -> Record:
    return Record(
        kind=CALL, sequence=1, time=NOW_US, payload=b"", end=0, organization=1, key=key, secret=key,
        cost=cost, calls=calls, code=Code.VALID.number, meter=meter, resource=name,
    )  # fmt: skip


def answered(name: str, responses: int) -> Record:
    return Record(
        kind=RESPONSE, sequence=1, time=NOW_US, payload=b"", end=0, organization=1, key=2,
        calls=responses, code=2, resource=name,
    )  # fmt: skip


NOW_US = int(NOW.timestamp()) * 1_000_000


def test_the_first_are_kept_and_the_rest_is_other() -> None:
    assert booked("a") == ["a"]
    assert booked("d", "c", "b") == [OTHER, "c", "b"]
    assert booked("e", "a", "b") == [OTHER, "a", "b"]
    assert kept() == ["a", "b", "c"]


def test_no_resource_and_other_itself_take_no_place() -> None:
    assert booked("", OTHER, "a", "b", "c") == ["", OTHER, "a", "b", "c"]
    assert not ResourceBound.objects.filter(reached_at__isnull=False).exists()


def test_organizations_and_meters_are_bounded_apart() -> None:
    assert booked("a", "b", "c", "d")[3] == OTHER
    assert booked("d", meter="tokens") == ["d"]
    assert booked("d", organization=2) == ["d"]
    assert booked("e") == [OTHER]


def test_reaching_the_bound_is_remembered_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    acme = organization("acme")
    with caplog.at_level(logging.WARNING, logger="usage.resources"):
        booked("a", "b", "c", organization=acme.pk)
        assert resources.reached(acme) == {}
        booked("d", organization=acme.pk)
        booked("e", organization=acme.pk)
    assert resources.reached(acme) == {"requests": 3}
    assert len(caplog.records) == 1


def test_a_raised_bound_makes_room_and_a_lowered_one_takes_none_away(settings: Settings) -> None:
    booked("a", "b", "c", "d")
    settings.USAGE_RESOURCES = 4
    assert booked("d", "e") == ["d", OTHER]
    settings.USAGE_RESOURCES = 1
    assert booked("a", "d", "f") == ["a", "d", OTHER]


def test_a_resource_with_a_price_keeps_its_name() -> None:
    sold = version("basic", requests={"unit_price": "1"})
    draft = PlanVersion.objects.create(plan=sold.plan, number=2, currency="USD", created_at=NOW)
    Price.objects.create(version=sold, meter="requests", resource="priced", unit_price="2")
    Price.objects.create(version=draft, meter="requests", resource="draft", unit_price="2")
    assert booked("a", "b", "c", "d", "draft", "priced") == ["a", "b", "c", OTHER, OTHER, "priced"]
    assert kept() == ["a", "b", "c"]


@pytest.mark.django_db(transaction=True)
def test_names_that_were_met_before_cost_no_query(
    django_assert_num_queries: DjangoAssertNumQueries, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    booked("a", "b")
    with transaction.atomic(), django_assert_num_queries(0):
        bounded([(1, "requests", "a"), (1, "requests", "b"), (1, "requests", "")])
    booked("c", "d")
    with transaction.atomic(), django_assert_num_queries(1):  # once it is full: which have a price?
        assert bounded([(1, "requests", f"new {n}") for n in range(50)]).popitem()[1] == OTHER
    resources.forget()  # another process
    with transaction.atomic(), django_assert_max_num_queries(3):
        bounded([(1, "requests", name) for name in ("a", "b", "c", "x")])


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_remembered() -> None:
    with transaction.atomic():
        bounded([(1, "requests", name) for name in "abc"])
        transaction.set_rollback(True)
    assert kept() == []
    assert booked("a", "b") == ["a", "b"]
    assert kept() == ["a", "b"]


@pytest.mark.django_db(transaction=True)
def test_memory_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "MAX_REMEMBERED", 5)
    for organization_id in range(1, 6):
        assert booked("a", "b", "c", "d", organization=organization_id) == ["a", "b", "c", OTHER]
    assert sum(len(known.names) for known in resources._memory.values()) <= 5
    assert booked("a", "e", organization=1) == ["a", OTHER]


BATCHES = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), max_size=8)


@pytest.mark.django_db(transaction=True)
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_never_more_than_the_bound_and_a_name_once_kept_stays(batches: list[list[str]]) -> None:
    Resource.objects.all().delete()
    ResourceBound.objects.all().delete()
    resources.forget()
    seen: set[str] = set()
    for names in batches:
        got = booked(*names)
        assert all(new in (name, OTHER) for name, new in zip(names, got, strict=True))
        assert seen & set(names) <= set(got)
        seen |= set(got) - {OTHER}
        assert len(seen) <= 3
        assert set(kept()) == seen
        if OTHER in got:
            assert len(seen) == 3


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    calls=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(1, 3), st.integers(0, 9), st.integers(1, 4)),
        max_size=20,
    )
)
def test_the_bound_changes_names_and_never_sums(calls: list[tuple[str, int, int, int]]) -> None:
    with transaction.atomic():
        sums = Sums()
        for name, key, cost, count in calls:
            sums.add(call(name, key=key, cost=cost, calls=count))
        sums.store()
        rows = list(Rollup.objects.all())
        assert sum(row.calls for row in rows) == sum(count for *_, count in calls)
        assert sum(row.quantity for row in rows) == sum(cost for _, _, cost, _ in calls)
        assert len({row.resource for row in rows} - {OTHER}) <= 3
        transaction.set_rollback(True)


def test_responses_go_by_the_names_of_requests() -> None:
    sums = Sums()
    for name in "abc":
        sums.add(call(name))
    for name, count in (("c", 1), ("d", 2), ("e", 3)):
        sums.add_response(answered(name, count))
    with transaction.atomic():
        sums.store()
    found = dict(ResponseRollup.objects.values_list("resource", "responses"))
    assert found == {"c": 1, OTHER: 5}


@pytest.mark.django_db(transaction=True)
def test_two_who_book_at_once_do_not_exceed_the_bound_together(settings: Settings) -> None:
    settings.USAGE_RESOURCES = 20

    def work(number: int) -> None:
        for batch in range(6):
            groups = [
                (organization_id, "requests", f"{number}/{batch}/{n}")
                for n in range(4)
                for organization_id in (1, 2, 3)
            ]
            # As another process: nothing is known but what the database says.
            resources.forget()
            with transaction.atomic():
                bounded(groups if number % 2 else reversed(groups))

    assert at_once([partial(work, number) for number in range(4)]) == [None] * 4
    for organization_id in (1, 2, 3):
        assert len(kept(organization_id)) == 20
        assert ResourceBound.objects.get(pk=(organization_id, "requests")).kept == 20


@pytest.fixture
def journals(journal_dir: Path) -> Iterator[list[Journal]]:
    made = [Journal(journal_dir, tick=False) for _ in range(2)]
    yield made
    for journal in made:
        journal.close()


@pytest.mark.django_db(transaction=True)
def test_two_drains_at_once_keep_to_the_bound_and_lose_no_call(journals: list[Journal]) -> None:
    for number, journal in enumerate(journals):
        for n in range(300):
            journal.append(Event(1, 2, 3, Code.VALID.number, 1, ("requests", f"{number}/{n % 9}", "", "")))
        journal.close()
    outcomes = at_once([lambda: Drain(batch=20).once(NOW) for _ in range(2)])
    assert not [each for each in outcomes if isinstance(each, BaseException)]
    Drain().once(NOW)
    rows = list(Rollup.objects.all())
    assert sum(row.calls for row in rows) == 600
    assert len({row.resource for row in rows} - {OTHER}) == 3
    assert kept() == sorted({row.resource for row in rows} - {OTHER})
