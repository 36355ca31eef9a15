"""Mails about decisions and retirements: to whom, once, and nothing stale."""

import datetime as dt

import pytest
from allauth.account.models import EmailAddress

from keys import lifecycle
from keys.audit import Actor
from keys.models import Key, Organization, ScopeRequest
from portal import notices
from portal.models import Mail, User
from tests import builders
from tests.builders import NOW
from tests.threads import at_once

pytestmark = pytest.mark.django_db

COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)
ALICE, BOB = "alice@example.com", "bob@example.com"
ANNOUNCED = NOW + 50 * DAY  # of a key that nobody has used since NOW


@pytest.fixture
def acme() -> Organization:
    policy = lifecycle.create_policy(
        COMMAND,
        slug="careful",
        name="Careful",
        idle_days=60,
        approval_scopes=[builders.scope("orders:refund")],
        now=NOW,
    )
    return builders.organization("acme", owner=builders.user("alice"), policy=policy, now=NOW)


@pytest.fixture
def bob(acme: Organization) -> User:
    person = builders.user("bob")
    builders.member(person, acme, now=NOW)
    return person


def actor(person: User, of: Organization) -> Actor:
    return lifecycle.member_actor(person, of.memberships.get(user=person))


def mails() -> list[tuple[str, str]]:
    return [(mail.to, mail.subject) for mail in Mail.objects.order_by("to", "pk")]


# --- decisions ------------------------------------------------------------------------------------


@pytest.fixture
def asked(acme: Organization, bob: User) -> ScopeRequest:
    key = builders.key(acme, now=NOW).key
    return lifecycle.request_scope(actor(bob, acme), key, "orders:refund", reason="Refunds", now=NOW)


def test_who_asked_for_a_scope_is_told_what_was_decided_once(asked: ScopeRequest) -> None:
    assert notices.tell_of_decisions(NOW) == 0
    lifecycle.approve_scope(COMMAND, asked, note="Go ahead", now=NOW)
    assert [notices.tell_of_decisions(NOW + n * DAY / 2) for n in range(3)] == [1, 0, 0]
    assert mails() == [(BOB, "Backend of Acme has orders:refund now")]
    assert "They say: Go ahead" in Mail.objects.get().text
    assert f"/o/acme/keys/{asked.key.public_id}/" in Mail.objects.get().text


def test_a_denial_says_so(asked: ScopeRequest) -> None:
    lifecycle.deny_scope(COMMAND, asked, now=NOW)
    notices.tell_of_decisions(NOW)
    assert mails() == [(BOB, "orders:refund for Backend of Acme was denied")]
    assert "They say" not in Mail.objects.get().text


def test_an_asker_is_found_by_another_address_and_not_once_they_have_left(
    acme: Organization, bob: User, asked: ScopeRequest
) -> None:
    lifecycle.deny_scope(COMMAND, asked, now=NOW)
    membership = acme.memberships.get(user=bob)
    lifecycle.remove_member(COMMAND, membership, now=NOW)
    assert notices.tell_of_decisions(NOW) == 0
    builders.member(bob, acme, now=NOW)
    EmailAddress.objects.filter(user=bob).update(email="robert@example.com")
    assert notices.tell_of_decisions(NOW) == 1
    assert [to for to, _ in mails()] == ["robert@example.com"]


def test_what_was_decided_days_ago_or_by_a_suspended_customer_is_no_news(
    acme: Organization, asked: ScopeRequest
) -> None:
    lifecycle.deny_scope(COMMAND, asked, now=NOW)
    assert notices.tell_of_decisions(NOW + 3 * DAY) == 0
    lifecycle.suspend_organization(COMMAND, acme, reason="x", now=NOW)
    assert notices.tell_of_decisions(NOW) == 0


# --- retirements ----------------------------------------------------------------------------------


def key(of: Organization, name: str, by: User | None = None) -> Key:
    maker = COMMAND if by is None else actor(by, of)
    return lifecycle.create_key(maker, of, name=name, expires_at=None, now=NOW).key


def announce(at: dt.datetime, used: dt.datetime | None = None) -> None:
    last = {} if used is None else dict.fromkeys(Key.objects.values_list("pk", flat=True), used)
    lifecycle.retire_idle(lambda of, ids: last, through=at, now=at)


def test_maker_and_owners_are_told_of_a_retirement_each_of_what_is_theirs(
    acme: Organization, bob: User
) -> None:
    key(acme, "Theirs")
    key(acme, "Bob's", bob)
    announce(ANNOUNCED)
    assert [notices.tell_of_retirements(ANNOUNCED + n * DAY) for n in range(3)] == [2, 0, 0]
    assert mails() == [
        (ALICE, "2 API keys of Acme are not used and will be disabled"),
        (BOB, "Bob's of Acme is not used and will be disabled"),
    ]
    assert "on 18 August 2026, 12:00 UTC" in Mail.objects.get(to=BOB).text


def test_a_key_that_is_used_meanwhile_is_left_out_and_told_of_anew_later(acme: Organization) -> None:
    key(acme, "Theirs")
    announce(ANNOUNCED)
    notices.tell_of_retirements(ANNOUNCED)
    announce(ANNOUNCED + DAY, used=ANNOUNCED)
    assert notices.tell_of_retirements(ANNOUNCED + DAY) == 0
    assert mails() == []  # it was still waiting
    announce(ANNOUNCED + 50 * DAY, used=ANNOUNCED)
    assert notices.tell_of_retirements(ANNOUNCED + 50 * DAY) == 1
    assert len(mails()) == 1


def test_a_mail_that_went_is_remembered(acme: Organization) -> None:
    key(acme, "Theirs")
    announce(ANNOUNCED)
    notices.tell_of_retirements(ANNOUNCED)
    Mail.objects.update(next_try_at=None, sent_at=ANNOUNCED, text="")
    lifecycle.revoke_key(COMMAND, Key.objects.get(), now=ANNOUNCED)
    assert notices.tell_of_retirements(ANNOUNCED) == 0
    assert len(mails()) == 1


@pytest.mark.django_db(transaction=True)
def test_two_workers_at_once_tell_once() -> None:
    policy = lifecycle.create_policy(COMMAND, slug="idle", name="Idle", idle_days=60, now=NOW)
    acme = builders.organization("acme", owner=builders.user("alice"), policy=policy, now=NOW)
    for name in ("a", "b"):
        key(acme, name)
    announce(ANNOUNCED)
    assert sorted(at_once([lambda: notices.tell_of_retirements(ANNOUNCED)] * 3), key=str) == [0, 0, 2]
    assert len(mails()) == 1
