"""What stricter settings would have refused: never more than is known."""

import datetime as dt
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import quotas, rates
from keys.lifecycle import Invalid, Issued
from keys.models import Environment, Organization
from keys.networks import compile_networks, contains, parse_address
from tests import builders
from tests.builders import NOW
from usage import shadow
from usage.limits import window_end
from usage.models import ScopeUse, Source
from usage.models.sources import OTHER
from usage.reports import Hour
from usage.shadow import Facts, Outside, Proposal
from usage.traits import UNKNOWN

DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)
SINCE = NOW.replace(hour=0) - 29 * DAY


def proposal(
    *,
    scopes: tuple[str, ...] = (),
    networks: tuple[str, ...] = (),
    rate: str = "",
    quota: str = "",
) -> Proposal:
    return Proposal(
        scopes, networks, [rates.parse(rate)] if rate else [], [quotas.parse(quota)] if quota else []
    )


def source(address: str, secret_id: int = 1, last: dt.datetime = NOW) -> Source:
    return Source(secret_id=secret_id, address=address, calls=3, first_seen=last, last_seen=last)


def hour(calls: int, at: dt.datetime = NOW, meter: str = "requests") -> Hour:
    return Hour(at, meter, calls, calls)


@pytest.mark.parametrize(
    ("address", "outside"),
    [
        ("192.0.2.7", None),
        ("192.0.3.7", Outside.YES),
        ("::ffff:192.0.2.7", None),
        ("2001:db8::1", Outside.YES),
        ("192.0.2.0/24", Outside.PERHAPS),
        ("198.51.100.0/24", None),
        ("203.0.113.0/24", Outside.YES),
        ("", Outside.YES),  # the gateway refuses whom it cannot tell
        (OTHER, Outside.PERHAPS),
    ],
)
def test_a_source_is_outside_inside_or_perhaps_outside(address: str, outside: Outside | None) -> None:
    tried = proposal(networks=("192.0.2.0/28", "198.51.0.0/16"))
    found = shadow.judge(tried, Facts(SINCE, sources=[source(address)]))
    assert [place.outside for place in found.places] == ([outside] if outside else [])
    assert found.refuses == (outside is Outside.YES)
    assert found.may_refuse == (outside is not None)
    assert found.is_unsure == (outside is Outside.PERHAPS)


def test_without_networks_no_source_is_outside() -> None:
    assert not shadow.judge(proposal(), Facts(SINCE, sources=[source("192.0.2.7"), source(OTHER)])).places


@given(
    st.integers(0, 255), st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), min_size=1, max_size=4)
)
def test_an_address_is_outside_exactly_when_the_gateway_would_refuse_it(
    last: int, networks: list[tuple[int, int]]
) -> None:
    texts = [str(ipaddress.ip_network((f"192.0.2.{each}", bits), strict=False)) for each, bits in networks]
    address = f"192.0.2.{last}"
    found = shadow.judge(proposal(networks=tuple(texts)), Facts(SINCE, sources=[source(address)]))
    let_in = contains(compile_networks(texts), parse_address(address))
    assert [place.outside for place in found.places] == ([] if let_in else [Outside.YES])


def test_scopes_that_calls_asked_for_are_missed_the_last_first() -> None:
    needed = {"a:read": NOW - DAY, "b:read": NOW, "c:read": NOW - 60 * DAY, "kept:read": NOW}
    held = ["a:read", "b:read", "c:read", "kept:read"]
    found = shadow.judge(proposal(scopes=("kept:read",)), Facts(SINCE, held, needed=needed))
    assert [need.scope for need in found.needs] == ["b:read", "a:read"]


def test_scopes_that_were_not_kept_may_be_any_that_is_dropped() -> None:
    facts = Facts(SINCE, ["a:read"], needed={UNKNOWN: NOW})
    assert shadow.judge(proposal(), facts).unknown_scopes == NOW
    assert shadow.judge(proposal(scopes=("a:read",)), facts).unknown_scopes is None


@pytest.mark.parametrize(
    ("rate", "calls", "spans"),
    [
        ("1/second", 0, 0),
        ("59/minute", 60, 1),
        ("3599/hour", 1, 1),
        ("3600/hour", 0, 0),
        ("4000/day", 100, 1),
    ],
)
def test_a_rate_refuses_what_no_hour_or_day_can_hold(rate: str, calls: int, spans: int) -> None:
    hours = [hour(3600), hour(500, NOW - HOUR), hour(10**6, SINCE - HOUR)]
    found = shadow.judge(proposal(rate=rate), Facts(SINCE, hours=hours)).rates[0]
    assert (found.calls, found.spans) == (calls, spans)


@given(
    st.lists(st.integers(0, 2 * 86_400 - 1), max_size=60),
    st.integers(1, 5),
    st.sampled_from(["second", "minute", "hour", "day"]),
)
def test_a_rate_never_claims_more_than_its_windows_would_have_refused(
    seconds: list[int], limit: int, unit: str
) -> None:
    rate = rates.parse(f"{limit}/{unit}")
    start = int(SINCE.timestamp())
    spent: dict[int, int] = {}
    by_hour: dict[int, int] = {}
    refused = 0
    for second in sorted(start + each for each in seconds):
        end = window_end(second, rate.seconds)
        spent[end] = spent.get(end, 0) + 1
        refused += spent[end] > limit
        by_hour[second // 3600] = by_hour.get(second // 3600, 0) + 1
    hours = [hour(n, dt.datetime.fromtimestamp(at * 3600, dt.UTC)) for at, n in by_hour.items()]
    told = shadow.judge(Proposal((), (), [rate], []), Facts(SINCE, hours=hours)).rates[0].calls
    assert told <= refused
    if rate.seconds >= 3600:
        assert told == refused


def test_a_quota_is_held_against_whole_days_and_months_of_its_meter() -> None:
    may = dt.datetime(2026, 5, 2, tzinfo=dt.UTC)
    hours = [
        hour(70, may),
        hour(40, may + 20 * DAY),
        hour(60),
        hour(50, NOW - HOUR),
        hour(999, meter="tokens"),
    ]
    facts = Facts(SINCE, hours=hours)
    by_month = shadow.judge(proposal(quota="100/month"), facts).quotas[0]
    assert (by_month.over, by_month.spans, by_month.most) == (20, 2, 110)
    by_day = shadow.judge(proposal(quota="60/day"), facts).quotas[0]
    assert (by_day.over, by_day.spans, by_day.start) == (50, 1, NOW.replace(hour=0))
    assert not shadow.judge(proposal(quota="110/day"), facts).refuses


def test_test_keys_spend_no_quota() -> None:
    facts = Facts(SINCE, hours=[hour(9)], spends_quotas=False)
    assert not shadow.judge(proposal(quota="1/day"), facts).refuses


@pytest.fixture
def acme(db: None) -> Organization:
    return builders.organization("acme", now=NOW - 90 * DAY)


@pytest.fixture
def issued(acme: Organization) -> Issued:
    return builders.key(acme, scopes=("a:read", "b:read"), now=NOW - 80 * DAY, expires_at=NOW + 90 * DAY)


def test_what_is_kept_of_a_key_is_held_against_the_proposal(acme: Organization, issued: Issued) -> None:
    for address, last in (("192.0.2.1", NOW), ("198.51.100.1", NOW), ("203.0.113.1", NOW - 40 * DAY)):
        source(address, issued.secret.pk, last).save(force_insert=True)
    ScopeUse.objects.create(key=issued.key, scope="b:read", last_needed=NOW)
    builders.used(issued.key, 1)
    builders.meter("tokens")
    builders.used(issued.key, 5, meter="tokens")
    builders.used(issued.key, 0, resource="preflight")
    builders.used(issued.key, 9, outcome="RATE_LIMITED")
    other = builders.key(acme, name="Other", now=NOW - 80 * DAY, expires_at=NOW + 90 * DAY)
    builders.used(other.key, 7)
    tried = shadow.propose(issued.key, ["a:read"], ["192.0.2.1"], ["1/hour"], ["4 tokens/day", "1/day"])
    found = shadow.look_back(issued.key, tried, NOW)
    assert [place.source.address for place in found.places] == ["198.51.100.1"]
    assert [need.scope for need in found.needs] == ["b:read"]
    assert [each.calls for each in found.rates] == [1]  # of three, one cost nothing
    assert [(each.quota.meter, each.over) for each in found.quotas] == [("requests", 0), ("tokens", 1)]


def test_a_key_as_it_is_refuses_nothing_that_is_known(issued: Issued) -> None:
    source("192.0.2.1", issued.secret.pk).save(force_insert=True)
    ScopeUse.objects.create(key=issued.key, scope="b:read", last_needed=NOW)
    builders.used(issued.key, 1000)
    tried = shadow.propose(issued.key, ["a:read", "b:read"], [], [], [])
    assert not shadow.look_back(issued.key, tried, NOW).may_refuse


def test_a_test_key_is_known_by_its_environment(acme: Organization) -> None:
    key = builders.key(acme, environment=Environment.TEST, now=NOW - DAY, expires_at=NOW + DAY).key
    builders.used(key, 1000)
    assert not shadow.look_back(key, shadow.propose(key, [], [], [], ["1/day"]), NOW).refuses


@pytest.mark.parametrize(
    ("networks", "rate", "quota"),
    [(["192.0.2.1/24"], [], []), (["x"], [], []), ([], ["0/hour"], []), ([], [], ["1/week"])],
)
def test_what_an_edit_would_not_take_is_not_tried(
    issued: Issued, networks: list[str], rate: list[str], quota: list[str]
) -> None:
    with pytest.raises(Invalid):
        shadow.propose(issued.key, [], networks, rate, quota)
