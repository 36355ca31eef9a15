"""The decision alone, without a server: µs of this thread's own time, the steadiest figure of all.

`python -m tests.bench.inprocess` prints them as JSON. It needs nothing but an empty folder.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults import alone

ROUNDS, CALLS = 40, 2000


def microseconds(act: Callable[[], object]) -> float:
    """The quickest of many short rounds: whatever disturbs one only ever adds."""
    found = []
    for _ in range(ROUNDS):
        began = time.thread_time_ns()
        for _ in range(CALLS):
            act()
        found.append((time.thread_time_ns() - began) / CALLS)
    return min(found) / 1000


def figures() -> dict[str, float]:
    from keys import tokens
    from tests import builders
    from usage import gateway, metering

    acme = builders.organization("acme")
    scopes = ("orders:read",)
    plain = builders.key(acme, scopes=scopes).plaintext
    limited = builders.key(acme, scopes=scopes, rates=["1000000/second", "1000000000/hour"]).plaintext
    unknown = [tokens.mint("lk", "live").plaintext for _ in range(CALLS)]
    directory = metering.start()
    while not directory.ready:
        time.sleep(0.01)

    asked = metering.Call(scopes, "", 1, ("requests", "orders", "192.0.2.1", "bench"))

    def decision(credential: str) -> Callable[[], object]:
        return lambda: metering.decide_call(credential, asked, time.time())

    def call(*credentials: str) -> Callable[[], object]:
        """One after the other, again and again: of a flood no two are the same."""
        following = itertools.cycle([environ(credential) for credential in credentials]).__next__
        return lambda: gateway.answer(following())

    def environ(credential: str) -> dict[str, str]:
        return {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/gateway/authorize",
            "QUERY_STRING": "scope=orders:read&resource=orders",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_AUTHORIZATION": f"Bearer {credential}",
            "HTTP_USER_AGENT": "bench",
        }

    acts = {
        "decision": decision(plain),
        "decision, two windows": decision(limited),
        "gateway call": call(plain),
        "gateway call, two windows": call(limited),
        "gateway call, malformed": call("lk_live_nonsense"),
        "gateway call, unknown": call(*unknown),
    }
    try:
        return {name: round(microseconds(act), 2) for name, act in acts.items()}
    finally:
        metering.stop()


def main() -> None:
    if len(sys.argv) > 1:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    with alone.portal() as (_, folder):
        from django.conf import settings

        settings.USAGE_JOURNAL_DIR = Path(folder) / "journal"
        print(json.dumps(figures()))


if __name__ == "__main__":
    main()
