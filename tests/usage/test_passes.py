"""What is remembered of calls that were allowed: that it is found again, opens nothing to anybody else, and
has no secret in it. What comes later stands against it."""

import datetime as dt
import gc
import time
from collections.abc import Callable

import pytest
from django.utils import timezone
from pytest_django import Settings

from keys import directory as directory_module
from keys import lifecycle, tokens
from keys.directory import Directory
from keys.verdicts import Code
from tests.builders import key, organization
from tests.usage.gateways import Answer, ask
from usage import gateway, metering

pytestmark = pytest.mark.django_db

COMMAND = lifecycle.command_actor()


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The credentials that were looked up, as those without a pass are."""
    asked: list[str] = []
    recall = Directory.recall

    def recall_and_say(directory: Directory, credential: str) -> object:
        asked.append(credential)
        return recall(directory, credential)

    monkeypatch.setattr(Directory, "recall", recall_and_say)
    return asked


def code(credential: str, resource: str = "") -> Code:
    return metering.authorize(credential, resource=resource, now=time.time()).code


def test_calls_that_are_described_alike_share_one_pass(issued: lifecycle.Issued, decided: list[str]) -> None:
    assert [code(issued.plaintext, "orders") for _ in range(3)] == [Code.VALID] * 3
    assert (len(metering.passes), len(decided)) == (1, 1)
    assert code(issued.plaintext, "users") is Code.VALID
    assert (len(metering.passes), len(decided)) == (2, 2)


def test_a_pass_is_found_by_two_hashes_and_not_by_one(
    issued: lifecycle.Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if whatever is presented had the same first hash."""
    monkeypatch.setattr(
        metering, "hash", lambda text: hash(text) if text.endswith("\n") else 1, raising=False
    )
    assert [code(issued.plaintext) for _ in range(2)] == [Code.VALID] * 2
    assert len(metering.passes) == 1
    for other in (tokens.mint("lk", "live").plaintext, "junk", "", f"{issued.plaintext} "):
        assert code(other) in (Code.UNKNOWN, Code.MALFORMED, Code.MISSING_CREDENTIAL)
    assert code(issued.plaintext) is Code.VALID


def test_no_pass_is_kept_where_hashes_are_no_secret(
    issued: lifecycle.Issued, decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "_HASHES_ARE_KEYED", False)
    assert [code(issued.plaintext) for _ in range(3)] == [Code.VALID] * 3
    assert (len(metering.passes), len(decided)) == (0, 3)


def test_nothing_that_is_kept_has_the_secret(issued: lifecycle.Issued) -> None:
    assert code(issued.plaintext) is Code.VALID
    known, found = [metering.passes], []
    for each in known:  # everything that can be reached from there, but for modules and classes
        for further in gc.get_referents(each):
            if isinstance(further, str | bytes):
                found.append(str(further))
            elif (
                not isinstance(further, type)
                and all(further is not one for one in known)
                and len(known) < 500
            ):
                known.append(further)
    assert any("acme" in text for text in found)  # it was looked at
    random = issued.plaintext[8:40]
    assert not any(random in text for text in found)


def test_a_pass_ends_with_the_memory_that_it_is_of(
    issued: lifecycle.Issued, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [code(issued.plaintext) for _ in range(2)] == [Code.VALID] * 2
    monkeypatch.setattr(metering.process, "monotonic", lambda: directory.believed_until)
    monkeypatch.setattr(directory, "monotonic", lambda: directory.believed_until)
    assert code(issued.plaintext) is Code.UNAVAILABLE


def test_a_pass_ends_when_the_directory_forgets_its_key(
    issued: lifecycle.Issued, directory: Directory, decided: list[str]
) -> None:
    assert [code(issued.plaintext) for _ in range(2)] == [Code.VALID] * 2
    directory._begin()  # as for a database that was restored
    assert code(issued.plaintext) is Code.VALID
    assert len(decided) == 2


def test_a_pass_ends_when_its_key_makes_room(
    issued: lifecycle.Issued, directory: Directory, monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    """A key beyond KEYS_IN_MEMORY that was pushed out is met by no event: its revocation would be missed."""
    monkeypatch.setattr(directory_module, "OTHERS", 1)
    directory._secrets.clear()  # it is one of the others from now on
    settings.KEYS_IN_MEMORY = 0
    assert [code(issued.plaintext) for _ in range(2)] == [Code.VALID] * 2
    other = key(issued.key.organization, name="Other")
    assert code(other.plaintext) is Code.VALID
    lifecycle.revoke_key(COMMAND, issued.key, now=other.key.created_at)
    directory.refresh()
    assert code(issued.plaintext) is Code.REVOKED


def test_a_pass_is_of_the_credential_that_was_chosen_from_several(
    issued: lifecycle.Issued, directory: Directory
) -> None:
    """A prefix that comes to be ours makes two keys of what was one beside somebody else's."""
    header = f"Bearer {tokens.mint('zz', 'live').plaintext}, Bearer {issued.plaintext}"
    assert [ask(authorization=header).code for _ in range(2)] == ["VALID"] * 2
    directory._prefixes.add("zz")
    assert ask(authorization=header).code == "MULTIPLE_CREDENTIALS"


def test_the_oldest_pass_makes_room_for_one_in_eight(
    issued: lifecycle.Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "_MOST_PASSES", 4)
    for number in range(4):
        assert code(issued.plaintext, f"first-{number}") is Code.VALID
    before = set(metering.passes)
    for number in range(8):
        assert code(issued.plaintext, f"later-{number}") is Code.VALID
    assert len(metering.passes) == 4
    assert len(before & set(metering.passes)) == 3


# --- what comes later, through the gateway ---


LATER: dict[str, tuple[Callable[[lifecycle.Issued, dt.datetime], object], str]] = {
    "revoked": (lambda made, now: lifecycle.revoke_key(COMMAND, made.key, now=now), "REVOKED"),
    "disabled": (lambda made, now: lifecycle.disable_key(COMMAND, made.key, now=now), "DISABLED"),
    "suspended": (
        lambda made, now: lifecycle.suspend_organization(
            COMMAND, made.key.organization, reason="unpaid", now=now
        ),
        "ORGANIZATION_SUSPENDED",
    ),
    "without the scope": (
        lambda made, now: lifecycle.edit_key(COMMAND, made.key, scopes=["orders:write"], now=now),
        "INSUFFICIENT_SCOPE",
    ),
    "limited to a network": (
        lambda made, now: lifecycle.edit_key(COMMAND, made.key, networks=["192.0.2.0/24"], now=now),
        "IP_NOT_ALLOWED",
    ),
    "limited by a rate of its own": (
        lambda made, now: lifecycle.edit_key(COMMAND, made.key, rates=["1/day"], now=now),
        "RATE_LIMITED",
    ),
    "limited by its organization's rate": (
        lambda made, now: lifecycle.edit_policy(
            COMMAND, made.key.organization.policy, rates=["1/day"], now=now
        ),
        "RATE_LIMITED",
    ),
    "limited by its organization's quota": (
        lambda made, now: lifecycle.edit_policy(
            COMMAND, made.key.organization.policy, quotas=["1/day"], now=now
        ),
        "QUOTA_EXCEEDED",
    ),
}


@pytest.mark.parametrize("act", LATER)
def test_what_comes_later_stands_against_a_call_that_was_allowed(
    issued: lifecycle.Issued, directory: Directory, act: str
) -> None:
    """Passes are remembered; nothing that is said of a key or its organization is forgotten by that."""
    for _ in range(2):
        assert ask("scope=orders:read", bearer=issued.plaintext).status == 200
    change, code = LATER[act]
    change(issued, timezone.now())
    directory.refresh()
    codes = [ask("scope=orders:read", bearer=issued.plaintext).code for _ in range(3)]
    assert codes[1:] == [code] * 2
    assert codes[0] == code or (codes[0] == "VALID" and "LIMITED" in code + act.upper())


def test_a_call_that_was_allowed_is_none_once_the_time_has_come(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key's end, the end of a replaced secret, the 30 days in which its end is told, and a brownout."""
    now = timezone.now()
    acme = organization("acme")
    ending = key(acme, expires_at=now + dt.timedelta(days=40))
    rotated = key(acme, name="Rotated")
    lifecycle.rotate_key(COMMAND, rotated.key, overlap=dt.timedelta(days=1), now=now)
    directory.refresh()

    def asked(issued: lifecycle.Issued, **later: float) -> Answer:
        monkeypatch.setattr(gateway, "now", lambda: (now + dt.timedelta(**later)).timestamp())
        return ask(bearer=issued.plaintext)

    assert [asked(ending, days=days).headers["X-Portal-Key-Expires"] for days in (0, 0, 9)] == [""] * 3
    assert asked(ending, days=11).headers["X-Portal-Key-Expires"]
    assert asked(ending, days=39).code == "VALID"
    assert asked(ending, days=40, seconds=1).code == "EXPIRED"
    assert [asked(rotated, hours=hours).code for hours in (0, 23, 25)] == ["VALID", "VALID", "REVOKED"]
    lifecycle.edit_policy(COMMAND, acme.policy, brownout_days=14, now=now)
    directory.refresh()
    codes = {asked(ending, days=39, minutes=minute).code for minute in range(24 * 60 - 1)}
    assert codes == {"VALID", "BROWNOUT"}
