"""What staff define: each act once, audited, and nothing that was counted ever changed by it."""

from typing import Any

import pytest

from keys import audit
from keys.audit import Actor
from keys.lifecycle import Conflict, Forbidden, Invalid, command_actor
from keys.models import AuditEvent
from keys.permissions import Role
from tests.builders import NOW, meter
from tests.keys.test_commands import Ran
from tests.threads import at_once
from usage import definitions
from usage.models import Meter

pytestmark = pytest.mark.django_db

TOKENS: dict[str, Any] = {"slug": "tokens", "unit": "token", "title": "Tokens"}


def acts() -> list[str]:
    return list(AuditEvent.objects.order_by("number").values_list("act", flat=True))


def test_every_act_is_in_the_audit() -> None:
    tokens = meter("tokens", unit="token", title="Tokens", decimals=3)
    definitions.edit_meter(command_actor(), tokens, title="Model tokens", now=NOW)
    definitions.archive_meter(command_actor(), tokens, now=NOW)

    events = AuditEvent.objects.order_by("number")
    assert [(event.act, event.data) for event in events] == [
        (
            "meter.created",
            {"meter": "tokens", "title": "Tokens", "unit": "token", "aggregation": "sum", "decimals": 3},
        ),
        ("meter.changed", {"meter": "tokens", "changes": {"title": ["Tokens", "Model tokens"]}}),
        ("meter.archived", {"meter": "tokens"}),
    ]
    assert list(audit.broken_links()) == []


def test_an_act_that_changes_nothing_is_none() -> None:
    tokens = meter("tokens")
    definitions.edit_meter(command_actor(), tokens, title=f" {tokens.title} ", now=NOW)
    definitions.archive_meter(command_actor(), tokens, now=NOW)
    definitions.archive_meter(command_actor(), tokens, now=NOW)
    assert acts() == ["meter.created", "meter.archived"]


def test_only_staff_define_meters() -> None:
    tokens = meter("tokens")
    member = Actor("user", "alice", 1, 1, Role.OWNER)
    with pytest.raises(Forbidden):
        definitions.create_meter(member, slug="hours", unit="hour", title="Hours", now=NOW)
    with pytest.raises(Forbidden):
        definitions.edit_meter(member, tokens, title="Mine", now=NOW)
    with pytest.raises(Forbidden):
        definitions.archive_meter(member, tokens, now=NOW)
    assert acts() == ["meter.created"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        *(({"slug": slug}, "slug") for slug in ("", "Tokens", "a b", "a\0", "\ud800", "a" * 2**20, 5, None)),
        *(({"unit": unit}, "unit") for unit in ("", " ", "a\0b", "\ud800", "u" * 41, "u" * 2**20, 5)),
        *(({"title": title}, "title") for title in ("", "a\nb", "t" * 101, None)),
        ({"unit": "lk_live_" + "a" * 38}, "unit"),
        ({"aggregation": "max"}, "aggregation"),
        ({"aggregation": None}, "aggregation"),
        *(({"decimals": decimals}, "decimals") for decimals in (-1, 7, "3", 1.0, True, None)),
        ({"aggregation": "count", "decimals": 1}, "decimals"),
    ],
)
def test_what_cannot_define_a_meter_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refused:
        definitions.create_meter(command_actor(), **TOKENS | fields, now=NOW)
    assert refused.value.field == field
    assert not Meter.objects.exists()


@pytest.mark.parametrize("slug", ["tokens", "requests"])
def test_a_slug_is_taken_once(slug: str) -> None:
    meter("tokens")
    with pytest.raises(Conflict):
        meter(slug)
    assert acts() == ["meter.created"]


@pytest.mark.django_db(transaction=True)
def test_made_four_times_at_once_it_is_made_once() -> None:
    outcomes = at_once([lambda: meter("tokens")] * 4)
    assert sorted(type(each).__name__ for each in outcomes) == ["Conflict", "Conflict", "Conflict", "Meter"]
    assert acts() == ["meter.created"]


# --- the command ----------------------------------------------------------------------------------


def test_create_meter_makes_it_once_and_then_changes_only_the_title() -> None:
    command = ("create_meter", "gpu-hours", "--unit", "hour", "--decimals", "3", "--title")
    first, again, renamed = Ran(*command, "Hours"), Ran(*command, "Hours"), Ran(*command, "GPU hours")

    assert (first.status, again.status, renamed.status) == (0, 0, 0)
    assert (first.out, again.out) == ("", "")
    assert "Created the meter gpu-hours" in first.err
    assert "exists already" in again.err
    assert "title was changed" in renamed.err
    assert acts() == ["meter.created", "meter.changed"]


@pytest.mark.parametrize(
    "other", [("--unit", "minute"), ("--decimals", "2"), ("--aggregation", "count", "--decimals", "0")]
)
def test_create_meter_refuses_another_definition(other: tuple[str, ...]) -> None:
    meter("hours", unit="hour", decimals=3)
    ran = Ran("create_meter", "hours", "--unit", "hour", "--title", "Hours", "--decimals", "3", *other)
    assert ran.status == 1
    assert "never changes" in ran.err
    assert acts() == ["meter.created"]


def test_create_meter_refuses_one_that_is_archived_or_built_in() -> None:
    definitions.archive_meter(command_actor(), meter("tokens"), now=NOW)
    archived = Ran("create_meter", "tokens", "--unit", "token", "--title", "Tokens")
    built_in = Ran("create_meter", "requests", "--unit", "request", "--title", "Requests")
    assert (archived.status, built_in.status) == (1, 1)
    assert "archived" in archived.err
    assert "built in" in built_in.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("Tokens", "--unit", "token", "--title", "Tokens"),
        ("tokens", "--unit", "token", "--title", ""),
        ("tokens", "--unit", "token", "--title", "Tokens", "--decimals", "7"),
        ("tokens", "--unit", "token", "--title", "Tokens", "--decimals", "x"),
        ("tokens", "--unit", "token", "--title", "Tokens", "--aggregation", "max"),
        ("tokens", "--title", "Tokens"),
        ("tokens\0", "--unit", "token", "--title", "Tokens"),
    ],
)
def test_create_meter_with_bad_arguments_makes_nothing(arguments: tuple[str, ...]) -> None:
    assert Ran("create_meter", *arguments).status != 0
    assert not Meter.objects.exists()
