"""Load by wrk, and what a server spent on it."""

import os
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.server import descendants

CONNECTIONS = 64  # fewer make a bare server's figure meaningless: its threads thrash
_TICK = os.sysconf("SC_CLK_TCK")

# Every request is made beforehand. `skew` 1 draws all alike; 4 gives a tenth of the keys more than half.
_SCRIPT = """
local requests = {}
function init(args)
  for line in io.lines("%(credentials)s") do
    local headers = {%(headers)s}
    local body = nil
    if [[%(body)s]] ~= "" then body = string.gsub([[%(body)s]], "KEY", line) end
    if "%(carry)s" ~= "" then headers["%(carry)s"] = "%(before)s" .. line end
    requests[#requests + 1] = wrk.format("%(method)s", "%(path)s", headers, body)
  end
  math.randomseed(%(seed)d)
end
function request()
  return requests[1 + math.floor(#requests * math.random() ^ %(skew)d)]
end
"""


@dataclass(frozen=True)
class Requests:
    """What is asked: each line of `credentials` is one client's, in the header `carry` behind `before`, or
    in place of KEY in `body`."""

    path: str
    credentials: Path
    carry: str = "Authorization"
    before: str = "Bearer "
    method: str = "GET"
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    skew: int = 1
    connections: int = CONNECTIONS

    def script(self, seed: int) -> str:
        headers = ", ".join(f'["{name}"]="{value}"' for name, value in self.headers)
        return _SCRIPT % {**vars(self), "headers": headers, "seed": seed}


@dataclass(frozen=True)
class Run:
    """One run of wrk: requests a second, the 99th percentile (ms), answers that were no 2xx, and the server's
    CPU time for a request (µs)."""

    rate: float
    p99: float
    refused: int
    total: int
    cpu: float


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICK


def resident_bytes(pid: int) -> int:
    """What the process holds in memory of its own: anonymous pages, no files and no maps of them."""
    return int(re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024  # type: ignore[index]  # Linux has it


def family(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def run(port: int, asked: Requests, folder: Path, pid: int, *, seconds: int, cpus: str, seed: int = 1) -> Run:
    """Ask the server of process `pid` for so many seconds, with wrk on these processors."""
    script = folder / "wrk.lua"
    script.write_text(asked.script(seed))
    served = family(pid)
    before = cpu_seconds(served)
    wrk = ["wrk", "-t1", f"-c{asked.connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
    done = subprocess.run(
        ["taskset", "-c", cpus, *wrk, f"http://127.0.0.1:{port}{asked.path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    spent = cpu_seconds(served) - before
    text = done.stdout
    if "Socket errors" in text:
        raise AssertionError(f"The server did not answer all:\n{text}")
    total = int(_find(r"(\d+) requests in", text))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return Run(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        p99=_milliseconds(_find(r"\n\s+99%\s+(\S+)", text)),
        refused=int(refused[1]) if refused else 0,
        total=total,
        cpu=spent / max(total, 1) * 1e6,
    )


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise AssertionError(f"wrk printed no {pattern}:\n{text}")
    return found[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]  # wrk's own form
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]
