"""Meters in the admin: each change one audited act, and what was counted out of reach."""

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from keys.models import AuditEvent
from portal.models import User
from tests import builders
from tests.builders import text
from tests.keys.admin_forms import one_act
from usage.models import Meter

pytestmark = pytest.mark.django_db

HOURS = {"slug": "gpu-hours", "title": "GPU hours", "unit": "hour", "aggregation": "sum", "decimals": "3"}


def page(name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:usage_meter_{name}", args=args)


def test_a_meter_is_defined_and_only_its_title_changes(admin: Client, sam: User) -> None:
    with one_act("meter.created", sam):
        assert admin.post(page("add"), HOURS).status_code == 302
    meter = Meter.objects.get()
    changed = {"slug": "x", "title": "Hours", "unit": "minute", "aggregation": "count", "decimals": "0"}
    with one_act("meter.changed", sam):
        assert admin.post(page("change", meter.pk), changed).status_code == 302
    meter.refresh_from_db()
    assert (meter.slug, meter.title, meter.unit, meter.aggregation, meter.decimals) == (
        "gpu-hours",
        "Hours",
        "hour",
        "sum",
        3,
    )


def test_a_meter_is_archived_once_asked_and_never_deleted(admin: Client, sam: User) -> None:
    meter = builders.meter("tokens")
    chosen = {"action": "archive", "_selected_action": [meter.pk]}
    assert "for good" in text(admin.post(page(), chosen))
    with one_act("meter.archived", sam):
        assert admin.post(page(), chosen | {"confirmed": "yes"}).status_code == 302
    assert admin.post(page("delete", meter.pk), {"post": "yes"}).status_code == 403
    admin.post(page(), {"action": "delete_selected", "_selected_action": [meter.pk], "post": "yes"})
    assert Meter.objects.get().archived_at is not None
    assert admin.get(page("history", meter.pk), follow=True).status_code == 200


@pytest.mark.parametrize(
    "fields",
    [
        {"slug": "requests"},
        {"slug": "tokens"},
        {"slug": "GPU"},
        {"slug": ""},
        {"slug": "a" * 2**20},
        {"title": "lk_live_" + "a" * 38},
        {"unit": "u" * 41},
        {"aggregation": "max"},
        {"decimals": "7"},
        {"decimals": "-1"},
        {"decimals": "9" * 40},
        {"decimals": "1", "aggregation": "count"},
    ],
)
def test_what_cannot_be_defined_is_an_error_of_the_form(admin: Client, fields: dict[str, str]) -> None:
    builders.meter("tokens")
    before = AuditEvent.objects.count()
    response = admin.post(page("add"), HOURS | fields)
    assert response.status_code in (200, 400)
    if response.status_code == 200:
        assert "errornote" in text(response)
    assert AuditEvent.objects.count() == before
    assert Meter.objects.count() == 1


def test_a_nul_is_no_meter(admin: Client) -> None:
    assert admin.post(page("add"), HOURS | {"unit": "a\0"}).status_code in (200, 400)
    assert not Meter.objects.exists()


def test_staff_without_the_permission_are_refused(client: Client) -> None:
    builders.signed_in(client, builders.user("mia", is_staff=True))
    meter = builders.meter("tokens")
    assert client.get(page()).status_code == 403
    assert client.post(page("add"), HOURS).status_code == 403
    assert client.post(page("change", meter.pk), {"title": "Mine"}).status_code == 403
    chosen = {"action": "archive", "_selected_action": [meter.pk], "confirmed": "yes"}
    assert client.post(page(), chosen).status_code == 403
    meter.refresh_from_db()
    assert (meter.title, meter.archived_at) == ("Tokens", None)
