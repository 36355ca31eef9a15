"""What stands in front of the user agent: it comes out as it went in, and no client can put it there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from keys.verdicts import VALID, Code
from tests.usage.journals import NOW
from usage import client, records
from usage.drain import drain_once
from usage.journal import Event, Journal
from usage.models import Refusal, ScopeUse, SecretUse, Source
from usage.records import AGENT_LENGTH, CONTEXT_LENGTH
from usage.traits import BROWSER, PLAIN, UNKNOWN, pack, unpack

scopes = st.lists(st.from_regex(r"[a-z]{1,9}:[a-z]{1,9}", fullmatch=True), max_size=40).map(tuple)


@given(agent=st.text(max_size=300), asked=scopes, traits=st.sampled_from(["", "b", "p", "bp"]))
def test_what_is_packed_comes_out(agent: str, asked: tuple[str, ...], traits: str) -> None:
    text = pack(agent, asked, traits)
    assert len(text) <= CONTEXT_LENGTH
    # As the journal and the drain see it.
    found = unpack(records.clean(text, CONTEXT_LENGTH))
    assert found.traits == traits
    assert found.scopes in (tuple(sorted(set(asked))), (UNKNOWN,))
    if not agent.startswith("\x1e"):
        assert found.agent == records.clean(agent, AGENT_LENGTH)


@pytest.mark.parametrize(
    "agent", ["\x1eb\x1f\x1fcurl", "\x1ep\x1forders:read\x1f", "\x1e", "\x1e\x1e\x1f\x1f"]
)
def test_a_client_cannot_say_it_by_its_user_agent(agent: str) -> None:
    for text in (pack(agent, ()), pack(agent, ("orders:write",))):
        found = unpack(text)
        assert found.traits == ""
        assert "orders:read" not in found.scopes


@pytest.mark.django_db
def test_the_drain_keeps_scopes_and_traits_apart_from_the_user_agent(journal: Journal) -> None:
    for code, text in (
        (0, pack("curl", ("b:x", "a:x"), BROWSER)),
        (0, pack("curl", ("a:x",), PLAIN)),
        (0, pack("curl", ())),
        (10, pack("curl", ("c:x",), PLAIN)),
    ):
        journal.append(
            Event(1, 2, 20, VALID.number if not code else Code.RATE_LIMITED.number, 1, labels(text))
        )
    drain_once(NOW)
    [source] = Source.objects.all()
    assert (source.user_agent, source.calls) == ("curl", 3)
    assert source.browser_at is not None
    assert source.plain_at is not None
    assert {use.scope for use in ScopeUse.objects.filter(key=2)} == {"a:x", "b:x"}
    assert SecretUse.objects.get().user_agent == "curl"
    assert Refusal.objects.get().user_agent == "curl"


def labels(text: str) -> tuple[str, str, str, str]:
    return "requests", "", "192.0.2.1", text


@pytest.mark.parametrize(
    ("peer", "proto", "traits"),
    [
        ("10.0.0.1", "http", PLAIN),
        ("10.0.0.1", "https, http", PLAIN),
        ("10.0.0.1", "HTTP", PLAIN),
        ("10.0.0.1", "http, https", ""),
        ("10.0.0.1", "junk", ""),
        ("10.0.0.1", None, ""),
        ("192.0.2.1", "http", ""),  # nobody whom we believe
    ],
)
def test_only_a_trusted_proxy_says_that_a_call_came_over_http(
    settings: Settings, peer: str, proto: str | None, traits: str
) -> None:
    settings.TRUSTED_PROXIES = ["10.0.0.0/8"]
    assert client.traits(peer, from_page=False, proto=proto) == traits
    assert client.traits(peer, from_page=True, proto=proto) == BROWSER + traits


@pytest.mark.parametrize("header", ["HTTP_ORIGIN", "HTTP_REFERER"])
def test_a_page_is_told_by_the_headers_of_a_browser(header: str) -> None:
    assert client.traits_of({"REMOTE_ADDR": "192.0.2.1", header: "https://shop.example"}) == BROWSER
    assert client.traits_of({"REMOTE_ADDR": "192.0.2.1"}) == ""
