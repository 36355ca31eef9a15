"""Trials of stricter limits: they refuse nothing, are judged from their start on, and end once."""

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import lifecycle, quotas
from keys.audit import Actor
from keys.lifecycle import Conflict, Forbidden, Invalid
from keys.models import Environment, Key, Organization
from keys.permissions import Role
from tests import builders
from tests.builders import NOW
from tests.threads import at_once
from usage import shadow, trials
from usage.models import Outcome, Rollup, ScopeUse, Source, Trial
from usage.reports import Hour
from usage.shadow import Facts, Proposal

pytestmark = pytest.mark.django_db

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
HALF_PAST = NOW + dt.timedelta(minutes=30)
STAFF = lifecycle.command_actor()


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", builders.user("alice"), now=NOW - 60 * DAY)


@pytest.fixture
def key(acme: Organization) -> Key:
    made = builders.key(acme, scopes=("a:read", "b:read"), now=NOW - 50 * DAY, expires_at=NOW + 300 * DAY)
    return made.key


@pytest.fixture
def alice(acme: Organization) -> Actor:
    membership = acme.memberships.get()
    return lifecycle.member_actor(membership.user, membership)


def seen(key: Key, address: str, last: dt.datetime) -> None:
    secret = key.secrets.get()
    Source.objects.create(secret=secret, address=address, calls=3, first_seen=last, last_seen=last)


def used(key: Key, calls: int, hour: dt.datetime) -> None:
    builders.used(key, calls, hour)
    Rollup.objects.filter(key=key, hour=hour).update(calls=calls)


def judged(trial: Trial) -> list[str]:
    return shadow.sentences(trials.judge(trial, trial.started_at))


def ended(trial: Trial) -> Trial:
    return Trial.objects.get(pk=trial.pk)


def test_only_calls_since_its_start_count(key: Key) -> None:
    trial = builders.trial(
        key, now=HALF_PAST, scopes=["a:read"], networks=["192.0.2.0/24"], rates=["5/hour"], quotas=["100/day"]
    )
    seen(key, "198.51.100.1", NOW)
    ScopeUse.objects.create(key=key, scope="b:read", last_needed=NOW)
    used(key, 90, NOW)  # in the hour in which it began
    assert judged(trial) == []
    seen(key, "198.51.100.2", HALF_PAST)
    ScopeUse.objects.filter(scope="b:read").update(last_needed=HALF_PAST)
    used(key, 30, NOW + HOUR)
    assert judged(trial) == [
        "Calls from 1 address outside the networks.",
        "Calls that asked for b:read.",
        "At least 25 beyond 5/hour.",
        "20 beyond 100/day.",
    ]


def test_a_setting_that_stays_is_not_judged(key: Key) -> None:
    lifecycle.edit_key(STAFF, key, networks=["192.0.2.0/24"], now=NOW)
    trial = builders.trial(builders.reloaded(key), now=NOW, rates=["9/hour"])
    assert list(trial.changes) == ["rates"]
    seen(key, "198.51.100.1", NOW + HOUR)
    assert judged(trial) == []


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=30), st.integers(1, 60))
def test_a_quota_refuses_what_comes_after_it_is_used_up(used: list[tuple[int, int]], limit: int) -> None:
    """Hour by hour as a counter would: what was used before the start counts as used, and is not refused."""
    start = NOW.replace(hour=0) - DAY
    hours = [Hour(start + each * HOUR, "requests", quantity, quantity) for each, quantity in sorted(used)]
    since, spent, refused = start + 30 * HOUR, {0: 0, 1: 0}, 0
    for each, quantity in sorted(used):
        day = each // 24
        for _ in range(quantity):
            spent[day] += 1
            refused += spent[day] > limit and each >= 30
    tried = Proposal(quotas=[quotas.parse(f"{limit}/day")])
    assert shadow.judge(tried, Facts(since, hours=hours)).quotas[0].over == refused


def test_limits_of_all_keys_are_held_against_all_of_them(acme: Organization, key: Key) -> None:
    trial = trials.start_for_all(STAFF, acme, rates=["5/hour"], quotas=["10/day"], days=7, now=NOW)
    other = builders.key(acme, name="Other", now=NOW - DAY).key
    test = builders.key(acme, name="Test", environment=Environment.TEST, now=NOW - DAY).key
    for each in (key, other, test):
        used(each, 8, NOW + HOUR)
    # Test keys spend rates and no quota.
    assert judged(trial) == ["At least 19 beyond 5/hour.", "6 beyond 10/day."]


def test_it_changes_nothing_until_it_is_applied(alice: Actor, key: Key) -> None:
    trial = builders.trial(key, now=NOW, scopes=["a:read"], networks=["192.0.2.0/24"])
    before = builders.reloaded(key)
    assert (before.networks, before.scopes.count()) == ([], 2)
    trials.apply(alice, trial, now=NOW + DAY)
    after = builders.reloaded(key)
    assert after.networks == ["192.0.2.0/24"]
    assert [scope.name for scope in after.scopes.all()] == ["a:read"]
    assert ended(trial).outcome == Outcome.APPLIED
    acts = key.events.order_by("number").values_list("act", flat=True)
    assert list(acts)[-3:] == ["trial.started", "key.edited", "trial.applied"]


def test_what_was_changed_meanwhile_is_not_overwritten(alice: Actor, key: Key) -> None:
    trial = builders.trial(key, now=NOW, rates=["5/hour"])
    lifecycle.edit_key(alice, key, name="Renamed", networks=["192.0.2.1"], now=NOW)
    lifecycle.edit_key(alice, key, rates=["9/hour"], now=NOW)
    with pytest.raises(Conflict):
        trials.apply(alice, trial, now=NOW)
    lifecycle.edit_key(alice, key, rates=[], now=NOW)
    trials.apply(alice, trial, now=NOW)
    after = builders.reloaded(key)
    assert (after.name, after.networks, after.rates) == ("Renamed", ["192.0.2.1/32"], ["5/hour"])


def test_what_policy_came_to_forbid_is_not_applied(alice: Actor, acme: Organization, key: Key) -> None:
    lifecycle.edit_key(STAFF, key, networks=["192.0.2.0/24"], now=NOW)
    trial = builders.trial(builders.reloaded(key), now=NOW, networks=[])
    lifecycle.edit_policy(STAFF, acme.policy, networks_required=True, now=NOW)
    with pytest.raises(Invalid):
        trials.apply(alice, trial, now=NOW)
    assert ended(trial).ended_at is None


def test_limits_of_all_keys_are_staffs_to_apply(alice: Actor, acme: Organization) -> None:
    own = lifecycle.create_policy(STAFF, slug="own", name="Own", now=NOW)
    trial = trials.start_for_all(alice, acme, rates=["5/hour"], quotas=[], days=7, now=NOW)
    with pytest.raises(Forbidden):
        trials.apply(alice, trial, now=NOW)
    builders.organization("globex", now=NOW)  # of the same policy
    with pytest.raises(Conflict, match="not this organization's alone"):
        trials.apply(STAFF, trial, now=NOW)
    lifecycle.apply_policy(STAFF, acme, own, now=NOW)
    trials.apply(STAFF, trial, now=NOW)
    own.refresh_from_db()
    assert own.rates == ["5/hour"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"scopes": ["a:read", "c:read"]},
        {"networks": ["192.0.2.1/24"]},
        {"rates": ["0/hour"]},
        {"quotas": ["1/week"]},
        {"days": 8},
        {"days": 10**9},
    ],
)
def test_what_cannot_be_tried_is_refused(key: Key, settings: dict[str, Any]) -> None:
    as_it_is: dict[str, Any] = {
        "scopes": ["a:read", "b:read"],
        "networks": [],
        "rates": [],
        "quotas": [],
        "days": 7,
    }
    with pytest.raises(Invalid):
        trials.start(STAFF, key, now=NOW, **{"days": 7} | as_it_is | settings)
    assert not Trial.objects.exists()


def test_who_may_not_edit_a_key_may_not_try(acme: Organization, key: Key) -> None:
    viewer = builders.member(builders.user("bob"), acme, Role.VIEWER)
    globex = builders.organization("globex", builders.user("charlie")).memberships.get()
    trial = builders.trial(key, now=NOW)
    for membership in (viewer, globex):
        actor = lifecycle.member_actor(membership.user, membership)
        for act in (trials.apply, trials.discard):
            with pytest.raises(Forbidden):
                act(actor, trial, now=NOW)
        with pytest.raises(Forbidden):
            trials.start_for_all(actor, acme, rates=["1/day"], quotas=[], days=7, now=NOW)


def test_an_organization_has_few_at_once_and_a_key_one(
    monkeypatch: pytest.MonkeyPatch, acme: Organization, key: Key
) -> None:
    builders.trial(key, now=NOW)
    with pytest.raises(Conflict, match="already"):
        builders.trial(key, now=NOW)
    monkeypatch.setattr(trials, "MOST", 1)
    with pytest.raises(Conflict, match="At most 1"):
        trials.start_for_all(STAFF, acme, rates=["1/day"], quotas=[], days=7, now=NOW)


def test_its_end_waits_until_everything_is_counted_but_not_for_ever(key: Key) -> None:
    trial = builders.trial(key, now=NOW, days=7, rates=["5/hour"])
    told: list[Trial] = []
    over = NOW + 7 * DAY
    assert not trials.end_due(over - HOUR, over + HOUR, told.append)
    assert not trials.end_due(None, over - HOUR, told.append)
    used(key, 6, over - HOUR)
    assert trials.end_due(over, over + HOUR, told.append) == 1
    assert [(each.pk, each.result) for each in told] == [(trial.pk, ["At least 1 beyond 5/hour."])]
    assert not trials.end_due(over, over + HOUR, told.append)
    another = builders.trial(key, now=NOW, days=7)
    assert trials.end_due(NOW, over + DAY, told.append) == 1
    assert ended(another).outcome == Outcome.OVER


def test_an_ended_trial_stays_as_it_is_and_goes_in_time(alice: Actor, key: Key) -> None:
    trial = builders.trial(key, now=NOW)
    trials.discard(alice, trial, now=NOW)
    for act in (trials.apply, trials.discard):
        with pytest.raises(Conflict):
            act(alice, trial, now=NOW)
    trials.forget(NOW + trials.KEEP)
    assert ended(trial).outcome == Outcome.DISCARDED
    trials.forget(NOW + trials.KEEP + DAY)
    assert not Trial.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_two_who_end_it_at_once_one_does() -> None:
    key = builders.key(builders.organization("acme", now=NOW), now=NOW).key
    trial = builders.trial(key, now=NOW)

    def end() -> str:
        try:
            return trials.apply(STAFF, trial, now=NOW).outcome
        except Conflict:
            return "refused"

    found = at_once([end, end])
    assert sorted(map(str, found)) == ["applied", "refused"]
    assert key.events.filter(act="trial.applied").count() == 1
