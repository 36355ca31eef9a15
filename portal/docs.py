"""The pages of the public docs, in their order: names, headings, and how one leads to the next.

It alone says which pages there are; `portal.views.docs` renders them.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple


class Page(NamedTuple):
    """One page: its URL's name, what the navigation calls it, its heading and a sentence below that."""

    name: str
    label: str
    title: str
    lead: str


class Group(NamedTuple):
    """Pages that belong together."""

    title: str
    pages: Sequence[Page]


class Frame(NamedTuple):
    """What stands around one page."""

    page: Page
    groups: Sequence[Group]
    before: Page | None
    after: Page | None


GROUPS: Final = (
    Group(
        "Start",
        (
            Page("docs", "Overview", "Docs", "From the first call to keys that look after themselves."),
            Page(
                "docs_authentication",
                "Authentication",
                "Authentication",
                "How to send a key, and what an answer says about it.",
            ),
            Page(
                "docs_scopes",
                "Scopes",
                "Scopes",
                "A key may do what its scopes say and nothing more; a scope never includes another.",
            ),
            Page(
                "docs_limits",
                "Limits",
                "Limits",
                "How much a key may call, how to see what is left, and what to do when nothing is.",
            ),
            Page("docs_errors", "Errors", "Errors", "What each code means, and what to do."),
        ),
    ),
    Group(
        "Keys",
        (
            Page(
                "docs_rotation",
                "Rotation",
                "Rotation without an outage",
                "Two secrets work side by side until nobody uses the old one.",
            ),
            Page(
                "docs_expiry",
                "Expiry",
                "When a key expires",
                "Who is told, how a program notices by itself, and how to renew.",
            ),
            Page(
                "docs_leaks",
                "Leaked keys",
                "Leaked keys",
                "What happens when a key gets out, what to do, and how to find keys before others do.",
            ),
        ),
    ),
    Group(
        "Usage and billing",
        (
            Page(
                "docs_meters",
                "Meters",
                "Meters and resources",
                "What your calls are counted in, and under which names.",
            ),
            Page(
                "docs_billing",
                "Statements",
                "How a statement is made",
                "Every amount on it can be computed anew, by anybody.",
            ),
        ),
    ),
    Group(
        "API",
        (
            Page(
                "docs_api",
                "Reference",
                "API reference",
                "Every call of this portal’s own API with its fields and answers, to be tried with a key.",
            ),
            Page(
                "docs_keys",
                "Keys by API",
                "Keys by API",
                "Let your own programs make, rotate and revoke your organization’s keys.",
            ),
            Page(
                "docs_usage",
                "Usage by API",
                "Usage by API",
                "Read what was used. And if you run the API: report what was used elsewhere, or what a call "
                "turned out to cost.",
            ),
        ),
    ),
    Group(
        "If you run the API",
        (
            Page(
                "docs_gateway",
                "Proxies",
                "Put a proxy in front of an API",
                "The proxy asks this portal before every call. The API never sees a key, only who is "
                "calling.",
            ),
        ),
    ),
)
_ALL: Final = [page for group in GROUPS for page in group.pages]


def frame(name: str) -> Frame:
    """What stands around the page of this name."""
    at = next(index for index, page in enumerate(_ALL) if page.name == name)
    before = _ALL[at - 1] if at else None
    after = _ALL[at + 1] if at + 1 < len(_ALL) else None
    return Frame(_ALL[at], GROUPS, before, after)
