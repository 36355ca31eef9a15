"""Retirement of keys that nobody uses: announced first, taken back by a use, and carried out once."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from keys import lifecycle
from keys.models import AuditEvent, Key, Organization
from tests import builders
from tests.builders import NOW

pytestmark = pytest.mark.django_db
COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)


def strict(**fields: Any) -> Organization:
    policy = lifecycle.create_policy(COMMAND, slug="strict", name="Strict", now=NOW, **fields)
    return builders.organization("acme", policy=policy, now=NOW)


def pass_by(at: dt.datetime, used: dt.datetime | None = None, through: dt.datetime | None = None) -> int:
    """One run of the chore at this moment; every key was last used at `used`."""
    last = {} if used is None else dict.fromkeys(Key.objects.values_list("pk", flat=True), used)
    return lifecycle.retire_idle(lambda of, ids: last, through=through or at, now=at)


def acts(key: Key) -> list[str]:
    return list(key.events.order_by("number").values_list("act", flat=True))


def test_a_key_that_nobody_uses_is_announced_two_weeks_before_and_then_disabled() -> None:
    key = builders.key(strict(idle_days=60), now=NOW, expires_at=None).key
    assert pass_by(NOW + 45 * DAY) == 0
    assert pass_by(NOW + 46 * DAY) == 1
    assert builders.reloaded(key).retires_at == NOW + 60 * DAY
    assert list(Key.objects.retiring()) == [key]
    assert pass_by(NOW + 59 * DAY) == 0
    assert pass_by(NOW + 60 * DAY) == 1
    key = builders.reloaded(key)
    assert key.disabled_at == NOW + 60 * DAY
    assert key.is_retired
    assert not Key.objects.retiring().exists()
    assert acts(key) == ["key.created", "key.retirement_announced", "key.retired"]
    assert {event.actor_kind for event in AuditEvent.objects.filter(act__startswith="key.reti")} == {"system"}
    assert pass_by(NOW + 61 * DAY) == 0


def test_one_use_takes_the_announcement_back() -> None:
    key = builders.key(strict(idle_days=60), now=NOW, expires_at=None).key
    pass_by(NOW + 50 * DAY)
    assert pass_by(NOW + 51 * DAY, used=NOW + 50 * DAY) == 1
    assert builders.reloaded(key).retires_at is None
    assert pass_by(NOW + 60 * DAY, used=NOW + 50 * DAY) == 0
    assert acts(key)[1:] == ["key.retirement_announced", "key.retirement_withdrawn"]


def test_a_policy_that_came_later_still_gives_the_whole_notice() -> None:
    acme = builders.organization("acme", now=NOW)
    key = builders.key(acme, now=NOW, expires_at=None).key
    lifecycle.edit_policy(COMMAND, acme.policy, idle_days=30, now=NOW + 300 * DAY)
    pass_by(NOW + 300 * DAY)
    assert builders.reloaded(key).retires_at == NOW + 314 * DAY
    assert pass_by(NOW + 313 * DAY) == 0
    lifecycle.edit_policy(COMMAND, acme.policy, idle_days=None, now=NOW + 313 * DAY)
    assert pass_by(NOW + 320 * DAY) == 1
    assert builders.reloaded(key).retires_at is None
    assert builders.reloaded(key).disabled_at is None


def test_nothing_is_held_against_a_key_for_the_time_that_is_not_counted_yet() -> None:
    key = builders.key(strict(idle_days=60), now=NOW, expires_at=None).key
    assert pass_by(NOW + 300 * DAY, through=NOW + 45 * DAY) == 0
    assert pass_by(NOW + 300 * DAY, through=NOW + 46 * DAY) == 1
    assert pass_by(NOW + 400 * DAY, through=NOW + 313 * DAY) == 0  # announced for day 314
    assert pass_by(NOW + 400 * DAY, through=NOW + 314 * DAY) == 1
    assert builders.reloaded(key).is_retired


def test_a_rotation_counts_as_a_sign_of_life() -> None:
    key = builders.key(strict(idle_days=60), now=NOW, expires_at=None).key
    lifecycle.rotate_key(COMMAND, key, overlap=DAY, now=NOW + 40 * DAY)
    assert pass_by(NOW + 60 * DAY) == 0


def test_an_enabled_key_is_announced_anew_before_it_is_retired_again() -> None:
    key = builders.key(strict(idle_days=60), now=NOW, expires_at=None).key
    pass_by(NOW + 46 * DAY)
    pass_by(NOW + 60 * DAY)
    enabled = lifecycle.enable_key(COMMAND, key, now=NOW + 70 * DAY)
    assert enabled.retires_at is None
    pass_by(NOW + 70 * DAY)
    key = builders.reloaded(key)
    assert (key.retires_at, key.disabled_at) == (NOW + 84 * DAY, None)


def test_keys_that_do_not_work_are_left_alone() -> None:
    acme = strict(idle_days=10)
    lifecycle.revoke_key(COMMAND, builders.key(acme, now=NOW).key, now=NOW)
    lifecycle.disable_key(COMMAND, builders.key(acme, now=NOW).key, now=NOW)
    builders.key(acme, now=NOW, expires_at=NOW + DAY)
    assert pass_by(NOW + 100 * DAY) == 0
    builders.key(acme, now=NOW, expires_at=None)
    lifecycle.suspend_organization(COMMAND, acme, reason="", now=NOW)
    assert pass_by(NOW + 100 * DAY) == 0


def test_organizations_without_such_a_policy_keep_their_keys() -> None:
    builders.key(builders.organization("acme", now=NOW), now=NOW, expires_at=None)
    assert pass_by(NOW + 5000 * DAY) == 0


class NeverUnannounced(TestCase):
    @settings(max_examples=20)
    @given(
        idle_days=st.integers(1, 60),
        steps=st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=8),
    )
    def test_no_key_is_retired_unannounced_or_within_its_days_of_use(
        self, idle_days: int, steps: list[tuple[int, bool]]
    ) -> None:
        """Whatever the days between runs of the chore, and whichever of them end with a use."""
        key = builders.key(strict(idle_days=idle_days), now=NOW, expires_at=None).key
        at = used = NOW
        announced = None
        for days, is_used in steps:
            at += days * DAY
            used = at if is_used else used
            pass_by(at, used=used)
            key = builders.reloaded(key)
            if key.disabled_at is not None:
                assert announced is not None
                assert at - announced >= lifecycle.notice_before(idle_days)
                assert at - used >= idle_days * DAY
                return
            announced = None if key.retires_at is None else announced or at
