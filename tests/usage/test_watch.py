"""Signals: of each kind the traffic that raises it and some that must not; each raised and cleared once."""

import datetime as dt
from collections.abc import Iterable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys import lifecycle
from keys.models import AuditEvent, Key, Organization, Secret
from keys.networks import compile_networks, contains, parse_address
from keys.permissions import Role
from keys.verdicts import Code
from tests import builders
from tests.usage.journals import BEGIN, SECOND, START, Clock
from usage import signals, traits, watch
from usage.drain import drain_once
from usage.journal import Event, Journal
from usage.models import Signal, Source
from usage.signals import MEANINGS, Facts, Kind

pytestmark = pytest.mark.django_db

COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
NOW = BEGIN + 100 * DAY


@pytest.fixture
def acme() -> Organization:
    return builders.organization("acme", owner=builders.user("alice"), now=BEGIN - 400 * DAY)


def new_key(acme: Organization, *, age: dt.timedelta = DAY, **fields: Any) -> lifecycle.Issued:
    """A key that raises nothing by itself, made so long before NOW."""
    fields = {"expires_at": NOW + 60 * DAY} | fields
    return builders.key(acme, now=NOW - age, **fields)


class Traffic:
    """Calls at moments set by hand, in the order of time, and drained."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self.journal, self.clock = journal, clock

    def __call__(
        self,
        issued: lifecycle.Issued,
        ago: dt.timedelta,
        *,
        addresses: Iterable[str] = ("203.0.113.9",),
        code: Code = Code.VALID,
        agent: str = "curl",
        times: int = 1,
    ) -> None:
        self.clock.now = START + int((NOW - ago - BEGIN).total_seconds()) * SECOND
        key = issued.key
        for address in addresses:
            for _ in range(times):
                labels = "requests", "", address, agent
                self.journal.append(
                    Event(key.organization_id, key.pk, issued.secret.pk, code.number, 1, labels)
                )
        drain_once(NOW)


@pytest.fixture
def traffic(journal: Journal, clock: Clock) -> Traffic:
    return Traffic(journal, clock)


def raised(issued: lifecycle.Issued, now: dt.datetime = NOW) -> dict[Kind, signals.Evidence]:
    key = Key.objects.select_related("organization__policy", "created_by").get(pk=issued.key.pk)
    return watch.judged([key], now)[key.pk]


def test_a_young_key_with_an_expiry_raises_nothing(acme: Organization, traffic: Traffic) -> None:
    issued = new_key(acme)
    traffic(issued, HOUR)
    assert raised(issued) == {}


def test_no_expiry(acme: Organization) -> None:
    assert Kind.NO_EXPIRY in raised(new_key(acme, expires_at=None))
    assert Kind.NO_EXPIRY not in raised(new_key(acme))


def test_an_old_secret_until_it_is_rotated(acme: Organization) -> None:
    issued = new_key(acme, age=91 * DAY)
    assert "91 days ago" in raised(issued)[Kind.OLD_SECRET]["sentence"]
    assert Kind.OLD_SECRET not in raised(new_key(acme, age=89 * DAY))
    lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, now=NOW)
    assert Kind.OLD_SECRET not in raised(issued)


def test_a_key_that_was_not_used_for_90_days(acme: Organization, traffic: Traffic) -> None:
    never, used, long_ago = (new_key(acme, age=99 * DAY) for _ in range(3))
    traffic(long_ago, 95 * DAY)
    traffic(used, 80 * DAY)
    assert "never used" in raised(never)[Kind.IDLE]["sentence"]
    assert "95 days ago" in raised(long_ago)[Kind.IDLE]["sentence"]
    assert Kind.IDLE not in raised(used)


def test_a_refused_call_is_no_use(acme: Organization, traffic: Traffic) -> None:
    issued = new_key(acme, age=99 * DAY)
    traffic(issued, DAY, code=Code.RATE_LIMITED)
    assert Kind.IDLE in raised(issued)


def test_many_networks_at_once(acme: Organization, traffic: Traffic) -> None:
    addresses = [f"203.0.{n}.1" for n in range(8)]
    shared, few, test = new_key(acme), new_key(acme), new_key(acme, environment="test")
    slow = new_key(acme)
    traffic(slow, 3 * HOUR, addresses=addresses[:4])
    for issued in (shared, test):
        traffic(issued, HOUR / 2, addresses=addresses)
    traffic(few, HOUR / 2, addresses=[f"203.0.113.{n}" for n in range(20)])  # one network
    traffic(slow, HOUR / 2, addresses=addresses[4:])
    assert "8 networks" in raised(shared)[Kind.MANY_NETWORKS]["sentence"]
    for issued in (few, test, slow):
        assert Kind.MANY_NETWORKS not in raised(issued)


def test_many_refusals(acme: Organization, traffic: Traffic) -> None:
    failing, busy, past = new_key(acme, age=20 * DAY), new_key(acme), new_key(acme, age=20 * DAY)
    traffic(past, 10 * DAY, code=Code.INSUFFICIENT_SCOPE, times=100)
    traffic(failing, 2 * DAY, code=Code.INSUFFICIENT_SCOPE, times=100)
    traffic(busy, HOUR, code=Code.RATE_LIMITED, times=100)
    traffic(busy, HOUR, times=401)
    evidence = raised(failing)[Kind.REFUSALS]
    assert evidence["code"] == "INSUFFICIENT_SCOPE"
    assert evidence["sentence"] == "100 of 100 calls in 7 days were refused, mostly: insufficient scope."
    assert Kind.REFUSALS not in raised(busy)
    assert Kind.REFUSALS not in raised(past)


def test_networks_that_could_be_set(acme: Organization, traffic: Traffic) -> None:
    steady, limited = new_key(acme, age=30 * DAY), new_key(acme, age=30 * DAY, networks=["203.0.113.0/24"])
    roaming, inside, young = new_key(acme, age=30 * DAY), new_key(acme, age=30 * DAY), new_key(acme)
    for ago in (20 * DAY, DAY):
        traffic(steady, ago, addresses=["203.0.113.9", "2001:db8::1"])
        traffic(limited, ago)
        traffic(roaming, ago, addresses=[f"203.0.{n}.1" for n in range(5)])
        traffic(inside, ago, addresses=["10.0.0.1"])
    traffic(young, DAY)
    assert raised(steady)[Kind.NETWORKS]["networks"] == ["2001:db8::1/128", "203.0.113.9/32"]
    for issued in (limited, roaming, inside, young):
        assert Kind.NETWORKS not in raised(issued)
    # What is proposed can be set, and then nothing is proposed any more.
    lifecycle.edit_key(COMMAND, steady.key, networks=raised(steady)[Kind.NETWORKS]["networks"], now=NOW)
    assert Kind.NETWORKS not in raised(steady)


def test_many_addresses_of_few_networks_are_proposed_as_networks(
    acme: Organization, traffic: Traffic
) -> None:
    issued = new_key(acme, age=30 * DAY)
    for ago in (20 * DAY, DAY):
        traffic(issued, ago, addresses=[f"203.0.113.{n}" for n in range(9)])
    assert raised(issued)[Kind.NETWORKS]["networks"] == ["203.0.113.0/24"]


def test_an_ended_secret_that_is_still_tried(acme: Organization, traffic: Traffic) -> None:
    issued, past = new_key(acme, age=30 * DAY), new_key(acme, age=30 * DAY)
    for each in (issued, past):
        lifecycle.rotate_key(COMMAND, each.key, overlap=DAY, now=NOW - 20 * DAY)
    traffic(past, 10 * DAY, code=Code.REVOKED)
    assert Kind.LATE not in raised(issued)
    traffic(issued, 2 * DAY, code=Code.REVOKED, times=30)
    assert "30 calls" in raised(issued)[Kind.LATE]["sentence"]
    assert Kind.LATE not in raised(past)


def test_a_maker_who_left(acme: Organization) -> None:
    bob, sam = builders.user("bob"), builders.staff()
    membership = builders.member(bob, acme, Role.DEVELOPER, now=NOW - 9 * DAY)
    theirs = new_key(acme)
    Secret.objects.filter(key=theirs.key).update(created_by=bob)
    by_staff = new_key(acme)
    Secret.objects.filter(key=by_staff.key).update(created_by=sam)
    assert Kind.MAKER_LEFT not in raised(theirs)
    membership.delete()
    builders.member(bob, builders.organization("globex"))
    assert "bob@example.com" in raised(theirs)[Kind.MAKER_LEFT]["sentence"]
    assert Kind.MAKER_LEFT not in raised(by_staff)
    lifecycle.rotate_key(lifecycle.command_actor(), theirs.key, overlap=dt.timedelta(0), now=NOW)
    assert Kind.MAKER_LEFT not in raised(theirs)


@pytest.mark.parametrize(("trait", "kind"), [(traits.BROWSER, Kind.BROWSER), (traits.PLAIN, Kind.PLAIN)])
def test_a_live_key_that_comes_in_a_way_that_gives_it_away(
    acme: Organization, traffic: Traffic, trait: str, kind: Kind
) -> None:
    live, test, past, quiet = new_key(acme), new_key(acme, environment="test"), new_key(acme), new_key(acme)
    given_away = traits.pack("Firefox", (), trait)
    traffic(past, 8 * DAY, agent=given_away)
    for issued in (live, test):
        traffic(issued, DAY, agent=given_away)
    for issued in (live, past, quiet):
        traffic(issued, HOUR, agent="Firefox")
    assert "203.0.113.9 (Firefox)" in raised(live)[kind]["sentence"]
    assert Kind.NETWORKS not in raised(live)
    for issued in (test, past, quiet):
        assert kind not in raised(issued)


def test_scopes_that_no_call_asked_for(acme: Organization, traffic: Traffic) -> None:
    scopes = ("orders:read", "orders:write", "users:read")
    wide, young, unasked = (new_key(acme, age=age * DAY, scopes=scopes) for age in (40, 9, 40))
    narrow, edited = new_key(acme, age=40 * DAY, scopes=scopes[:1]), new_key(acme, age=40 * DAY)
    lifecycle.edit_key(COMMAND, edited.key, scopes=scopes, now=NOW - 5 * DAY)
    long_ago = traits.pack("curl", ("users:read",))
    asking = traits.pack("curl", ("orders:read", "orders:write"))
    traffic(wide, 39 * DAY, agent=long_ago)
    for issued in (narrow, edited):
        traffic(issued, 38 * DAY)
    for issued in (unasked,):
        traffic(issued, 37 * DAY)
    for issued in (wide, young, edited):
        traffic(issued, DAY, agent=asking)
    traffic(narrow, DAY, agent=traits.pack("curl", ("orders:read",)))
    traffic(unasked, DAY)
    evidence = raised(wide)[Kind.SCOPES]
    assert evidence["scopes"] == ["orders:read", "orders:write"]
    assert "no call asked for users:read." in evidence["sentence"]
    for issued in (young, unasked, narrow, edited):
        assert Kind.SCOPES not in raised(issued)


def test_scopes_that_could_not_be_kept_are_not_said_to_be_unused(
    acme: Organization, traffic: Traffic
) -> None:
    issued = new_key(acme, age=40 * DAY, scopes=("orders:read", "users:read"))
    traffic(issued, 39 * DAY, agent=traits.pack("curl", ("orders:read",)))
    traffic(issued, DAY, agent=traits.pack("curl", ("orders:read",)))
    assert Kind.SCOPES in raised(issued)
    traffic(issued, DAY, agent=traits.pack("curl", tuple(f"scope-{n}:read" for n in range(40))))
    assert Kind.SCOPES not in raised(issued)


def test_a_refused_call_needs_no_scope(acme: Organization, traffic: Traffic) -> None:
    issued = new_key(acme, age=40 * DAY, scopes=("orders:read", "users:read"))
    traffic(issued, 39 * DAY, agent=traits.pack("curl", ("orders:read",)))
    traffic(issued, 2 * DAY, agent=traits.pack("curl", ("orders:read",)))
    traffic(issued, DAY, agent=traits.pack("curl", ("users:read",)), code=Code.RATE_LIMITED)
    assert raised(issued)[Kind.SCOPES]["scopes"] == ["orders:read"]


@pytest.mark.parametrize("end", [lifecycle.revoke_key, lifecycle.disable_key])
def test_a_key_that_does_not_work_raises_nothing(acme: Organization, end: object) -> None:
    issued = new_key(acme, expires_at=None)
    watch.Sweep().go_on(NOW)
    assert Signal.objects.shown(NOW).count() == 1
    end(COMMAND, issued.key, now=NOW)  # type: ignore[operator]  # one of lifecycle's acts
    assert raised(issued) == {}
    watch.Sweep().go_on(NOW)
    assert Signal.objects.raised().count() == 0


def test_a_canary_is_to_lie_idle(acme: Organization) -> None:
    issued = new_key(acme, age=99 * DAY, expires_at=None)
    Key.objects.filter(pk=issued.key.pk).update(canary=True)
    assert raised(issued) == {}


# --- kept -----------------------------------------------------------------------------------------


def test_a_signal_is_raised_once_cleared_and_raised_anew(acme: Organization) -> None:
    issued = new_key(acme, expires_at=None)
    sweep = watch.Sweep()
    sweep.go_on(NOW)
    sweep.go_on(NOW + DAY)
    signal = Signal.objects.get()
    assert (signal.kind, signal.raised_at, signal.points) == ("no_expiry", NOW, 10)
    lifecycle.edit_key(COMMAND, issued.key, expires_at=NOW + 60 * DAY, now=NOW + DAY)
    sweep.go_on(NOW + 2 * DAY)
    assert Signal.objects.get().cleared_at == NOW + 2 * DAY
    lifecycle.edit_key(COMMAND, issued.key, expires_at=None, now=NOW + 3 * DAY)
    sweep.go_on(NOW + 3 * DAY)
    assert (Signal.objects.get().raised_at, Signal.objects.get().cleared_at) == (NOW + 3 * DAY, None)


def test_a_sweep_goes_on_where_it_was_and_begins_again(
    acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "BATCH", 2)
    for _ in range(5):
        new_key(acme, expires_at=None)
    sweep = watch.Sweep()
    seen = []
    for _ in range(4):
        sweep.go_on(NOW, seconds=0)
        seen.append(Signal.objects.count())
    assert seen == [2, 4, 5, 5]
    watch.Sweep().go_on(NOW, stop=lambda: True)
    assert Signal.objects.count() == 5


def test_judging_many_keys_costs_as_many_queries_as_one(acme: Organization, traffic: Traffic) -> None:
    def cost() -> int:
        keys = list(Key.objects.select_related("organization__policy", "created_by"))
        with CaptureQueriesContext(connection) as queries:
            watch.judged(keys, NOW)
        return len(queries)

    traffic(new_key(acme), DAY)
    one = cost()
    for _ in range(5):
        traffic(new_key(acme, expires_at=None), DAY)
    assert cost() == one


def signal_of(issued: lifecycle.Issued) -> Signal:
    watch.refresh([issued.key], NOW)
    return Signal.objects.select_related("organization", "key").get(key=issued.key)


def test_a_dismissed_signal_is_shown_no_more_until_it_is_raised_anew(acme: Organization) -> None:
    issued = new_key(acme, expires_at=None)
    watch.dismiss(COMMAND, signal_of(issued), snooze=False, now=NOW)
    watch.refresh([issued.key], NOW + DAY)
    assert not Signal.objects.shown(NOW + 300 * DAY).exists()
    event = AuditEvent.objects.latest("number")
    assert (event.act, event.data) == ("key.signal_dismissed", {"signal": "Never expires", "until": None})
    key = lifecycle.edit_key(COMMAND, issued.key, expires_at=NOW + 60 * DAY, now=NOW + DAY)
    watch.refresh([key], NOW + DAY)
    key = lifecycle.edit_key(COMMAND, key, expires_at=None, now=NOW + DAY)
    watch.refresh([key], NOW + DAY)
    assert Signal.objects.shown(NOW + DAY).exists()


def test_a_snoozed_signal_comes_back(acme: Organization) -> None:
    watch.dismiss(COMMAND, signal_of(new_key(acme, expires_at=None)), snooze=True, now=NOW)
    assert not Signal.objects.shown(NOW + watch.SNOOZE - HOUR).exists()
    assert Signal.objects.shown(NOW + watch.SNOOZE).exists()


def test_a_signal_is_dismissed_once_and_only_by_who_may_edit_keys(acme: Organization) -> None:
    signal = signal_of(new_key(acme, expires_at=None))
    eve = builders.user("eve")
    viewer = lifecycle.member_actor(eve, builders.member(eve, acme, Role.VIEWER))
    with pytest.raises(lifecycle.Forbidden):
        watch.dismiss(viewer, signal, snooze=False, now=NOW)
    watch.dismiss(COMMAND, signal, snooze=False, now=NOW)
    with pytest.raises(lifecycle.Conflict):
        watch.dismiss(COMMAND, signal, snooze=True, now=NOW)
    assert AuditEvent.objects.filter(act="key.signal_dismissed").count() == 1


def test_the_score_is_the_sum_of_what_is_shown(acme: Organization) -> None:
    old = new_key(acme, age=91 * DAY, expires_at=None)
    watch.refresh([old.key], NOW)
    points = {kind: MEANINGS[kind].points for kind in (Kind.NO_EXPIRY, Kind.OLD_SECRET, Kind.IDLE)}
    assert watch.scores([acme], NOW) == {acme.pk: sum(points.values())}
    assert signals.score(raised(old)) == sum(points.values())
    watch.dismiss(COMMAND, Signal.objects.get(kind="idle"), snooze=False, now=NOW)
    assert watch.scores([acme], NOW) == {acme.pk: sum(points.values()) - points[Kind.IDLE]}
    assert signals.score(["of a later version"]) == 0


@given(
    addresses=st.lists(
        st.one_of(st.ip_addresses().map(str), st.sampled_from(["", "junk", "203.0.113.0/24"])), max_size=12
    ),
    hours=st.lists(st.integers(0, 9000), min_size=12, max_size=12),
)
@hypothesis_settings(max_examples=60)
def test_whatever_is_proposed_lets_in_every_source_that_was_seen(
    addresses: list[str], hours: list[int]
) -> None:
    key = Key(environment="live", networks=[], created_at=NOW - 400 * DAY, expires_at=None)
    seen = [
        Source(address=address, calls=1, first_seen=NOW - ago * HOUR, last_seen=NOW - ago * HOUR / 2)
        for address, ago in zip(addresses, hours, strict=False)
    ]
    found = signals.judge(Facts(key, Secret(created_at=NOW), sources=seen), NOW)
    if Kind.NETWORKS in found:
        allowed = compile_networks(found[Kind.NETWORKS]["networks"])
        assert all(contains(allowed, parse_address(each.address.partition("/")[0])) for each in seen)
