"""Pages take turns at computing, and one that hangs holds nobody for long."""

import threading
import time

import pytest

from portal import turns


def test_quick_pages_run_one_after_another() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def page() -> None:
        nonlocal running, most
        with turns.one():
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.005)  # what a page takes
            with lock:
                running -= 1

    threads = [threading.Thread(target=page) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_page_that_hangs_lets_the_others_pass_and_its_turn_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.01)
    with turns.one():
        passed = threading.Thread(target=_take_a_turn)
        passed.start()
        passed.join(5)
        assert not passed.is_alive()
    began = time.monotonic()
    monkeypatch.setattr(turns, "WAIT_SECONDS", 30.0)
    _take_a_turn()
    assert time.monotonic() - began < 10


def _take_a_turn() -> None:
    with turns.one():
        pass
