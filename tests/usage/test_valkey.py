"""Rate windows on Valkey: the same answers as in memory, shared, atomic; and what happens without it."""

import threading
import time
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from keys.rates import Rate
from keys.records import KeyRecord
from tests import valkey
from tests.usage.test_limits import HOUR, MINUTE, NOW, SECOND, key
from tests.valkey import Valkey
from tests.waiting import until
from usage.limits import Standing, Windows, WindowsAway
from usage.valkey import TIMEOUT, SharedWindows, plain_url

DAY = 86_400


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with valkey.running(tmp_path_factory.mktemp("v")) as server:
        yield server


def shared(server: Valkey, *, refuse: bool = False) -> SharedWindows:
    return SharedWindows(server.url, refuse_when_away=refuse)


def spend(windows: SharedWindows, mine: KeyRecord, cost: int) -> Standing:
    standing = windows.spend(mine, cost, NOW)
    assert standing is not None
    return standing


def test_no_rates_no_limit_and_no_question(server: Valkey) -> None:
    windows = shared(server, refuse=True)
    server.stop()
    assert windows.spend(key(), 1, NOW) is None
    server.start()


def test_two_processes_share_a_window_and_what_is_refused_spends_nothing(server: Valkey) -> None:
    one, other = shared(server), shared(server)
    mine = key(Rate(3, DAY))
    assert [spend(each, mine, 1).remaining for each in (one, other, one)] == [2, 1, 0]
    refused = spend(other, mine, 1)
    assert (refused.allowed, refused.name) == (False, "key-day")
    assert 1 <= refused.reset <= DAY
    assert redis.from_url(plain_url(server.url)).get("latchkey:{1}:key:1:3/day") == b"3"


def test_a_window_begins_anew_when_it_was_said(server: Valkey) -> None:
    windows, mine = shared(server), key(Rate(2, SECOND))
    for _ in range(3):
        spend(windows, mine, 2)
        refused = spend(windows, mine, 1)
        if refused.allowed:  # the second ended between the two
            continue
        time.sleep(refused.reset)
        assert spend(windows, mine, 2).allowed


def test_nothing_is_left_behind_by_windows_that_ended(server: Valkey) -> None:
    windows = shared(server)
    spend(windows, key(Rate(2, SECOND), Rate(5, DAY)), 1)
    client = redis.from_url(plain_url(server.url))
    assert 0 < client.pttl("latchkey:{1}:key:1:2/second") <= 1000
    assert 0 < client.pttl("latchkey:{1}:key:1:5/day") <= DAY * 1000


@given(
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([HOUR, DAY])), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(1, 6), st.sampled_from([HOUR, DAY])), max_size=2),
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 4)), max_size=25),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_valkey_and_memory_decide_alike(
    server: Valkey,
    own: list[tuple[int, int]],
    common: list[tuple[int, int]],
    calls: list[tuple[int, int]],
) -> None:
    redis.from_url(plain_url(server.url)).flushall()
    there, here = shared(server), Windows()
    keys = {
        number: key(
            *(Rate(*rate) for rate in own), organization=tuple(Rate(*r) for r in common), number=number
        )
        for number in (1, 2)
    }
    began = int(time.time()) // HOUR
    pairs = [
        (there.spend(keys[number], cost, NOW), here.spend(keys[number], cost, time.time()))
        for number, cost in calls
    ]
    if int(time.time()) // HOUR != began:
        return  # the hour ended meanwhile, for one of the two a moment earlier
    for ours, theirs in pairs:
        assert ours is not None
        assert theirs is not None
        assert ours._replace(reset=0) == theirs._replace(reset=0)
        assert abs(ours.reset - theirs.reset) <= 1


def test_a_limit_of_a_hundred_lets_a_hundred_through(server: Valkey) -> None:
    """A thousand calls at once, from what would be two processes."""
    mine = key(Rate(100, DAY), Rate(100_000, DAY), organization=(Rate(5000, DAY),))
    allowed: list[bool] = []

    def work(windows: SharedWindows) -> None:
        allowed.extend(spend(windows, mine, 1).allowed for _ in range(125))

    processes = [shared(server), shared(server)]
    threads = [threading.Thread(target=work, args=(processes[n % 2],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(allowed), sum(allowed)) == (1000, 100)


def test_changed_rates_count_at_once(server: Valkey) -> None:
    windows = shared(server)
    assert spend(windows, key(Rate(1, DAY)), 1).allowed
    assert not spend(windows, key(Rate(1, DAY)), 1).allowed
    assert spend(windows, key(Rate(2, DAY)), 1).allowed


def test_a_restarted_valkey_is_used_again_without_an_error(server: Valkey) -> None:
    windows, mine = shared(server, refuse=True), key(Rate(9, DAY))
    spend(windows, mine, 1)
    server.stop()
    server.start()  # its scripts and windows are gone, our connection too
    assert spend(windows, mine, 1).remaining == 8
    assert windows.explain() == ("", False)


def test_without_valkey_each_process_counts_for_itself_if_so_chosen(server: Valkey) -> None:
    windows, mine = shared(server), key(Rate(2, DAY))
    spend(windows, mine, 1)
    server.stop()
    now = [windows.spend(mine, 1, NOW) for _ in range(3)]
    assert [each.allowed for each in now if each] == [True, True, False]
    assert windows.explain() == ("Valkey does not answer; each process counts rate windows of its own", False)
    server.start()
    _wait_until_back(windows)
    assert spend(windows, mine, 1).allowed


def test_without_valkey_calls_with_a_limit_are_refused_if_so_chosen(server: Valkey) -> None:
    windows = shared(server, refuse=True)
    server.stop()
    with pytest.raises(WindowsAway):
        windows.spend(key(Rate(2, DAY)), 1, NOW)
    text, refuses = windows.explain()
    assert "refused" in text
    assert refuses
    server.start()
    _wait_until_back(windows)
    assert spend(windows, key(Rate(2, DAY)), 1).allowed


def test_a_silent_valkey_holds_nobody_for_long(server: Valkey) -> None:
    windows, mine = shared(server), key(Rate(1000, DAY))
    spend(windows, mine, 1)
    server.pause()
    began = time.monotonic()
    for _ in range(200):
        spend(windows, mine, 1)
    # One call found it out; since then at most one a second has tried again. (This machine may be busy.)
    assert time.monotonic() - began < 40 * TIMEOUT
    server.go_on()
    _wait_until_back(windows)
    assert spend(windows, mine, 1).allowed


def test_an_answer_that_came_too_late_is_never_taken_for_the_next(server: Valkey) -> None:
    windows, mine, other = shared(server), key(Rate(1000, DAY)), key(Rate(5, MINUTE * 60 * 24), number=2)
    spend(windows, mine, 7)
    server.pause()
    spend(windows, mine, 1)
    server.go_on()
    _wait_until_back(windows)
    assert spend(windows, other, 1).remaining == 4


def test_an_error_of_valkeys_is_no_permission(server: Valkey) -> None:
    windows, mine = shared(server, refuse=True), key(Rate(5, DAY))
    redis.from_url(plain_url(server.url)).lpush("latchkey:{1}:key:1:5/day", "not a number")
    with pytest.raises(WindowsAway):
        windows.spend(mine, 1, NOW)


def test_a_password_in_the_url_stays_out_of_the_log(server: Valkey, caplog: pytest.LogCaptureFixture) -> None:
    server.stop()
    windows = SharedWindows("valkey://:hunter2secret@127.0.0.1:1/0", refuse_when_away=False)
    windows.spend(key(Rate(5, DAY)), 1, NOW)
    assert "Valkey does not answer" in caplog.text
    assert "hunter2secret" not in caplog.text
    server.start()


@pytest.mark.parametrize("url", ["", "valkey://", "http://valkey", "127.0.0.1:6379", "valkey://h:port"])
def test_what_is_no_valkey_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        plain_url(url)


def _wait_until_back(windows: SharedWindows) -> None:
    until(lambda: windows.explain() == ("", False), 10, why=windows.explain)
