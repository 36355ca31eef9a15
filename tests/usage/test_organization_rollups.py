"""Roll-ups without their keys are what roll-ups add up to, whoever wrote, changed or deleted them."""

import datetime as dt
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from keys.models import Environment, Key
from tests import builders
from tests.builders import NOW
from usage import organization_rollups, retention, rollups
from usage.models import OrganizationRollup, Rollup
from usage.rollups import Sums

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
MIDNIGHT = NOW.replace(hour=0)


def count(organization: int, key: int, hour: dt.datetime, quantity: int) -> None:
    sums = Sums()
    sums.add_event(organization, key, "requests", "", hour, quantity)
    sums.store()


def added_up() -> Counter[tuple[object, ...]]:
    """What the roll-ups come to without their keys: group and name of the sum → sum."""
    environments = dict(Key.objects.values_list("pk", "environment"))
    found: Counter[tuple[object, ...]] = Counter()
    for row in Rollup.objects.all():
        group = row.organization_id, row.hour, environments.get(row.key_id, ""), row.meter, row.resource
        found[*group, row.outcome, row.booked_period, "calls"] += row.calls
        found[*group, row.outcome, row.booked_period, "quantity"] += row.quantity
    return found


def kept() -> Counter[tuple[object, ...]]:
    """The same as the table has it."""
    found: Counter[tuple[object, ...]] = Counter()
    for row in OrganizationRollup.objects.all():
        group = row.organization_id, row.hour, row.environment, row.meter, row.resource
        found[*group, row.outcome, row.booked_period, "calls"] += row.calls
        found[*group, row.outcome, row.booked_period, "quantity"] += row.quantity
    return found


@pytest.mark.django_db
def test_keys_of_an_environment_are_added_up_and_others_apart() -> None:
    acme, globex = builders.organization("acme"), builders.organization("globex")
    live = [builders.key(acme).key for _ in range(2)]
    test = builders.key(acme, environment=Environment.TEST).key
    builders.used(live[0], 3)
    builders.used(live[1], 4)
    builders.used(live[1], 5, resource="orders")
    builders.used(test, 6)
    builders.used(builders.key(globex).key, 7)
    sums = OrganizationRollup.objects.values_list("organization__slug", "environment", "resource", "quantity")
    assert sorted(sums) == [
        ("acme", "live", "", 7),
        ("acme", "live", "orders", 5),
        ("acme", "test", "", 6),
        ("globex", "live", "", 7),
    ]


@pytest.mark.django_db
def test_usage_of_a_key_that_this_database_lost_is_kept_apart() -> None:
    acme = builders.organization("acme")
    count(acme.pk, 987_654, NOW, 3)
    assert OrganizationRollup.objects.get().environment == ""
    assert kept() == added_up()


@pytest.mark.django_db
def test_what_others_counted_is_found_and_summed_up_anew(caplog: pytest.LogCaptureFixture) -> None:
    key = builders.key(builders.organization("acme")).key
    for days in range(3):
        count(key.organization_id, key.pk, NOW - days * DAY, 5)
    Rollup.objects.filter(hour=NOW - DAY).update(calls=7, quantity=8)
    assert kept() != added_up()
    organization_rollups.mend_recent(NOW)
    assert kept() == added_up()
    assert [record.message for record in caplog.records] == [
        "Usage of 2026-06-14 was counted by a worker of an older version; its sums were made anew."
    ]
    organization_rollups.mend_recent(NOW)
    assert len(caplog.records) == 1


@pytest.mark.django_db
def test_sums_of_roll_ups_that_are_gone_go_too() -> None:
    key = builders.key(builders.organization("acme")).key
    count(key.organization_id, key.pk, NOW, 5)
    Rollup.objects.all().delete()
    organization_rollups.mend_recent(NOW)
    assert not OrganizationRollup.objects.exists()


class Steps(TestCase):
    """Whatever is counted, merged, changed and deleted, in whatever order."""

    def setUp(self) -> None:
        acme = builders.organization("acme")
        self.keys = [
            builders.key(acme).key,
            builders.key(acme, environment=Environment.TEST).key,
            builders.key(builders.organization("globex")).key,
        ]

    # What is done, to which key, in which hour, and how much.
    STEP = st.tuples(st.sampled_from(["count", "count", "fold", "mend"]), *[st.integers(0, 2)] * 3)

    @settings(max_examples=15, deadline=None)
    @given(st.lists(STEP, max_size=12))
    def test_the_sums_are_right_after_each_step(self, steps: list[tuple[str, int, int, int]]) -> None:
        for act, of, hours, quantity in steps:
            key, hour = self.keys[of], NOW + hours * HOUR
            if act == "count":
                sums = Sums()
                for each in (key, self.keys[0]):
                    sums.add_event(each.organization_id, each.pk, "requests", "", hour, quantity - 1)
                sums.store()
            elif act == "fold":
                rollups.fold(key.organization_id, hour, hour + 2 * HOUR)
            else:
                assert organization_rollups.mend(MIDNIGHT, MIDNIGHT + DAY) == []
            assert kept() == added_up()


@pytest.mark.django_db(transaction=True)
def test_merging_hours_into_days_keeps_the_sums() -> None:
    keys = [builders.key(builders.organization(name)).key for name in ("acme", "globex")]
    for hours in range(30):
        for key in keys:
            builders.used(key, hours + 1, hour=NOW + hours * HOUR)
    assert list(retention.fold(NOW + dt.timedelta(days=3)))
    assert kept() == added_up()
    assert OrganizationRollup.objects.count() == Rollup.objects.count() < 60
