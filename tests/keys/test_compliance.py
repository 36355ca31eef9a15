"""Which rules of a policy a key breaks, and that acts bring a key within it or leave it as it was."""

import dataclasses
import datetime as dt
from typing import Any

import pytest

from keys import lifecycle
from keys.compliance import SENTENCES, Facts, Rule, Terms, broken
from keys.models import Organization
from tests import builders
from tests.builders import NOW

COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)
PLAIN = Facts(environment="live", scopes=frozenset(), networks=(), expires_at=NOW + DAY)


def facts(**fields: Any) -> Facts:
    return dataclasses.replace(PLAIN, **fields)


@pytest.mark.parametrize(
    ("terms", "key", "rules"),
    [
        (Terms(), facts(expires_at=None, scopes=frozenset({"a:b"})), []),
        (Terms(scopes=frozenset({"a:b"})), facts(scopes=frozenset({"a:b"})), []),
        (Terms(scopes=frozenset({"a:b"})), facts(scopes=frozenset({"a:c"})), [Rule.SCOPES]),
        (Terms(scopes=frozenset()), facts(scopes=frozenset({"portal:verify"})), []),
        (Terms(expiry_required=True), facts(expires_at=None), [Rule.EXPIRY]),
        (Terms(longest_days=30), facts(expires_at=None), [Rule.EXPIRY]),
        (Terms(longest_days=30), facts(expires_at=NOW + 30 * DAY), []),
        (Terms(longest_days=30), facts(expires_at=NOW + 31 * DAY), [Rule.LIFETIME]),
        (Terms(networks_required=True), facts(), [Rule.NETWORKS]),
        (Terms(networks_required=True), facts(environment="test"), []),
        (Terms(networks_required=True), facts(networks=("10.0.0.0/8",)), []),
        (Terms(rotate_days=30), facts(secret_made_at=NOW - 30 * DAY), [Rule.ROTATION]),
        (Terms(rotate_days=30), facts(secret_made_at=NOW - 29 * DAY), []),
        (Terms(rotate_days=30), facts(), []),
    ],
)
def test_rules_that_a_key_breaks(terms: Terms, key: Facts, rules: list[Rule]) -> None:
    assert broken(terms, key, NOW) == rules


def test_every_rule_says_what_mends_it() -> None:
    assert SENTENCES.keys() == set(Rule)


def tightened(**fields: Any) -> tuple[Organization, lifecycle.Issued]:
    """An organization whose policy became so after its key was made."""
    acme = builders.organization("acme", now=NOW)
    issued = builders.key(acme, now=NOW, expires_at=None)
    lifecycle.edit_policy(COMMAND, acme.policy, now=NOW, **fields)
    return acme, issued


@pytest.mark.django_db
def test_a_disabled_key_outside_its_policy_is_enabled_only_once_it_is_mended() -> None:
    _, issued = tightened(networks_required=True, expiry_required=True)
    lifecycle.disable_key(COMMAND, issued.key, now=NOW)
    with pytest.raises(lifecycle.Conflict, match=r"must be limited to networks"):
        lifecycle.enable_key(COMMAND, issued.key, now=NOW)
    lifecycle.edit_key(COMMAND, issued.key, networks=["10.0.0.0/8"], expires_at=NOW + DAY, now=NOW)
    assert lifecycle.enable_key(COMMAND, issued.key, now=NOW).disabled_at is None


@pytest.mark.django_db
def test_a_rotation_brings_the_expiry_within_the_policy() -> None:
    _, issued = tightened(expiry_required=True)
    rotated = lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, now=NOW + DAY)
    assert rotated.key.expires_at == NOW + 91 * DAY
    lifecycle.edit_policy(COMMAND, rotated.key.organization.policy, max_lifetime_days=30, now=NOW)
    rotated = lifecycle.rotate_key(COMMAND, rotated.key, overlap=DAY * 0, now=NOW + 2 * DAY)
    assert rotated.key.expires_at == NOW + 32 * DAY


@pytest.mark.django_db
def test_a_rotation_leaves_an_expiry_within_the_policy_as_it_is() -> None:
    acme = builders.organization("acme", now=NOW)
    issued = builders.key(acme, now=NOW, expires_at=NOW + 50 * DAY)
    lifecycle.edit_policy(COMMAND, acme.policy, max_lifetime_days=60, now=NOW)
    assert lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, now=NOW).key.expires_at == NOW + 50 * DAY
