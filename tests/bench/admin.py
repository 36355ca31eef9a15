"""What staff's pages cost when every list has 100,000 rows: queries and time, of every way to ask for them.

`python -m tests.bench.admin [DATABASE_URL] [--rows N] [--rollups N]` asks each list of the admin as it comes,
by each column, with each filter and with searches, its autocompletions and forms, and every page below
/staff/. It does so in this process, on the empty PostgreSQL that is named or on one of its own, with a
hundredth of the rows and then with all of them, prints a table and writes it into `admin.md` beside it.
"""

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from tests.bench import admin_data, report
from tests.bench.pages import Cost, costs
from tests.faults import alone
from tests.faults.postgres import Postgres

if TYPE_CHECKING:
    from django.test import Client

ROUNDS = 3
SMALL = 100  # of the rows, that are there first
MUST_QUERIES, MUST_MS = 15, 150
CHOICES = 4  # of a filter: the first ones
SEARCHES = {"a few": "777", "all": "e", "none": "no such thing"}
STAFF = {
    "the admin's index": "/admin/",
    "overview": "/staff/",
    "usage": "/staff/usage/",
    "usage of a customer": "/staff/usage/?organization=customer-7",
    "refusals": "/staff/refusals/",
    "refusals, by code": "/staff/refusals/?code=REVOKED",
    "refusals of a key": f"/staff/refusals/?key=key_{7:016}",
    "leaks": "/staff/leaks/",
    "leaks of a key": f"/staff/leaks/key_{7:016}/",
    "billing": "/staff/billing/",
    "attention": "/staff/attention/",
    "requests": "/staff/requests/",
    "outside policy": "/staff/outside-policy/?policy=policy-7",
    "trials": "/staff/trials/",
    "a trial": f"/staff/trials/{admin_data.BASE + 10}/",
    "find a key": "/staff/find-key/",
    "visit": "/staff/visit/customer-7/",
}


class Worst(NamedTuple):
    """Of all the ways to ask for one list."""

    ways: int
    queries: int  # at most
    grew: int  # ways that took more queries than with few rows
    plain: float  # ms as it comes
    slowest: float  # ms
    way: str  # the slowest


def ways(browser: "Client", url: str) -> Iterator[tuple[str, str]]:
    """Everything that a list can be asked: a name, and what its address has then."""
    page: Any = browser.get(url)  # a TemplateResponse
    found = page.context_data["cl"]
    yield "as it comes", ""
    yield "the last page", "?" + urlencode({"p": min(found.paginator.num_pages, 200)})
    for number, name in enumerate(found.list_display):
        if name in found.sortable_by and found.get_ordering_field(name):
            yield f"by {name}", f"?o={number}"
            yield f"by {name}, the last first", f"?o=-{number}"
    for each in found.filter_specs:
        choices = [choice["query_string"] for choice in each.choices(found) if choice.get("query_string")]
        for number, query in enumerate(choices[1 : CHOICES + 1]):
            yield f"{each.title}, choice {number + 1}", query
        if not choices:
            yield f"of an {each.title}", "?organization=customer-7"
    if found.date_hierarchy:
        yield "one month", f"?{found.date_hierarchy}__year=2026&{found.date_hierarchy}__month=10"
    if found.search_fields:
        for name, text in SEARCHES.items():
            yield f"a search, {name}", "?" + urlencode({"q": text})


def questions(browser: "Client") -> dict[str, dict[str, str]]:
    """Of each list the ways to ask it; and each of the other pages."""
    from django.contrib import admin
    from django.urls import reverse

    found: dict[str, dict[str, str]] = {}
    for model, of in admin.site._registry.items():
        name = f"{model._meta.app_label}_{model._meta.model_name}"
        url = reverse(f"admin:{name}_changelist")
        asked = {way: url + query for way, query in ways(browser, url)}
        for field in of.autocomplete_fields:
            query = {"app_label": model._meta.app_label, "model_name": model._meta.model_name}
            asked[f"choosing its {field}"] = (
                reverse("admin:autocomplete") + "?" + urlencode(query | {"field_name": field, "term": "77"})
            )
        row = model._default_manager.order_by("-pk").first()
        if row is not None:
            asked["its newest row"] = reverse(f"admin:{name}_change", args=[row.pk])
        found[str(model._meta.verbose_name_plural)] = asked
    for name, url in STAFF.items():
        found[f"/staff/: {name}" if url.startswith("/staff/") else name] = {"as it comes": url}
    return found


def table(
    few: Mapping[str, Mapping[str, Cost]], many: Mapping[str, Mapping[str, Cost]], rows: int, rollups: int
) -> str:
    """The figures in Markdown; what misses its limit stands out."""
    lines = [
        f"| {rows:,} rows, {rollups:,} roll-ups | ways | that grew | queries (≤ {MUST_QUERIES}) "
        f"| as it comes, ms | slowest, ms (≤ {MUST_MS}) | which |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, ways in many.items():
        worst = worst_of(few.get(name, {}), ways)
        lines.append(
            f"| {name} | {worst.ways} | {worst.grew} | {_shown(worst.queries, MUST_QUERIES)} "
            f"| {worst.plain:.0f} | {_shown(worst.slowest, MUST_MS)} | {worst.way} |"
        )
    return "\n".join(lines)


def worst_of(few: Mapping[str, Cost], many: Mapping[str, Cost]) -> Worst:
    way, slowest = max(many.items(), key=lambda each: each[1].server)
    return Worst(
        ways=len(many),
        queries=max(each.queries for each in many.values()),
        grew=sum(each.queries > few[name].queries for name, each in many.items() if name in few),
        plain=many["as it comes"].server,
        slowest=slowest.server,
        way=way,
    )


def _shown(value: float, most: int) -> str:
    return f"{value:.0f}" if value <= most else f"**{value:.0f}**"


def ask(browser: "Client", rounds: int, only: str) -> dict[str, dict[str, Cost]]:
    return {name: costs(browser, asked, rounds) for name, asked in questions(browser).items() if only in name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rollups", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--only", default="", help="pages with this in their name; nothing is written")
    parser.add_argument("--each", action="store_true", help="print every way to ask, too")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        url = options.url or stack.enter_context(Postgres()).url
        stack.enter_context(alone.portal(url))
        browser = _staff()
        admin_data.fill(1, options.rows // SMALL)
        few = ask(browser, 1, options.only)
        admin_data.fill(options.rows // SMALL + 1, options.rows)
        admin_data.rollups(options.rollups, options.rows)
        many = ask(browser, options.rounds, options.only)
    if options.each:
        for name, ways in many.items():
            for way, each in ways.items():
                print(f"{name}, {way}: {each.queries} queries, {each.database:.0f} of {each.server:.0f} ms")
    found = table(few, many, options.rows, options.rollups)
    print(found)
    if not options.only:
        report.replace("admin", found, report.README.with_name("admin.md"))


def _staff() -> Any:
    from django.test import Client

    from tests import builders

    return builders.signed_in(Client(SERVER_NAME="localhost"), builders.staff())


if __name__ == "__main__":
    main()
