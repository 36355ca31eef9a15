"""Every ratio that the gateway promises, measured in one run: `uv run --group bench python -m tests.bench`.

It takes about twenty minutes and wants two processors for itself, and wrk (Debian's package). The tables go
into the README beside it. `--quick` tries in a minute that all of it still works; its figures mean nothing.
`--only` names parts.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from tests import valkey
from tests.bench import report
from tests.bench.environment import environment
from tests.bench.load import Requests, Run, cpu_seconds, family, resident_bytes, run
from tests.bench.servers import Host, another_database, pinned, prepare_peers, sql
from tests.faults.postgres import Postgres
from tests.faults.server import Server, descendants

RULE = "/gateway/authorize?scope=orders:read&resource=orders"
VERIFY = '{"key":"KEY","scopes":["orders:read"],"resource":"orders"}'
OUR_JOBS = ("gateway, allowed", "gateway, two windows in memory", "gateway, two windows on Valkey")
PARTS = ("inprocess", "metering", "one", "two", "million", "drain", "pages")
SMALL, LARGE = 1000, 1_000_000
LOADING_SECONDS = 300.0  # for a million keys


class Contender(NamedTuple):
    """A name in the report, a server, what it is asked, and how many of its answers should be no 2xx."""

    name: str
    server: Server
    asked: Requests
    refuses: bool = False


class Bench:
    """The databases, the credentials, and a stack of what must be ended."""

    def __init__(self, stack: ExitStack, *, seconds: int, rounds: int, large: int) -> None:
        self.stack = stack
        self.seconds, self.rounds, self.large = seconds, rounds, large
        self.folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="latchkey-bench-", dir="/var/tmp"))
        )
        self.postgres = stack.enter_context(Postgres())
        self.valkey = stack.enter_context(valkey.running(self.folder))
        self.figures: report.Figures = {}
        self.peers: dict[str, str] = {}  # their server's environment
        self.drained = 0  # calls that are in the roll-ups
        self._folders = 0

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def data(self, name: str, keys: int) -> Path:
        """A database of this name with so many keys; the folder with what clients send."""
        folder = self.folder / name
        if not folder.exists():
            self.say(f"Filling a database with {keys:,} keys")
            folder.mkdir()
            sql(self.postgres.url, f"CREATE DATABASE {name}")
            url = another_database(self.postgres.url, name)
            subprocess.run(
                [sys.executable, "-m", "tests.bench.data", url, str(keys), str(folder)], check=True
            )
        return folder

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """For a server of Latchkey on that database, with a journal of its own."""
        self._folders += 1
        journal = self.folder / f"journal{self._folders}"
        url = another_database(self.postgres.url, name)
        return environment(DATABASE_URL=url, USAGE_JOURNAL_DIR=str(journal), **more)

    def start(self, make: Callable[[], Server], cpus: str = "0") -> Server:
        with pinned(cpus):
            return self.stack.enter_context(make())

    def latchkey(self, name: str, *options: str, cpus: str = "0", drain: bool = False, **more: str) -> Server:
        chosen = self.environment(name, **more)
        log = self.folder / f"log{self._folders}"
        if not drain:
            options = ("--no-worker", *options)

        def make() -> Server:
            server = Server(chosen, *options, log=log)
            server.ready_seconds = LOADING_SECONDS
            return server

        return self.start(make, cpus)

    def host(self, target: str, others: dict[str, str] | None = None, *, workers: int = 1, cpus: str = "0",
             threads: int | None = None) -> Server:  # fmt: skip
        self._folders += 1
        log = self.folder / f"log{self._folders}"
        chosen = environment() if others is None else others
        return self.start(lambda: Host(chosen, target, log=log, workers=workers, threads=threads), cpus)

    def interleave(self, contenders: list[Contender], cpus: str = "1") -> dict[str, list[Run]]:
        """Each for a second, in turn, so that a slow minute of the machine is everyone's."""
        found: dict[str, list[Run]] = defaultdict(list)
        rounds = self.rounds * self.seconds
        # One round more warms up, but for --quick, whose only one means nothing anyway.
        for number in range(-1 if rounds > 1 else 0, rounds):
            for each in contenders:
                done = run(
                    each.server.port, each.asked, self.folder, each.server.process.pid,
                    seconds=1, cpus=cpus, seed=number + 2,
                )  # fmt: skip
                assert done.refused == (done.total if each.refuses else 0), (each.name, done)
                if number >= 0:
                    found[each.name].append(done)
            self.say(f"  round {number + 1} of {rounds}")
        return found


def _gateway(credentials: Path, **more: object) -> Requests:
    return Requests(RULE, credentials, **more)  # type: ignore[arg-type]  # fields of Requests


def bare_and_controls(bench: Bench, keys: Path, workers: int = 1, cpus: str = "0") -> Iterator[Contender]:
    for name in ("application", "spin_2", "spin_5", "spin_10")[: 4 if workers == 1 else 1]:
        label = "bare" if name == "application" else f"bare + {name[5:]} µs"
        server = bench.host(f"tests.bench.bare:{name}", workers=workers, cpus=cpus)
        yield Contender(label, server, _gateway(keys / "keys"))


def peers(bench: Bench, workers: int = 1, cpus: str = "0") -> Iterator[Contender]:
    folder = bench.folder / "peers"
    if not folder.exists():
        folder.mkdir()
        sql(bench.postgres.url, "CREATE DATABASE peers")
        bench.peers = prepare_peers(another_database(bench.postgres.url, "peers"), bench.valkey.url, folder)
    # Eight threads serve them best: more only wait for each other.
    server = bench.host(
        "tests.bench.peers.wsgi:application", bench.peers, workers=workers, cpus=cpus, threads=8
    )
    for name, path, credentials in (
        ("djangorestframework-api-key", "/api-key", "api-key"),
        ("djangorestframework-api-key, throttled and counted", "/api-key-job", "api-key"),
        ("django-rest-knox", "/knox", "knox"),
        ("django-oauth-toolkit", "/oauth", "oauth"),
    )[: 4 if workers == 1 else 2]:
        yield Contender(name, server, Requests(path, folder / credentials, before=""))


def part_inprocess(bench: Bench) -> None:
    """The decision alone."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(bench.rounds):
        done = subprocess.run(
            [sys.executable, "-m", "tests.bench.inprocess", "0"], capture_output=True, text=True, check=True
        )
        for name, value in json.loads(done.stdout).items():
            found[name].append(value)
    bench.figures["inprocess"] = {name: statistics.median(values) for name, values in found.items()}


def part_metering(bench: Bench) -> None:
    """Journal, drain and the usage page, with few and many roll-ups, on both databases."""
    sql(bench.postgres.url, "CREATE DATABASE metering")
    for name, url in (("SQLite", ""), ("PostgreSQL", another_database(bench.postgres.url, "metering"))):
        records = 100_000 if bench.large == LARGE else 2000
        command = [sys.executable, "-m", "tests.bench.metering", url]
        command += ["--large", str(bench.large), "--records", str(records)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        bench.figures[f"metering, {name}"] = json.loads(done.stdout)


def part_one(bench: Bench) -> None:
    """One worker: the gateway in all its moods, and its peers."""
    keys = bench.data("small", SMALL)
    with ExitStack() as bench.stack:
        gateway = bench.latchkey("small")
        shared = bench.latchkey("small", VALKEY_URL=bench.valkey.url)
        power = bench.latchkey("small", USAGE_DURABILITY="power")
        verifier = (keys / "verifier").read_text().strip()
        body = Requests(
            "/v1/keys/verify", keys / "keys", carry="", method="POST",
            body=VERIFY,
            connections=16,  # it takes no more at once
            headers=(("Authorization", f"Bearer {verifier}"), ("Content-Type", "application/json")),
        )  # fmt: skip
        contenders = [
            *bare_and_controls(bench, keys),
            Contender("gateway, allowed", gateway, _gateway(keys / "keys")),
            Contender("gateway, two windows in memory", gateway, _gateway(keys / "limited")),
            Contender("gateway, two windows on Valkey", shared, _gateway(keys / "limited")),
            Contender("gateway, USAGE_DURABILITY=power", power, _gateway(keys / "keys")),
            Contender(
                "gateway, refused for a scope", gateway,
                Requests("/gateway/authorize?scope=orders:write", keys / "keys"), refuses=True,
            ),
            Contender("gateway, unknown keys", gateway, _gateway(keys / "unknown"), refuses=True),
            Contender("gateway, malformed keys", gateway, _gateway(keys / "malformed"), refuses=True),
            Contender("POST /v1/keys/verify", gateway, body),
        ]  # fmt: skip
        bench.figures["one"] = report.medians(bench.interleave(contenders))
        gateways = [each for each in contenders if each.name in OUR_JOBS]
        bench.figures["others"] = report.medians(bench.interleave([*gateways, *peers(bench)]))


def part_two(bench: Bench) -> None:
    """Two workers, with both processors for them and for the load."""
    keys = bench.data("small", SMALL)
    with ExitStack() as bench.stack:
        gateway = bench.latchkey("small", "--workers", "2", cpus="0,1")
        shared = bench.latchkey("small", "--workers", "2", cpus="0,1", VALKEY_URL=bench.valkey.url)
        contenders = [
            *bare_and_controls(bench, keys, 2, "0,1"),
            Contender("gateway, allowed", gateway, _gateway(keys / "keys")),
            Contender("gateway, two windows in memory", gateway, _gateway(keys / "limited")),
            Contender("gateway, two windows on Valkey", shared, _gateway(keys / "limited")),
            *peers(bench, 2, "0,1"),
        ]
        bench.figures["two"] = report.medians(bench.interleave(contenders, "0,1"))


def part_million(bench: Bench) -> None:
    """A million keys against a thousand: the same keys drawn, then all of them, evenly and not."""
    small, large = bench.data("small", SMALL), bench.data("large", bench.large)
    same = large / "same"  # the same seed made them: the large database's first are the small one's
    same.write_text("".join((small / "keys").read_text().splitlines(keepends=True)))
    with ExitStack() as bench.stack:
        few = bench.latchkey("small", "--role", "gateway")
        many = bench.latchkey("large", "--role", "gateway")
        contenders = [
            Contender("1 thousand keys", few, _gateway(same)),
            Contender("1 million keys, the same drawn", many, _gateway(same)),
            Contender("1 million keys, all drawn evenly", many, _gateway(large / "keys")),
            Contender("1 million keys, drawn skewed", many, _gateway(large / "keys", skew=4)),
        ]
        bench.figures["million"] = report.medians(bench.interleave(contenders))
        grown = resident_bytes(_serving(many)) - resident_bytes(_serving(few))
        bench.figures["memory"] = {"bytes per key": grown / (bench.large - SMALL)}


def part_drain(bench: Bench) -> None:
    """Answer and drain on one processor: CPU time for a call, and how long the drain is behind."""
    keys = bench.data("small", SMALL)
    costs, behind = [], []
    with ExitStack() as bench.stack:
        server = bench.latchkey("small", drain=True)
        everyone = family(server.process.pid)
        for number in range(bench.rounds):
            before = cpu_seconds(everyone)
            done = run(
                server.port, _gateway(keys / "keys"), bench.folder, server.process.pid,
                seconds=bench.seconds * 2, cpus="1", seed=number,
            )  # fmt: skip
            began = monotonic()
            _wait_until_drained(bench, done.total)
            behind.append(monotonic() - began)
            costs.append((cpu_seconds(everyone) - before) / done.total * 1e6)
    bench.figures["drain"] = {
        "µs of CPU per call": statistics.median(costs),
        "seconds behind": statistics.median(behind),
    }


def part_pages(bench: Bench) -> None:
    """The gateway's 99th percentile, alone and while four browsers load pages from the same process."""
    keys = bench.data("small", SMALL)
    page = Requests("/o/customer-0/keys/", keys / "session", carry="Cookie", before="", connections=4)
    found: dict[str, list[Run]] = defaultdict(list)
    with ExitStack() as bench.stack:
        server = bench.latchkey("small")
        pid = server.process.pid

        def calls(seed: int) -> Run:
            asked = _gateway(keys / "keys")
            return run(server.port, asked, bench.folder, pid, seconds=bench.seconds, cpus="1", seed=seed)

        def load_pages() -> Run:
            return run(server.port, page, keys, pid, seconds=bench.seconds + 2, cpus="1")

        for number in range(bench.rounds):
            found["gateway, alone"].append(calls(number))
            with ThreadPoolExecutor(1) as browsers:
                pages = browsers.submit(load_pages)
                sleep(1)
                found["gateway, while pages load"].append(calls(number))
            assert pages.result().refused == 0 < pages.result().total
            found["the pages"].append(pages.result())
    bench.figures["pages"] = report.medians(found)


def _serving(server: Server) -> int:
    """The one process that answers: the child with the most memory."""
    return max(descendants(server.process.pid), key=resident_bytes)


def _wait_until_drained(bench: Bench, calls: int) -> None:
    """Until as many calls are in the roll-ups as were answered since the last time."""
    deadline = monotonic() + 60
    bench.drained += calls
    url = another_database(bench.postgres.url, "small")
    while sql(url, "SELECT coalesce(sum(calls), 0) FROM usage_rollup")[0][0] < bench.drained:
        assert monotonic() < deadline, "The drain does not keep up."
        sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--seconds", type=int, default=3, help="of load in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="of figures: parts that it has are kept")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds = 1, 1
    with ExitStack() as stack:
        bench = Bench(
            stack, seconds=options.seconds, rounds=options.rounds, large=20_000 if options.quick else LARGE
        )
        if options.keep and options.keep.exists():
            bench.figures.update(json.loads(options.keep.read_text()))
        for part in options.only:
            bench.say(f"{part}: {globals()[f'part_{part}'].__doc__}")
            globals()[f"part_{part}"](bench)
            if options.keep:
                options.keep.write_text(json.dumps(bench.figures))
    print(report.text(bench.figures))
    measured = {name.partition(",")[0] for name in bench.figures}
    if not options.quick and set(PARTS) <= measured:
        report.write(bench.figures)


if __name__ == "__main__":
    main()
