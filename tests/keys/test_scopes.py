"""Scope names, and matching by equality alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import scopes

names = st.from_regex(r"\A[a-z][a-z0-9_.-]{0,9}(:[a-z0-9][a-z0-9_.-]{0,9}){1,3}\Z")


@pytest.mark.parametrize("name", ["orders:read", "a:b", "v1.all:read-2", "a:b:c", "a:0", "a" * 62 + ":b"])
def test_a_good_name(name: str) -> None:
    assert scopes.is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "orders",
        ":",
        "orders:",
        ":read",
        "a::b",
        "a:b:",
        "Orders:read",
        "orders:Read",
        "orders:*",
        "*",
        "orders read",
        "orders:read ",
        "orders:read\n",
        "orders:read,orders:write",
        "orders:read\0",
        "1orders:read",
        "-orders:read",
        "orders:-read",
        "órders:read",
        "orders:read\ud800",
        "orders/read",
        '"orders":read',
        "a" * 63 + ":b",
        "a:" + "b" * 2**20,
        "a:b" * 2**18,
    ],
    ids=lambda name: ascii(name[:24]) + f"…{len(name)}",
)
def test_a_bad_name(name: str) -> None:
    assert not scopes.is_name(name)


@given(names)
def test_a_name_survives_a_header_that_separates_by_spaces(name: str) -> None:
    assert scopes.is_name(name)
    assert f"{name} {name}".split() == [name, name]


@given(st.text(max_size=80))
def test_whatever_is_a_name_is_ascii_lower_case_and_short(text: str) -> None:
    if scopes.is_name(text):
        assert text.isascii()
        assert text == text.lower()
        assert not any(character.isspace() for character in text)
        assert len(text) <= scopes.MAX_LENGTH


@given(st.lists(names), st.frozensets(names))
def test_missing_is_what_is_needed_and_not_held(needed: list[str], held: frozenset[str]) -> None:
    missing = scopes.missing(needed, held)
    assert missing == sorted(set(missing))
    assert set(missing) == {name for name in needed if name not in held}


def test_writing_does_not_imply_reading_and_there_are_no_wildcards() -> None:
    held = frozenset({"orders:write", "orders:*", "orders"})
    assert scopes.missing(["orders:read"], held) == ["orders:read"]


def test_a_key_with_more_lacks_nothing() -> None:
    assert scopes.missing(["a:b"], frozenset({"a:b", "c:d"})) == []
    assert scopes.missing([], frozenset()) == []


def test_what_only_staff_may_grant_is_the_portals_own() -> None:
    assert {"portal:verify", "portal:report"} == scopes.STAFF_ONLY
    assert all(scopes.is_name(name) and name.startswith(scopes.PORTAL) for name in scopes.STAFF_ONLY)
