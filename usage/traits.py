"""What a call's record says in front of its user agent: the scopes that it was asked for, and how it came.

A record has four texts and no room for more, so these stand in the text of the user agent, which is defined
once for all calls of a client that are asked about in one way. This module alone puts them there and takes
them away; what a client sends can never pass for them.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from usage.records import AGENT_LENGTH, CONTEXT_LENGTH

BROWSER: Final = "b"  # a page's script: browsers say which page it is
PLAIN: Final = "p"  # over http without TLS, as a trusted proxy says
UNKNOWN: Final = "*"  # in the place of scopes that are too long to be kept; no scope's name
_MARK, _END = "\x1e", "\x1f"
_SCOPES_LENGTH: Final = CONTEXT_LENGTH - AGENT_LENGTH - 8


class Context(NamedTuple):
    """What the text of a user agent holds."""

    agent: str
    scopes: tuple[str, ...] = ()  # (UNKNOWN,) if they are not known
    traits: str = ""  # BROWSER, PLAIN, both or none


@lru_cache(maxsize=8192)
def pack(agent: str, scopes: tuple[str, ...], traits: str = "") -> str:
    """The text for a call's record."""
    agent = agent[:AGENT_LENGTH]
    if agent.startswith(_MARK):
        agent = "\ufffd" + agent[1:]
    if not scopes and not traits:
        return agent
    asked = " ".join(sorted(set(scopes)))
    if len(asked) > _SCOPES_LENGTH:
        asked = UNKNOWN
    return f"{_MARK}{traits}{_END}{asked}{_END}{agent}"


def unpack(text: str) -> Context:
    """What `pack` put into it; any other text is a user agent."""
    if not text.startswith(_MARK):
        return Context(text[:AGENT_LENGTH])
    traits, _, rest = text[1:].partition(_END)
    asked, _, agent = rest.partition(_END)
    return Context(agent[:AGENT_LENGTH], tuple(asked.split()), traits)
