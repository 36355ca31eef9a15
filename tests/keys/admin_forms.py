"""What the tests of the admin send to it, and what they read from its answers."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from keys.models import AuditEvent, Key, Membership, Organization
from portal.models import User
from tests.builders import text


def page(model: str, name: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:keys_{model}_{name}", args=args)


@contextmanager
def one_act(act: str, sam: User) -> Iterator[None]:
    """Exactly one event is written meanwhile, of this act, by this person, and no admin log."""
    before = AuditEvent.objects.count()
    yield
    events = list(AuditEvent.objects.order_by("number")[before:])
    assert [(event.act, event.actor_kind, event.actor_id) for event in events] == [(act, "staff", sam.pk)]
    assert not LogEntry.objects.exists()


def once(admin: Client, url: str = "") -> str:
    """The token of the form that makes a key, or of another one."""
    found = re.search(r'name="once" value="([^"]+)"', text(admin.get(url or page("key", "add"))))
    assert found
    return found[1]


def key_form(admin: Client, of: Organization, **fields: Any) -> dict[str, Any]:
    return {
        "once": once(admin),
        "organization": of.pk,
        "name": "Backend",
        "environment": "live",
        "expiry": "default",
        "expires_at_0": "",
        "expires_at_1": "",
        "networks": "",
        "rates": "",
        "quotas": "",
        "metadata": "",
    } | fields


def edit_form(key: Key, **fields: Any) -> dict[str, Any]:
    at = key.expires_at
    return {
        "name": key.name,
        "scopes": [scope.pk for scope in key.scopes.all()],
        "networks": "\n".join(key.networks),
        "rates": "\n".join(key.rates),
        "quotas": "\n".join(key.quotas),
        "metadata": "",
        "expires_at_0": at.strftime("%Y-%m-%d") if at else "",
        "expires_at_1": at.strftime("%H:%M:%S") if at else "",
        "secrets-TOTAL_FORMS": "0",
        "secrets-INITIAL_FORMS": "0",
    } | fields


def organization_form(of: Organization, members: list[Membership], **fields: Any) -> dict[str, Any]:
    form: dict[str, Any] = {
        "name": of.name,
        "policy": of.policy_id,
        "external_customer": of.external_customer,
        "memberships-TOTAL_FORMS": len(members),
        "memberships-INITIAL_FORMS": len(members),
        "memberships-2-TOTAL_FORMS": 0,
        "memberships-2-INITIAL_FORMS": 0,
    }
    for number, member in enumerate(members):
        form |= {
            f"memberships-{number}-id": member.pk,
            f"memberships-{number}-organization": of.pk,
            f"memberships-{number}-role": member.role,
        }
    return form | fields


def shown(response: Any) -> dict[str, str]:
    """What a page says of the object that it was made from, for its form to bring back."""
    return dict(re.findall(r'name="(as_shown|initial-[a-z0-9-]+)" value="([^"]*)"', text(response)))


def plain(response: Any) -> str:
    found = re.search(r'<code id="secret">(lk_[^<]+)</code>', text(response))
    assert found, text(response)
    return found[1]


def act_on(admin: Client, model: str, action: str, *objects: Any, **fields: Any) -> Any:
    return admin.post(
        page(model), {"action": action, "_selected_action": [each.pk for each in objects], **fields}
    )


def listed(response: Any) -> list[str]:
    return [key.name for key in response.context["cl"].result_list]
