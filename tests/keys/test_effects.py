"""A policy that is tightened says first which keys it puts outside, and changes when that is agreed to."""

import datetime as dt
import re
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from keys import effects, lifecycle
from keys.compliance import Rule, Terms
from keys.models import Key, Organization, Policy
from tests import builders
from tests.builders import NOW, text
from tests.keys.admin_forms import act_on, organization_form, page

pytestmark = pytest.mark.django_db
COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)


@pytest.fixture
def admin(client: Client) -> Client:
    return builders.signed_in(client, builders.staff("sam"))


def policy(slug: str, **fields: Any) -> Policy:
    return lifecycle.create_policy(COMMAND, slug=slug, name=slug.title(), now=NOW, **fields)


def changed(before: Policy, scopes: list[str] | None = None, **fields: Any) -> effects.Effect:
    after = Policy.objects.get(pk=before.pk)
    for name, value in fields.items():
        setattr(after, name, value)
    return effects.of_policy(before, after, scopes or [], NOW)


def form_of(of: Policy, **fields: Any) -> dict[str, Any]:
    names = ("default_lifetime_days", "max_lifetime_days", "idle_days", "rotate_days", "max_keys")
    form = {name: getattr(of, name) or "" for name in names}
    flags = {
        name: "on" for name in ("all_scopes", "expiry_required", "networks_required") if getattr(of, name)
    }
    lines = {"rates": "\n".join(of.rates), "quotas": "\n".join(of.quotas)}
    return {"name": of.name, "slug": of.slug} | form | flags | lines | fields


def agreement(response: Any) -> str:
    found = re.search(r'name="agreed"[^>]*value="([0-9a-f]{16})"', text(response)) or re.search(
        r'value="([0-9a-f]{16})"[^>]*name="agreed"', text(response)
    )
    assert found, text(response)
    return found[1]


def test_a_change_is_judged_by_the_keys_that_it_adds_to_those_outside() -> None:
    loose = policy("loose", networks_required=True)
    acme = builders.organization("acme", policy=loose, now=NOW)
    other = builders.organization("other", now=NOW)
    endless = builders.key(acme, networks=["10.0.0.0/8"], expires_at=None, now=NOW).key
    builders.key(acme, networks=["10.0.0.0/8"], now=NOW)
    builders.key(other, expires_at=None, now=NOW)
    lifecycle.revoke_key(COMMAND, builders.key(acme, networks=["::1"], expires_at=None, now=NOW).key, now=NOW)
    Key.objects.filter(pk=endless.pk).update(networks=[])  # outside already
    effect = changed(loose, expiry_required=True)
    assert (effect.keys, dict(effect.by_rule)) == (1, {Rule.EXPIRY: 1})
    assert [(each.key, each.rules) for each in effect.shown] == [(endless, [Rule.EXPIRY])]
    assert changed(loose, max_lifetime_days=30).by_rule == {Rule.EXPIRY: 1, Rule.LIFETIME: 1}
    assert changed(loose, networks_required=False).is_nothing


def test_scopes_numbers_and_idle_keys_are_told_too() -> None:
    loose = policy("loose")
    acme = builders.organization("acme", policy=loose, now=NOW)
    for number in range(3):
        builders.key(acme, name=str(number), scopes=("orders:read",), now=NOW)
    assert changed(loose, all_scopes=False).by_rule == {Rule.SCOPES: 3}
    assert changed(loose, ["orders:read"], all_scopes=False).is_nothing
    assert changed(loose, max_keys=3).is_nothing
    assert changed(loose, max_keys=2).crowded == 1
    assert changed(loose, idle_days=30).idle_begins
    lifecycle.edit_policy(COMMAND, loose, idle_days=30, now=NOW)
    loose.refresh_from_db()
    assert changed(loose, idle_days=60).is_nothing


def test_what_is_outside_is_listed_without_a_query_for_each_key(
    django_assert_max_num_queries: Any,
) -> None:
    acme = builders.organization("acme", now=NOW)
    for number in range(20):
        builders.key(acme, name=str(number), scopes=("orders:read",), expires_at=None, now=NOW)
    with django_assert_max_num_queries(3):
        assert len(list(effects.outside(Key.objects.all(), Terms(expiry_required=True), NOW))) == 20


def test_a_policy_is_tightened_only_once_its_effect_was_agreed_to(admin: Client) -> None:
    loose = policy("loose")
    acme = builders.organization("acme", policy=loose)
    key = builders.key(acme, name="Old <b>", expires_at=None).key
    form = form_of(loose, expiry_required="on")
    first = admin.post(page("policy", "change", loose.pk), form)
    assert first.status_code == 200
    assert "1 key would be outside the policy" in text(first)
    assert "Old &lt;b&gt;" in text(first)
    loose.refresh_from_db()
    assert not loose.expiry_required
    # Another change than the one that was shown is shown first as well.
    other = form | {"agreed": agreement(first), "networks_required": "on"}
    assert admin.post(page("policy", "change", loose.pk), other).status_code == 200
    assert admin.post(page("policy", "change", loose.pk), form | {"agreed": "yes"}).status_code == 200
    agreed = form | {"agreed": agreement(first)}
    assert admin.post(page("policy", "change", loose.pk), agreed).status_code == 302
    loose.refresh_from_db()
    assert loose.expiry_required
    assert builders.reloaded(key).state_at(timezone.now()) == "active"


def test_a_change_that_puts_no_key_outside_is_made_at_once(admin: Client) -> None:
    loose = policy("loose")
    builders.key(builders.organization("acme", policy=loose))
    assert '<input type="hidden" name="agreed"' in text(admin.get(page("policy", "change", loose.pk)))
    form = form_of(loose, expiry_required="on")
    assert admin.post(page("policy", "change", loose.pk), form).status_code == 302


def test_another_policy_for_an_organization_is_agreed_to_first(admin: Client) -> None:
    strict = policy("strict", networks_required=True)
    acme = builders.organization("acme")
    builders.key(acme)
    form = organization_form(acme, [], policy=strict.pk)
    first = admin.post(page("organization", "change", acme.pk), form)
    assert "1 key would be outside the policy" in text(first)
    assert Organization.objects.get(pk=acme.pk).policy != strict
    agreed = form | {"agreed": agreement(first)}
    assert admin.post(page("organization", "change", acme.pk), agreed).status_code == 302
    assert Organization.objects.get(pk=acme.pk).policy == strict


def test_a_policy_for_many_organizations_is_agreed_to_first(admin: Client) -> None:
    strict = policy("strict", networks_required=True)
    acme, globex = builders.organization("acme"), builders.organization("globex")
    builders.key(acme)
    builders.key(globex)
    asked: dict[str, Any] = {"action": "apply_policy", "_selected_action": [acme.pk, globex.pk]}
    asked |= {"confirmed": "yes", "policy": strict.pk}
    first = admin.post(page("organization"), asked)
    assert first.status_code == 400
    assert "2 keys would be outside the policy" in text(first)
    assert admin.post(page("organization"), asked | {"agreed": agreement(first)}).status_code == 302
    assert set(Organization.objects.values_list("policy", flat=True)) == {strict.pk}
    act_on(admin, "organization", "apply_policy", acme, confirmed="yes", policy=strict.pk)  # already so
