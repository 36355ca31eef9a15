"""What memory does not know: what is looked up at all, and what the database is asked, in a flood too."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from keys import directory as directory_module
from keys import lifecycle, misses, records, tokens
from keys.directory import Directory
from keys.models import Secret
from keys.verdicts import Code
from tests import builders
from tests.keys.directories import COMMAND, NOW, Clock, code


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was looked for by its digest."""
    texts: list[str] = []

    def sha256(content: bytes) -> object:
        texts.append(content.decode())
        return tokens.sha256(content)

    monkeypatch.setattr(directory_module, "sha256", sha256)
    return texts


@pytest.mark.django_db
@pytest.mark.parametrize("hint", ["", "eign"])
def test_only_what_may_be_a_secret_is_digested(directory: Directory, digested: list[str], hint: str) -> None:
    acme = builders.organization("acme")
    directory.refresh()
    assert code(directory, "sk_foreign") is Code.MALFORMED
    assert digested == []
    foreign = tokens.digest("sk_foreign").hex()
    lifecycle.import_key(COMMAND, acme, name="Old", sha256=foreign, hint=hint, expires_at=None, now=NOW)
    directory.refresh()
    assert code(directory, "sk_foreign") is Code.VALID
    assert code(directory, "sk_other") is Code.MALFORMED
    assert digested == ["sk_foreign", "sk_other"]


@pytest.mark.django_db
def test_what_has_the_hint_of_no_secret_needs_no_digest(directory: Directory, digested: list[str]) -> None:
    acme = builders.organization("acme")
    issued = builders.key(acme, now=NOW)
    directory.refresh()
    strangers = [tokens.mint("lk", "live").plaintext for _ in range(5)]
    assert {code(directory, each) for each in strangers} == {Code.UNKNOWN}
    assert digested == []
    assert {code(directory, each) for each in strangers} == {Code.UNKNOWN}  # now that they are remembered
    assert digested == strangers
    assert code(directory, issued.plaintext) is Code.VALID
    brand_new = builders.key(acme, name="New", now=NOW)  # not read yet
    assert [code(directory, brand_new.plaintext) for _ in range(2)] == [Code.VALID] * 2


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["a secret without a hint", "too many hints"])
def test_what_may_have_any_hint_is_digested(
    directory: Directory, digested: list[str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "too many hints":
        monkeypatch.setattr(directory_module, "MOST_HINTS", 0)
    issued = builders.key(builders.organization("acme"), now=NOW)
    if why == "a secret without a hint":
        Secret.objects.update(hint="")
    directory.refresh()
    stranger = tokens.mint("lk", "live").plaintext
    assert code(directory, issued.plaintext) is Code.VALID
    assert code(directory, stranger) is Code.UNKNOWN
    assert digested == [issued.plaintext, stranger]


@pytest.mark.django_db
def test_of_strangers_only_the_last_are_remembered(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_module, "OTHERS", 3)
    directory.refresh()
    strangers = [tokens.mint("lk", "live").plaintext for _ in range(5)]
    assert {code(directory, each) for each in strangers} == {Code.UNKNOWN}
    with CaptureQueriesContext(connection) as queries:
        assert {code(directory, each) for each in strangers[2:]} == {Code.UNKNOWN}
    assert len(queries) == 0
    assert len(directory._strange_hints) == 3
    with CaptureQueriesContext(connection) as queries:
        assert code(directory, strangers[0]) is Code.UNKNOWN
    assert len(queries) == 1


@pytest.mark.django_db
def test_a_miss_asks_no_database_that_was_silent_a_moment_ago(directory: Directory, clock: Clock) -> None:
    directory.refresh()
    issued = builders.key(builders.organization("acme"), now=NOW)
    clock.now += directory_module.HEALTHY_SECONDS + 0.1
    with CaptureQueriesContext(connection) as queries:
        assert code(directory, issued.plaintext) is Code.UNAVAILABLE
    assert len(queries) == 0


@pytest.mark.django_db
def test_a_flood_of_well_formed_unknown_keys_costs_at_most_the_budget(directory: Directory) -> None:
    directory.refresh()
    budget = misses.WHEN_COMPLETE
    flood = [tokens.mint("lk", "live").plaintext for _ in range(budget * 3)]
    with CaptureQueriesContext(connection) as queries:
        codes = [code(directory, credential) for credential in flood]
    assert len(queries) == budget
    assert codes.count(Code.UNKNOWN) == budget
    assert codes.count(Code.UNAVAILABLE) == len(flood) - budget
    assert code(directory, flood[0]) is Code.UNKNOWN  # memory knows it, budget or not


def asked_about_strangers(directory: Directory, times: int) -> int:
    """How many of so many unknown keys the database was asked about."""
    with CaptureQueriesContext(connection) as queries:
        for _ in range(times):
            code(directory, tokens.mint("lk", "live").plaintext)
    return len(queries)


@pytest.mark.django_db
@pytest.mark.parametrize("complete", [True, False])
def test_a_spent_budget_is_earned_back_one_question_at_a_time(
    complete: bool, directory: Directory, clock: Clock, settings: Settings
) -> None:
    first, a_second = misses.WHEN_COMPLETE, misses.IN_VAIN
    if not complete:
        settings.KEYS_IN_MEMORY = 0
        first = a_second = misses.PER_SECOND
    directory.refresh()
    assert asked_about_strangers(directory, 200) == first
    for _ in range(5):
        clock.now += 1.001 / a_second
        directory.refresh()
        assert asked_about_strangers(directory, 3) == 1
    clock.now += 4.001 / a_second
    directory.refresh()
    assert asked_about_strangers(directory, 30) == 4
    clock.now += 3600
    directory.refresh()
    assert asked_about_strangers(directory, 200) == first  # and no more, however long nobody asked


@pytest.mark.django_db
def test_a_question_that_found_something_ends_a_flood(directory: Directory, clock: Clock) -> None:
    directory.refresh()
    assert asked_about_strangers(directory, 200) == misses.WHEN_COMPLETE
    issued = builders.key(builders.organization("acme"), now=NOW)
    assert code(directory, issued.plaintext) is Code.UNAVAILABLE
    clock.now += 1.001 / misses.IN_VAIN
    assert code(directory, issued.plaintext) is Code.VALID
    clock.now += 0.501  # a second's questions are as many as before
    assert asked_about_strangers(directory, 30) == misses.WHEN_COMPLETE // 2


@pytest.mark.django_db
@pytest.mark.parametrize("why", ["enough calls wait", "the budget is spent"])
def test_a_flood_that_is_not_asked_about_takes_no_lock(
    directory: Directory, clock: Clock, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    directory.refresh()
    unknown = tokens.mint("lk", "live").plaintext
    if why == "the budget is spent":
        assert asked_about_strangers(directory, 200) == misses.WHEN_COMPLETE
    else:
        assert all(directory._budget.take(complete=True) for _ in range(misses.AT_ONCE))
    with monkeypatch.context() as patch:
        for owner in (directory, directory._budget):
            patch.setattr(owner, "_mutex", None)  # whoever would take it fails
        assert code(directory, unknown) is Code.UNAVAILABLE
    if why == "enough calls wait":
        directory._budget.leave()
    clock.now += 1
    assert code(directory, unknown) is Code.UNKNOWN


@pytest.mark.django_db
def test_beyond_its_size_the_rest_is_asked_for(directory: Directory, settings: Settings) -> None:
    settings.KEYS_IN_MEMORY = 3
    acme = builders.organization("acme")
    keys = [builders.key(acme, name=str(n), now=NOW) for n in range(6)]
    directory.refresh()
    assert directory.size == 3
    assert [code(directory, issued.plaintext) for issued in keys] == [Code.VALID] * 6
    lifecycle.revoke_key(COMMAND, keys[5].key, now=NOW)
    directory.refresh()
    assert code(directory, keys[5].plaintext) is Code.REVOKED


@pytest.mark.django_db
def test_what_was_read_before_a_revocation_is_not_kept_after_it(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race between a miss's query and the feed: the feed wins."""
    directory.refresh()
    issued = builders.key(builders.organization("acme"), now=NOW)
    read_keys = records.read_keys

    def revoked_right_after_the_read(*arguments: object) -> object:
        monkeypatch.setattr(directory_module, "read_keys", read_keys)
        found = read_keys(*arguments)  # type: ignore[arg-type]  # passed through
        lifecycle.revoke_key(COMMAND, issued.key, now=NOW)
        directory.refresh()
        return found

    monkeypatch.setattr(directory_module, "read_keys", revoked_right_after_the_read)
    code(directory, issued.plaintext)  # began before the revocation: either answer is right
    assert code(directory, issued.plaintext) is Code.REVOKED
