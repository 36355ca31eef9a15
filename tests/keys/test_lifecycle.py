"""Each act: what it writes, what it refuses, and that its event says so."""

import datetime as dt
import hashlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase
from pytest_django import Settings

from keys import lifecycle, tokens
from keys.models import AuditEvent, Key, KeyState, Organization, Policy, Secret
from keys.permissions import Role
from tests import builders
from tests.builders import NOW
from usage import definitions

pytestmark = pytest.mark.django_db
COMMAND = lifecycle.command_actor()
DAY = dt.timedelta(days=1)
JUNK = ["", "   ", "a\x00b", "line\nbreak", "\ud800", "x" * 101, "x" * 1_048_576]


def last_event() -> AuditEvent:
    return AuditEvent.objects.latest("number")


def policy(acme: Organization, **fields: Any) -> Policy:
    return lifecycle.edit_policy(COMMAND, acme.policy, now=NOW, **fields)


# --- create ---------------------------------------------------------------------------------------


def test_a_new_key_stores_the_digest_of_its_plaintext_and_nothing_more_of_it() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    secret = Secret.objects.get(key=issued.key)
    assert bytes(secret.digest) == hashlib.sha256(issued.plaintext.encode()).digest()
    assert issued.plaintext not in repr(issued)
    assert issued.plaintext[-12:] not in str(vars(secret)) + str(last_event().data)


def test_a_new_key_expires_in_90_days_unless_its_maker_chooses() -> None:
    acme = builders.organization("acme")
    assert builders.key(acme, now=NOW).key.expires_at == NOW + 90 * DAY
    assert builders.key(acme, now=NOW, expires_at=None).key.expires_at is None
    assert builders.key(acme, now=NOW, expires_at=NOW + DAY).key.expires_at == NOW + DAY


def test_creating_a_key_is_one_event_that_tells_what_it_may_do() -> None:
    acme = builders.organization("acme")
    builders.scope("orders:read")
    before = last_event().number
    issued = builders.key(acme, scopes=("orders:read",), networks=["10.0.0.0/8"], now=NOW)
    event = last_event()
    assert (event.number, event.act, event.key) == (before + 1, "key.created", issued.key)
    assert event.data["scopes"] == ["orders:read"]
    assert event.data["networks"] == ["10.0.0.0/8"]
    assert event.data["secret"] == f"lk_live_…{issued.secret.hint}"


@pytest.mark.parametrize("name", JUNK)
def test_a_key_with_a_junk_name_is_refused_and_nothing_is_written(name: str) -> None:
    acme = builders.organization("acme")
    with pytest.raises(lifecycle.Invalid) as refusal:
        builders.key(acme, name=name)
    assert refusal.value.field == "name"
    assert not Key.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("environment", "prod"),
        ("networks", ["10.0.0.1/8"]),
        ("networks", ["not a network"]),
        ("networks", ["\x00"]),
        ("networks", [f"10.0.{n}.0/24" for n in range(51)]),
        ("rates", ["10 per second"]),
        ("rates", ["0/second"]),
        ("rates", ["1/second", "2/second"]),
        ("rates", ["9" * 5000 + "/second"]),
        ("quotas", ["10 per month"]),
        ("quotas", ["0/month"]),
        ("quotas", ["1/month", "2 requests/month"]),
        ("quotas", ["1/month", "9 nope/month"]),
        ("quotas", [f"1 meter_{n}/day" for n in range(9)]),
        ("expires_at", NOW),
        ("expires_at", NOW - DAY),
        ("expires_at", dt.datetime(2027, 1, 1)),  # noqa: DTZ001  a time without a zone is the junk
        ("expires_at", dt.datetime.max.replace(tzinfo=dt.UTC)),
        ("metadata", {"a\x00": "b"}),
        ("metadata", {"a": 1}),
        ("metadata", {str(n): "" for n in range(21)}),
    ],
)
def test_a_key_with_a_junk_field_is_refused_at_that_field(field: str, value: Any) -> None:
    acme = builders.organization("acme")
    with pytest.raises(lifecycle.Invalid) as refusal:
        builders.key(acme, now=NOW, **{field: value})
    assert refusal.value.field == field
    assert not Key.objects.exists()


def test_a_quota_is_of_a_meter_that_there_is_or_was() -> None:
    acme = builders.organization("acme")
    tokens_used = builders.meter("tokens")
    issued = builders.key(acme, quotas=["9 tokens/month"])
    definitions.archive_meter(COMMAND, tokens_used, now=NOW)
    lifecycle.edit_key(COMMAND, issued.key, quotas=["8 tokens/month"], now=NOW)
    for quotas in (["8 token/month"], ["1/day", "8 nope/day"]):
        with pytest.raises(lifecycle.Invalid, match="There is no meter"):
            lifecycle.edit_key(COMMAND, issued.key, quotas=quotas, now=NOW)
        with pytest.raises(lifecycle.Invalid, match="There is no meter"):
            lifecycle.edit_policy(COMMAND, acme.policy, quotas=quotas, now=NOW)
    assert builders.reloaded(issued.key).quotas == ["8 tokens/month"]
    # One that is here since before that was asked stays, whatever else is edited.
    Key.objects.update(quotas=["9 nope/day"])
    assert lifecycle.edit_key(COMMAND, issued.key, name="New", quotas=["9 nope/day"], now=NOW).name == "New"


@pytest.mark.parametrize("name", ["orders:read", "portal:verify", "\x00", "\ud800", "x" * 100_000])
def test_a_scope_that_is_not_there_or_not_the_customers_to_grant_is_refused(name: str) -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", alice)
    actor = lifecycle.member_actor(alice, acme.memberships.get())
    with pytest.raises(lifecycle.Invalid) as refusal:
        lifecycle.create_key(actor, acme, name="k", scopes=[name], now=NOW)
    assert refusal.value.field == "scopes"
    refusal.value.sentence.encode()  # can be shown
    assert not Key.objects.exists()


def test_staff_can_grant_what_customers_cannot_and_a_customers_edit_keeps_it() -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", alice)
    issued = lifecycle.create_key(COMMAND, acme, name="k", scopes=["portal:verify"], now=NOW)
    actor = lifecycle.member_actor(alice, acme.memberships.get())
    lifecycle.edit_key(actor, issued.key, name="renamed", scopes=["portal:verify"], now=NOW)
    assert [scope.name for scope in issued.key.scopes.all()] == ["portal:verify"]


# --- policy ---------------------------------------------------------------------------------------


def test_the_longest_lifetime_binds_create_edit_and_renewal(settings: Settings) -> None:
    acme = builders.organization("acme")
    policy(acme, max_lifetime_days=30)
    acme.policy.refresh_from_db()
    issued = builders.key(acme, now=NOW)
    assert issued.key.expires_at == NOW + 30 * DAY
    for act in (
        lambda when: builders.key(acme, expires_at=when, now=NOW),
        lambda when: lifecycle.edit_key(COMMAND, issued.key, expires_at=when, now=NOW),
        lambda when: lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, expires_at=when, now=NOW),
    ):
        for when in (None, NOW + 31 * DAY):
            with pytest.raises(lifecycle.Invalid):
                act(when)
    settings.KEY_MAX_LIFETIME_DAYS = 7
    assert builders.key(acme, now=NOW).key.expires_at == NOW + 7 * DAY


def test_a_policy_limits_scopes_networks_expiry_and_number() -> None:
    acme = builders.organization("acme")
    builders.scope("orders:write")
    policy(acme, all_scopes=False, scopes=[builders.scope("orders:read")], networks_required=True)
    policy(acme, expiry_required=True, max_keys=1)
    acme.policy.refresh_from_db()
    networks = ["10.0.0.0/8"]
    wrongs: tuple[dict[str, Any], ...] = (
        {"scopes": ("orders:write",), "networks": networks},
        {"networks": []},
        {"networks": networks, "expires_at": None},
    )
    for wrong in wrongs:
        with pytest.raises(lifecycle.Invalid):
            builders.key(acme, now=NOW, **wrong)
    builders.key(acme, scopes=("orders:read",), networks=networks, now=NOW)
    with pytest.raises(lifecycle.Conflict, match="1 keys"):
        builders.key(acme, environment="test", now=NOW)


def test_a_policy_whose_default_is_beyond_its_longest_is_refused() -> None:
    acme = builders.organization("acme")
    with pytest.raises(lifecycle.Invalid):
        policy(acme, max_lifetime_days=30, default_lifetime_days=60)


# --- rotate ---------------------------------------------------------------------------------------


def test_rotation_adds_a_secret_and_ends_the_old_one_after_the_overlap() -> None:
    first = builders.key(builders.organization("acme"), now=NOW)
    second = lifecycle.rotate_key(COMMAND, first.key, overlap=DAY, now=NOW)
    assert second.key == first.key
    assert second.plaintext != first.plaintext
    first.secret.refresh_from_db()
    assert first.secret.stops_at == NOW + DAY
    assert second.secret.stops_at is None
    assert second.key.expires_at == first.key.expires_at


def test_an_overlap_never_outlives_the_key() -> None:
    first = builders.key(builders.organization("acme"), now=NOW, expires_at=NOW + DAY)
    lifecycle.rotate_key(COMMAND, first.key, overlap=7 * DAY, now=NOW)
    first.secret.refresh_from_db()
    assert first.secret.stops_at == NOW + DAY


def test_a_rotation_can_renew_the_expiry() -> None:
    first = builders.key(builders.organization("acme"), now=NOW, expires_at=NOW + DAY)
    second = lifecycle.rotate_key(COMMAND, first.key, overlap=DAY, expires_at=lifecycle.DEFAULT, now=NOW)
    assert builders.reloaded(second.key).expires_at == NOW + 90 * DAY


def test_a_second_rotation_waits_for_the_first_overlap_to_end() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, now=NOW)
    with pytest.raises(lifecycle.Conflict, match="overlap"):
        lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, now=NOW + DAY / 2)
    lifecycle.end_overlap(COMMAND, issued.key, now=NOW + DAY / 2)
    lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, now=NOW + DAY / 2)
    assert last_event().act == "key.rotated"


def test_a_leaked_key_is_rotated_at_once_even_during_an_overlap() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    lifecycle.rotate_key(COMMAND, issued.key, overlap=7 * DAY, now=NOW)
    leaked = NOW + dt.timedelta(seconds=1)
    newest = lifecycle.rotate_key(COMMAND, issued.key, overlap=dt.timedelta(0), now=leaked)
    working = [s for s in issued.key.secrets.all() if s.works_at(leaked)]
    assert working == [newest.secret]


def test_a_secret_that_was_replaced_meanwhile_is_a_conflict() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    lifecycle.rotate_key(COMMAND, issued.key, overlap=dt.timedelta(0), current=issued.secret, now=NOW)
    with pytest.raises(lifecycle.Conflict, match="already been replaced"):
        lifecycle.rotate_key(COMMAND, issued.key, overlap=dt.timedelta(0), current=issued.secret, now=NOW)


def test_who_does_not_say_which_secret_cannot_replace_one_just_made_by_another() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    now = dt.timedelta(0)
    second = lifecycle.rotate_key(COMMAND, issued.key, overlap=now, now=NOW)
    with pytest.raises(lifecycle.Conflict, match="a moment ago"):
        lifecycle.rotate_key(COMMAND, issued.key, overlap=now, now=NOW + dt.timedelta(seconds=9))
    lifecycle.rotate_key(COMMAND, issued.key, overlap=now, current=second.secret, now=NOW)
    lifecycle.rotate_key(COMMAND, issued.key, overlap=now, now=NOW + dt.timedelta(seconds=11))


@pytest.mark.parametrize("overlap", [-DAY, 91 * DAY])
def test_an_overlap_outside_its_bounds_is_refused(overlap: dt.timedelta) -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    with pytest.raises(lifecycle.Invalid):
        lifecycle.rotate_key(COMMAND, issued.key, overlap=overlap, now=NOW)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("overlap", [DAY, dt.timedelta(0)])
def test_fifty_rotations_at_once_make_one_successor(overlap: dt.timedelta) -> None:
    issued = builders.key(builders.organization("acme"))
    outcomes: list[object] = []
    start = threading.Barrier(50)

    def rotate() -> None:
        key = Key.objects.get(pk=issued.key.pk)
        current = key.secrets.get(stops_at=None)
        connection.close()  # fifty waiting threads are more than the pool has connections
        start.wait(timeout=30)
        outcome: object = None
        while outcome is None:
            try:
                now = dt.datetime.now(dt.UTC)
                outcome = lifecycle.rotate_key(COMMAND, key, overlap=overlap, current=current, now=now)
            except lifecycle.Conflict as conflict:
                outcome = conflict
            except OperationalError:
                pass  # on a busy machine the last of fifty wait longer than anyone may; pages say 503 then
            finally:
                connection.close()
        outcomes.append(outcome)

    threads = [threading.Thread(target=rotate) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 50
    assert sum(isinstance(outcome, lifecycle.Issued) for outcome in outcomes) == 1
    assert issued.key.secrets.count() == 2
    assert issued.key.secrets.filter(stops_at=None).count() == 1


# --- rotations that are extended or rolled back ---------------------------------------------------


def rotated(**fields: Any) -> tuple[lifecycle.Issued, lifecycle.Issued]:
    """A key's old and new secret, an hour into an overlap of a day that began at NOW."""
    old = builders.key(builders.organization("acme"), now=NOW, **fields)
    return old, lifecycle.rotate_key(COMMAND, old.key, overlap=DAY, now=NOW)


def works(issued: lifecycle.Issued, at: dt.datetime) -> bool:
    return Secret.objects.get(pk=issued.secret.pk).works_at(at)


def test_an_overlap_is_extended_from_now_on() -> None:
    old, new = rotated()
    lifecycle.extend_overlap(COMMAND, old.key, overlap=7 * DAY, now=NOW + DAY / 2)
    assert works(old, NOW + 7 * DAY)
    assert not works(old, NOW + 7.5 * DAY)
    assert works(new, NOW + 80 * DAY)
    event = last_event()
    assert (event.act, event.data["secrets"]) == ("key.overlap_extended", [old.secret.display])


def test_an_overlap_is_extended_no_further_than_the_keys_expiry() -> None:
    old, _ = rotated(expires_at=NOW + 3 * DAY)
    lifecycle.extend_overlap(COMMAND, old.key, overlap=30 * DAY, now=NOW + DAY / 2)
    assert Secret.objects.get(pk=old.secret.pk).stops_at == NOW + 3 * DAY


@pytest.mark.parametrize("overlap", [dt.timedelta(0), -DAY, DAY / 4, 91 * DAY])
def test_an_overlap_is_never_extended_to_less_or_without_end(overlap: dt.timedelta) -> None:
    old, _ = rotated()
    with pytest.raises(lifecycle.Invalid):
        lifecycle.extend_overlap(COMMAND, old.key, overlap=overlap, now=NOW + DAY / 2)
    assert Secret.objects.get(pk=old.secret.pk).stops_at == NOW + DAY


def test_a_rotation_that_is_rolled_back_leaves_the_old_secret_alone() -> None:
    old, new = rotated()
    lifecycle.roll_back_rotation(COMMAND, old.key, now=NOW + DAY / 2)
    assert works(old, NOW + 80 * DAY)
    assert not works(new, NOW + DAY / 2)
    event = last_event()
    assert (event.act, event.data) == (
        "key.rolled_back",
        {"secret": old.secret.display, "ended": new.secret.display},
    )
    newest = lifecycle.rotate_key(COMMAND, old.key, overlap=DAY, now=NOW + DAY)
    assert works(newest, NOW + 2 * DAY)


@pytest.mark.parametrize("when", [DAY, 2 * DAY])
def test_after_the_overlap_nothing_is_extended_or_rolled_back(when: dt.timedelta) -> None:
    old, _ = rotated()
    before = AuditEvent.objects.count()
    with pytest.raises(lifecycle.Conflict, match="any more"):
        lifecycle.extend_overlap(COMMAND, old.key, overlap=7 * DAY, now=NOW + when)
    with pytest.raises(lifecycle.Conflict, match="any more"):
        lifecycle.roll_back_rotation(COMMAND, old.key, now=NOW + when)
    assert AuditEvent.objects.count() == before


def test_a_rotation_is_rolled_back_once() -> None:
    old, _ = rotated()
    lifecycle.roll_back_rotation(COMMAND, old.key, now=NOW + DAY / 2)
    with pytest.raises(lifecycle.Conflict):
        lifecycle.roll_back_rotation(COMMAND, old.key, now=NOW + DAY / 2)
    assert works(old, NOW + DAY)


def test_the_rotation_of_a_revoked_key_stays_as_it_is() -> None:
    old, _ = rotated()
    lifecycle.revoke_key(COMMAND, old.key, now=NOW)
    with pytest.raises(lifecycle.Conflict, match="revoked"):
        lifecycle.extend_overlap(COMMAND, old.key, overlap=7 * DAY, now=NOW)
    with pytest.raises(lifecycle.Conflict, match="revoked"):
        lifecycle.roll_back_rotation(COMMAND, old.key, now=NOW)


# --- revoke, disable, enable, edit ----------------------------------------------------------------


def test_revoking_is_for_good_and_twice_is_once() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    lifecycle.revoke_key(COMMAND, issued.key, reason="leaked", now=NOW)
    lifecycle.revoke_key(COMMAND, issued.key, reason="again", now=NOW + DAY)
    key = builders.reloaded(issued.key)
    assert (key.revoked_at, key.revoked_reason) == (NOW, "leaked")
    assert AuditEvent.objects.filter(act="key.revoked").count() == 1
    for act in (
        lambda: lifecycle.enable_key(COMMAND, key, now=NOW),
        lambda: lifecycle.edit_key(COMMAND, key, name="x", now=NOW),
        lambda: lifecycle.rotate_key(COMMAND, key, overlap=DAY, now=NOW),
    ):
        with pytest.raises(lifecycle.Conflict):
            act()


def test_disabling_and_enabling_are_told_once_each() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    for _ in range(2):
        lifecycle.disable_key(COMMAND, issued.key, now=NOW)
    assert builders.reloaded(issued.key).state_at(NOW) == KeyState.DISABLED
    for _ in range(2):
        lifecycle.enable_key(COMMAND, issued.key, now=NOW)
    assert builders.reloaded(issued.key).state_at(NOW) == KeyState.ACTIVE
    acts = AuditEvent.objects.filter(key=issued.key).order_by("number").values_list("act", flat=True)
    assert list(acts) == ["key.created", "key.disabled", "key.enabled"]


def test_an_edit_changes_what_is_given_and_says_old_and_new() -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme, name="old", networks=["10.0.0.0/8"], now=NOW)
    builders.scope("orders:read")
    lifecycle.edit_key(COMMAND, issued.key, name="new", scopes=["orders:read"], now=NOW)
    key = builders.reloaded(issued.key)
    assert (key.name, key.networks) == ("new", ["10.0.0.0/8"])
    assert last_event().data == {"changes": {"name": ["old", "new"], "scopes": [[], ["orders:read"]]}}


def test_an_edit_that_changes_nothing_is_no_event() -> None:
    issued = builders.key(builders.organization("acme"), name="same", now=NOW)
    before = last_event().number
    lifecycle.edit_key(COMMAND, issued.key, name="same", expires_at=issued.key.expires_at, now=NOW)
    assert last_event().number == before


def test_an_edit_that_is_half_wrong_changes_nothing() -> None:
    issued = builders.key(builders.organization("acme"), name="same", now=NOW)
    with pytest.raises(lifecycle.Invalid):
        lifecycle.edit_key(COMMAND, issued.key, name="other", scopes=["no:such"], now=NOW)
    assert builders.reloaded(issued.key).name == "same"


def test_an_expired_key_can_be_given_a_new_expiry_and_only_then_rotated() -> None:
    issued = builders.key(builders.organization("acme"), expires_at=NOW + DAY, now=NOW)
    later = NOW + 2 * DAY
    with pytest.raises(lifecycle.Conflict, match="expired"):
        lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, now=later)
    lifecycle.rotate_key(COMMAND, issued.key, overlap=DAY, expires_at=later + DAY, now=later)
    assert builders.reloaded(issued.key).state_at(later) == KeyState.EXPIRING


def test_a_policy_that_came_later_does_not_stop_other_edits() -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme, now=NOW)
    policy(acme, networks_required=True)
    lifecycle.edit_key(COMMAND, issued.key, name="new", networks=[], now=NOW)
    assert builders.reloaded(issued.key).name == "new"


def test_text_that_holds_a_key_is_refused() -> None:
    issued = builders.key(builders.organization("acme"), now=NOW)
    with pytest.raises(lifecycle.Invalid, match="looks like an API key") as refusal:
        lifecycle.revoke_key(COMMAND, issued.key, reason=f"leaked: {issued.plaintext}", now=NOW)
    assert issued.plaintext not in str(refusal.value)
    with pytest.raises(lifecycle.Invalid):
        lifecycle.edit_key(COMMAND, issued.key, metadata={"key": issued.plaintext[:20]}, now=NOW)


@pytest.mark.django_db(transaction=True)
def test_acts_of_one_organization_at_once_wait_and_never_deadlock() -> None:
    acme = builders.organization("acme")
    keys = [builders.key(acme, name=str(n)).key for n in range(2)]
    errors: list[Exception] = []

    def repeat(act: Callable[[int], object]) -> None:
        try:
            for n in range(15):
                act(n)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    def switch(key: Key) -> Callable[[int], object]:
        acts = (lifecycle.disable_key, lifecycle.enable_key)
        return lambda n: acts[n % 2](COMMAND, key, now=dt.datetime.now(dt.UTC))

    def create(n: int) -> object:
        return builders.key(Organization.objects.get(pk=acme.pk), name=str(n))

    acts = [create, create, *(switch(key) for key in keys)]
    threads = [threading.Thread(target=repeat, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# --- import ---------------------------------------------------------------------------------------


def test_an_imported_key_is_known_by_the_digest_of_the_whole() -> None:
    acme = builders.organization("acme")
    digest = hashlib.sha256(b"sk-from-elsewhere").hexdigest()
    key = lifecycle.import_key(COMMAND, acme, name="old system", sha256=digest.upper(), now=NOW)
    assert bytes(key.secrets.get().digest) == tokens.digest("sk-from-elsewhere")
    with pytest.raises(lifecycle.Conflict):
        lifecycle.import_key(COMMAND, acme, name="again", sha256=digest, now=NOW)
    assert Key.objects.count() == 1


@pytest.mark.parametrize("digest", ["", "00", "g" * 64, "é" * 64, "0" * 65, "\x00" * 64, "00 " * 22])
def test_an_import_needs_a_sha256_in_hexadecimal(digest: str) -> None:
    acme = builders.organization("acme")
    with pytest.raises(lifecycle.Invalid) as refusal:
        lifecycle.import_key(COMMAND, acme, name="k", sha256=digest, now=NOW)
    assert refusal.value.field == "sha256"


@pytest.mark.parametrize("nothing", ["", "\n"])
def test_the_digest_of_nothing_is_no_key(nothing: str) -> None:
    """As `printf %s "$KEY" | sha256sum` has it where KEY is not set."""
    acme = builders.organization("acme")
    with pytest.raises(lifecycle.Invalid, match="of nothing"):
        lifecycle.import_key(COMMAND, acme, name="k", sha256=tokens.digest(nothing).hex(), now=NOW)
    assert not Key.objects.exists()


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", list(Role))
def test_only_roles_that_may_touch_keys_do(role: Role) -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme, now=NOW)
    bob = builders.user("bob")
    actor = lifecycle.member_actor(bob, builders.member(bob, acme, role))
    acts: list[Callable[[], object]] = [
        lambda: lifecycle.create_key(actor, acme, name="k", now=NOW),
        lambda: lifecycle.edit_key(actor, issued.key, name="k", now=NOW),
        lambda: lifecycle.rotate_key(actor, issued.key, overlap=DAY, now=NOW),
        lambda: lifecycle.disable_key(actor, issued.key, now=NOW),
        lambda: lifecycle.revoke_key(actor, issued.key, now=NOW),
    ]
    for act in acts:
        if role in (Role.OWNER, Role.ADMIN, Role.DEVELOPER):
            act()
        else:
            with pytest.raises(lifecycle.Forbidden):
                act()


def test_nobody_acts_in_an_organization_that_is_not_theirs() -> None:
    alice = builders.user("alice")
    acme, umbrella = builders.organization("acme", alice), builders.organization("umbrella")
    actor = lifecycle.member_actor(alice, acme.memberships.get())
    theirs = builders.key(umbrella, now=NOW).key
    for act in (
        lambda: lifecycle.create_key(actor, umbrella, name="k", now=NOW),
        lambda: lifecycle.revoke_key(actor, theirs, now=NOW),
        lambda: lifecycle.rotate_key(actor, theirs, overlap=DAY, now=NOW),
        lambda: lifecycle.suspend_organization(actor, umbrella, reason="", now=NOW),
        lambda: lifecycle.suspend_organization(actor, acme, reason="", now=NOW),
        lambda: lifecycle.create_scope(actor, name="a:b", description="", now=NOW),
        lambda: lifecycle.edit_policy(actor, acme.policy, max_keys=1, now=NOW),
    ):
        with pytest.raises(lifecycle.Forbidden):
            act()


# --- organizations and members --------------------------------------------------------------------


@pytest.mark.parametrize("slug", ["", "Acme", "a b", "-a", "a--b", "ä", "a\x00", "x" * 51, "../x"])
def test_a_junk_slug_is_refused(slug: str) -> None:
    with pytest.raises(lifecycle.Invalid):
        builders.organization(slug, name="Acme")


def test_a_slug_is_taken_once() -> None:
    builders.organization("acme")
    with pytest.raises(lifecycle.Conflict):
        builders.organization("acme")
    assert Organization.objects.count() == 1


def test_a_suspended_organization_makes_no_keys_until_it_is_resumed() -> None:
    acme = builders.organization("acme")
    lifecycle.suspend_organization(COMMAND, acme, reason="unpaid", now=NOW)
    with pytest.raises(lifecycle.Conflict):
        builders.key(acme)
    lifecycle.resume_organization(COMMAND, acme, now=NOW)
    builders.key(acme)


def test_the_last_owner_stays() -> None:
    alice, bob = builders.user("alice"), builders.user("bob")
    acme = builders.organization("acme", alice)
    membership = acme.memberships.get()
    actor = lifecycle.member_actor(alice, membership)
    with pytest.raises(lifecycle.Conflict):
        lifecycle.remove_member(actor, membership, now=NOW)
    with pytest.raises(lifecycle.Conflict):
        lifecycle.change_role(actor, membership, Role.VIEWER, now=NOW)
    lifecycle.add_member(actor, acme, bob, Role.OWNER, now=NOW)
    lifecycle.remove_member(actor, membership, now=NOW)
    assert [m.user for m in acme.memberships.all()] == [bob]


def test_an_owner_who_cannot_sign_in_is_not_the_one_that_stays() -> None:
    alice = builders.user("alice")
    acme = builders.organization("acme", alice)
    gone = builders.member(builders.user("bob", is_active=False), acme, Role.OWNER)
    membership = acme.memberships.get(user=alice)
    actor = lifecycle.member_actor(alice, membership)
    with pytest.raises(lifecycle.Conflict, match="needs an owner"):
        lifecycle.remove_member(actor, membership, now=NOW)
    with pytest.raises(lifecycle.Conflict, match="cannot sign in"):
        lifecycle.transfer_ownership(actor, acme, gone, now=NOW)
    lifecycle.remove_member(actor, gone, now=NOW)


def test_an_admin_can_make_no_owner() -> None:
    alice, bob = builders.user("alice"), builders.user("bob")
    acme = builders.organization("acme", alice)
    admin = lifecycle.member_actor(bob, builders.member(bob, acme, Role.ADMIN))
    with pytest.raises(lifecycle.Forbidden):
        lifecycle.add_member(admin, acme, builders.user("carol"), Role.OWNER, now=NOW)
    with pytest.raises(lifecycle.Forbidden):
        lifecycle.change_role(admin, acme.memberships.get(user=bob), Role.OWNER, now=NOW)
    with pytest.raises(lifecycle.Invalid):
        lifecycle.add_member(admin, acme, builders.user("dave"), "king", now=NOW)


class Names(TestCase):
    """Whatever is typed as a name is stored as it is shown, or refused."""

    @given(st.text(max_size=120))
    def test_any_text_is_a_name_or_a_refusal(self, text: str) -> None:
        acme = Organization.objects.filter(slug="acme").first() or builders.organization("acme")
        try:
            key = builders.key(acme, name=text).key
        except lifecycle.Invalid:
            return
        assert builders.reloaded(key).name == key.name
