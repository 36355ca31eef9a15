"""The figures as a table, each beside what it must reach and what it should."""

import platform
import re
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.bench.load import Run

type Figures = dict[str, dict[str, float]]

README = Path(__file__).with_name("README.md")
_JOB = "djangorestframework-api-key, throttled and counted"


class Row(NamedTuple):
    """A figure, what it must reach and its goal; `most`: less is better."""

    name: str
    value: float
    must: float
    goal: float
    unit: str = ""
    most: bool = False

    @property
    def verdict(self) -> str:
        def reached(limit: float) -> bool:
            return self.value <= limit if self.most else self.value >= limit

        return "goal" if reached(self.goal) else "yes" if reached(self.must) else "**no**"


def medians(found: Mapping[str, list[Run]]) -> dict[str, float]:
    """Of each contender: `NAME` requests a second, `NAME/ratio` of the first's in the same round, `NAME/p99`
    ms, `NAME/cpu` µs a request."""
    result = {}
    first = next(iter(found.values()))
    for name, runs in found.items():
        result[name] = statistics.median(each.rate for each in runs)
        result[f"{name}/ratio"] = statistics.median(
            each.rate / other.rate for each, other in zip(runs, first, strict=True)
        )
        result[f"{name}/p99"] = statistics.median(each.p99 for each in runs)
        result[f"{name}/cpu"] = statistics.median(each.cpu for each in runs)
    return result


def rows(figures: Figures) -> list[Row]:
    """What the issue of the gateway asks for, as far as it was measured."""
    found = []
    if inside := figures.get("inprocess"):
        found += [
            Row("a decision in-process, warm: verify + journal", inside["decision"], 5, 4, "µs", most=True),
            Row("the same with two windows", inside["decision, two windows"], 9, 7, "µs", most=True),
        ]
    for database in ("SQLite", "PostgreSQL"):
        if counting := figures.get(f"metering, {database}"):
            found += _counting(counting, database)
    if one := figures.get("one"):
        found += [
            Row("allowed call, one worker, of the bare app", one["gateway, allowed/ratio"], 0.70, 0.78),
            Row(
                "with two windows in memory, of the bare app",
                *(one["gateway, two windows in memory/ratio"], 0.58, 0.66),
            ),
            Row("unknown keys (a flood), of bare", one["gateway, unknown keys/ratio"], 0.65, 0.75),
            Row("malformed keys (a flood), of bare", one["gateway, malformed keys/ratio"], 0.65, 0.75),
            Row("p99 of allowed calls", one["gateway, allowed/p99"], 3, 2, "ms", most=True),
        ]
    if others := figures.get("others"):
        memory, shared = others["gateway, two windows in memory"], others["gateway, two windows on Valkey"]
        found += [
            Row(
                "against djangorestframework-api-key, verification only",
                *(1 / others["djangorestframework-api-key/ratio"], 35, 45, "×"),
            ),
            Row("doing the same job: windows in memory", memory / others[_JOB], 45, 60, "×"),
            Row("doing the same job: windows on Valkey", shared / others[_JOB], 10, 15, "×"),
        ]
    if drain := figures.get("drain"):
        found.append(
            Row("answer + drain, CPU per call", drain["µs of CPU per call"], 30, 22, "µs", most=True)
        )
        found.append(
            Row("the drain is behind by, after the load", drain["seconds behind"], 3, 2, "s", most=True)
        )
    if pages := figures.get("pages"):
        found.append(
            Row("p99 while pages load", pages["gateway, while pages load/p99"], 12, 6, "ms", most=True)
        )
    if million := figures.get("million"):
        ratio = million["1 million keys, the same drawn/ratio"]
        found.append(Row("1 M keys against 1 k, the same keys drawn", ratio, 0.9, 0.95))
        kib = figures["memory"]["bytes per key"] / 1024
        found.append(Row("memory for each key", kib, 1.0, 0.6, "KiB", most=True))
    return found


def _counting(found: Mapping[str, float], database: str) -> list[Row]:
    """What the issue of metering asks for."""
    rows = [
        Row(f"drain on {database}, a record, {size} roll-ups", found[f"drain, a record, {size} roll-ups"],
            10, 10, "µs", most=True)
        for size in ("10 k", "1 M")
    ]  # fmt: skip
    memory, page = "drain, MiB more for ten times the records", "usage page, ms, 1 M roll-ups"
    rows += [
        Row(
            f"its memory on {database} for ten times the records", found[memory], 8, 2, "MiB more", most=True
        ),
        Row(f"the usage page's queries on {database}, 1 M roll-ups", found[page], 10, 10, "ms", most=True),
    ]
    if database == "SQLite":
        rows.insert(0, Row("a call in the journal", found["journal, a call"], 1.5, 1.5, "µs", most=True))
    return rows


def text(figures: Figures) -> str:
    """Two tables in Markdown: the promises, and everything that was measured."""
    lines = ["| figure | measured | must | goal | reached |", "|---|---|---|---|---|"]
    for row in rows(figures):
        sign = "≤" if row.most else "≥"
        value = f"{row.value:.3g}".removesuffix(".0")
        lines.append(
            f"| {row.name} | {value} {row.unit} | {sign} {row.must:g} | {sign} {row.goal:g} | {row.verdict} |"
        )
    for part, title in (
        ("one", "One worker"),
        ("others", "Others"),
        ("two", "Two workers"),
        ("million", "A million keys"),
        ("pages", "Pages"),
    ):
        if found := figures.get(part):
            lines += ["", f"| {title} | of the first | p99, ms | CPU per call, µs |", "|---|---|---|---|"]
            for name in found:
                if f"{name}/ratio" in found:
                    ratio, p99, cpu = (found[f"{name}/{each}"] for each in ("ratio", "p99", "cpu"))
                    lines.append(f"| {name} | {ratio:.3f} | {p99:.2f} | {cpu:.1f} |")
    for part in ("metering, SQLite", "metering, PostgreSQL"):
        if found := figures.get(part):
            lines += ["", f"| {part.capitalize()} | µs, if nothing else is said |", "|---|---|"]
            lines += [f"| {name} | {value:.2f} |" for name, value in found.items()]
    if inside := figures.get("inprocess"):
        lines += ["", "| In-process | µs |", "|---|---|"]
        lines += [f"| {name} | {value:.2f} |" for name, value in inside.items()]
    return "\n".join(lines)


def write(figures: Figures) -> None:
    """Put the tables into the README beside this module."""
    when = datetime.now(UTC).strftime("%Y-%m-%d")
    where = (
        f"Measured on {when} with CPython {platform.python_version()} on two processors that others share."
    )
    replace("figures", f"{where}\n\n{text(figures)}")


def replace(name: str, body: str, into: Path = README) -> None:
    """Put a text between the marks of this name in the README beside this module, or another file."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = into.read_text()
    into.write_text(re.sub(f"{begin}.*?{end}", lambda _: f"{begin}\n{body}\n{end}", old, flags=re.DOTALL))
