"""Audit events in plain words: every act has a title, and nothing that it does not know makes it fail."""

import datetime as dt
import re
from typing import Any

import pytest
from django.conf import settings

from keys import history
from keys.models import AuditEvent
from tests import builders

pytestmark = pytest.mark.django_db


def entry(act: str, **data: Any) -> history.Entry:
    event = AuditEvent(
        number=1, at=builders.NOW, act=act, actor_kind="user", actor_label="alice@example.com", data=data
    )
    return history.entries([event])[0]


def words(found: history.Entry) -> dict[str, str]:
    return {detail.label: " → ".join(value.text for value in detail.values) for detail in found.details}


def test_every_act_of_lifecycle_on_an_organization_has_a_title() -> None:
    paths = [
        *(settings.BASE_DIR / "keys" / "lifecycle").glob("*.py"),
        *(settings.BASE_DIR / "usage").rglob("*.py"),
    ]
    sources = "".join(path.read_text() for path in paths)
    of = "key|member|organization|spool|finding|subscription|period|billing_alert|trial"
    acts = set(re.findall(rf'"((?:{of})\.[a-z_]+)"', sources))
    assert acts
    assert acts == set(history.TITLES)


def test_an_edit_is_told_as_before_and_after() -> None:
    found = entry(
        "key.edited",
        changes={"name": ["A", "B"], "scopes": [["a:b"], ["a:b", "c:d"]], "networks": [[], ["10.0.0.0/8"]]},
    )
    assert words(found) == {
        "Name": "A → B",
        "Scopes": "a:b → a:b, c:d",
        "Allowed networks": "anywhere → 10.0.0.0/8",
    }


def test_limits_have_commas_on_pages_and_none_in_the_text_of_files() -> None:
    found = entry("key.edited", changes={"quotas": [["5000/day"], ["10000 tokens/month", "200/day"]]})
    (detail,) = found.details
    assert [value.text for value in detail.values] == ["5000/day", "10000 tokens/month, 200/day"]
    assert [value.shown for value in detail.values] == ["5,000/day", "10,000 tokens/month, 200/day"]
    (name,) = entry("key.edited", changes={"name": ["A", "5000/day"]}).details
    assert not any(value.shown for value in name.values)


def test_moments_are_left_to_the_time_component() -> None:
    found = entry("key.edited", changes={"expires_at": [None, "2026-07-01T00:00:00+00:00"]})
    (detail,) = found.details
    assert [value.at for value in detail.values] == [None, dt.datetime(2026, 7, 1, tzinfo=dt.UTC)]
    assert detail.values[0].text == "never"


@pytest.mark.parametrize(
    "data",
    [
        {"unheard_of": {"a": [1, None]}},
        {"expires_at": "not a date", "scopes": "text", "role": 7, "metadata": [1]},
        {"changes": {"name": "not a pair", "no_such_field": [1, 2]}},
    ],
)
def test_what_it_does_not_know_makes_no_error(data: dict[str, Any]) -> None:
    assert entry("key.sublimated", **data).title == "Key sublimated"


def test_staff_and_commands_are_told_apart_from_members() -> None:
    event = AuditEvent(number=1, at=builders.NOW, act="key.revoked", actor_kind="staff", actor_label="sam")
    assert history.entries([event])[0].actor == "sam (staff)"
