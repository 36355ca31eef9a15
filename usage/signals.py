"""What may be amiss with a key, judged from what is known of it: each kind with its reason and its evidence.

Pure: `judge` looks at `Facts` and at nothing else, and writes nothing. `usage.watch` brings the facts and
keeps what is found.
"""

import datetime as dt
import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from keys.models import Environment, Key, Secret
from keys.networks import compile_networks, contains, in_words, parse_address
from keys.verdicts import Code
from usage.models import Source
from usage.sources import network_of
from usage.traits import UNKNOWN

ROTATE: Final = dt.timedelta(days=90)
IDLE: Final = dt.timedelta(days=90)
LATELY: Final = dt.timedelta(days=7)  # refusals, and secrets that are tried after their end
WATCHED: Final = dt.timedelta(days=14)  # before networks are proposed
SCOPES_WATCHED: Final = dt.timedelta(days=30)  # before scopes are said to be unused
AT_ONCE: Final = dt.timedelta(hours=1)
MANY_NETWORKS: Final = 8
FEW_NETWORKS: Final = 4
MANY_REFUSALS: Final = 100
REFUSED_SHARE: Final = 5  # one call in so many
# Addresses that say where the proxy is rather than the client, or mean something else elsewhere.
_INSIDE: Final = compile_networks(
    ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "::1/128", "fc00::/7")
)


class Kind(StrEnum):
    BROWSER = "browser"
    PLAIN = "plain"
    LATE = "late"
    MANY_NETWORKS = "many_networks"
    REFUSALS = "refusals"
    OLD_SECRET = "old_secret"  # noqa: S105  a name of a signal
    MAKER_LEFT = "maker_left"
    NO_EXPIRY = "no_expiry"
    SCOPES = "scopes"
    IDLE = "idle"
    NETWORKS = "networks"


class Meaning(NamedTuple):
    """A kind in words, and what it weighs: a key's score is the sum of its signals' points."""

    title: str
    reason: str
    points: int


MEANINGS: Final[Mapping[Kind, Meaning]] = {
    Kind.BROWSER: Meaning(
        "Used from web pages",
        "A key in a page or its scripts can be read by every visitor. Let your own server make the calls, "
        "and rotate the key.",
        40,
    ),
    Kind.PLAIN: Meaning(
        "Sent over plain http",
        "Without TLS anybody on the way can read the key. Call https:// addresses only, and rotate the key.",
        35,
    ),
    Kind.LATE: Meaning(
        "An ended secret is still tried",
        "Somebody was left behind by a rotation, or has a copy that they should not have.",
        20,
    ),
    Kind.MANY_NETWORKS: Meaning(
        "Used from many networks at once",
        "One service rarely is. A key that is shared or has leaked looks like this.",
        30,
    ),
    Kind.REFUSALS: Meaning(
        "Many calls are refused",
        "A caller does not work as it should, or tries what it may not.",
        15,
    ),
    Kind.OLD_SECRET: Meaning(
        "The secret is old",
        "The longer a secret lives, the more copies there are of it. Rotating costs no call.",
        15,
    ),
    Kind.MAKER_LEFT: Meaning(
        "Its maker has left",
        "Who made its secret has seen it, and is no longer in the organization. Rotating ends that.",
        15,
    ),
    Kind.NO_EXPIRY: Meaning(
        "Never expires",
        "A key that is forgotten works for ever. With an expiry it ends by itself, and you are told before.",
        10,
    ),
    Kind.SCOPES: Meaning(
        "May do more than it does",
        "What a key does not need, only somebody else can use.",
        15,
    ),
    Kind.IDLE: Meaning(
        "Not used for long",
        "A key that nobody needs can only do harm.",
        10,
    ),
    Kind.NETWORKS: Meaning(
        "Could be limited to its networks",
        "It is used from few places only. Limited to them, a stolen copy is of no use elsewhere.",
        5,
    ),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one key that works. Calls and refusals are those of the last LATELY."""

    key: Key
    secret: Secret  # the current one
    maker_left: bool = False
    rotate_days: int | None = None  # the policy's
    last_used: dt.datetime | None = None
    sources: Sequence[Source] = ()
    outcomes: Mapping[str, int] = field(default_factory=dict)  # code → calls
    scopes: Collection[str] = ()  # that it holds
    needed: Mapping[str, dt.datetime] = field(default_factory=dict)  # scope → when a call last asked for it
    scopes_edited_at: dt.datetime | None = None
    late_calls: int = 0
    late_at: dt.datetime | None = None


type Evidence = dict[str, Any]  # JSON: `sentence`, and what a mend needs


def judge(facts: Facts, now: dt.datetime) -> dict[Kind, Evidence]:
    """Which signals a key raises at `now`, with their evidence."""
    looks = {
        Kind.BROWSER: _browser(facts, now),
        Kind.PLAIN: _plain(facts, now),
        Kind.LATE: _late(facts),
        Kind.MANY_NETWORKS: _many_networks(facts, now),
        Kind.REFUSALS: _refusals(facts),
        Kind.OLD_SECRET: _old_secret(facts, now),
        Kind.MAKER_LEFT: _maker_left(facts),
        Kind.NO_EXPIRY: _no_expiry(facts),
        Kind.SCOPES: _scopes(facts, now),
        Kind.IDLE: _idle(facts, now),
        Kind.NETWORKS: _networks(facts, now),
    }
    return {kind: evidence for kind, evidence in looks.items() if evidence}


def score(kinds: Iterable[str]) -> int:
    """The points of these signals together; a kind of a later version weighs nothing."""
    return sum(MEANINGS[Kind(kind)].points for kind in kinds if kind in Kind)


def _browser(facts: Facts, now: dt.datetime) -> Evidence:
    return _seen(facts, [(each.browser_at, each) for each in facts.sources], now, "named a web page")


def _plain(facts: Facts, now: dt.datetime) -> Evidence:
    return _seen(facts, [(each.plain_at, each) for each in facts.sources], now, "came over plain http")


def _seen(
    facts: Facts, moments: Sequence[tuple[dt.datetime | None, Source]], now: dt.datetime, what: str
) -> Evidence:
    """The last call of a live key with a trait, if it was lately; each source has its own last."""
    lately = [(at, each) for at, each in moments if at is not None and at > now - LATELY]
    if facts.key.environment != Environment.LIVE or not lately:
        return {}
    at, source = max(lately, key=lambda pair: (pair[0], pair[1].address))
    address = "an unknown address" if source.is_other or not source.address else source.address
    agent = f" ({source.user_agent[:60]})" if source.user_agent else ""
    return {"sentence": f"A call on {_day(at)} from {address}{agent} {what}."}


def _scopes(facts: Facts, now: dt.datetime) -> Evidence:
    """Only where calls ask for scopes at all: a rule that asks for none leaves the question to the API."""
    since = now - SCOPES_WATCHED
    begun = [facts.key.created_at, *([facts.scopes_edited_at] if facts.scopes_edited_at else [])]
    if max(begun) > since or not facts.sources or min(each.first_seen for each in facts.sources) > since:
        return {}
    needed = {scope for scope, at in facts.needed.items() if at > since}
    unused = sorted(set(facts.scopes) - needed)
    kept = sorted(set(facts.scopes) & needed)
    if not kept or UNKNOWN in needed or not unused:
        return {}
    return {
        "sentence": f"In {SCOPES_WATCHED.days} days no call asked for {', '.join(unused)}. "
        f"{', '.join(kept)} would have been enough.",
        "scopes": kept,
    }


def _late(facts: Facts) -> Evidence:
    if not facts.late_calls or facts.late_at is None:
        return {}
    calls = _count(facts.late_calls, "call")
    return {
        "sentence": f"{calls} in {LATELY.days} days with a secret that had ended, the last on "
        f"{_day(facts.late_at)}. All were refused."
    }


def _many_networks(facts: Facts, now: dt.datetime) -> Evidence:
    if facts.key.environment != Environment.LIVE:
        return {}
    lately = [each for each in facts.sources if each.last_seen > now - AT_ONCE and each.address]
    networks = sorted({network_of(each.address) for each in lately if not each.is_other})
    if len(networks) < MANY_NETWORKS:
        return {}
    named = ", ".join(networks[:3])
    return {"sentence": f"{len(networks)} networks within an hour, among them {named}."}


def _refusals(facts: Facts) -> Evidence:
    refused = {code: calls for code, calls in facts.outcomes.items() if code != Code.VALID.name}
    count, total = sum(refused.values()), sum(facts.outcomes.values())
    if count < MANY_REFUSALS or count * REFUSED_SHARE < total:
        return {}
    top = max(refused, key=lambda code: (refused[code], code))
    title = Code[top].title.lower() if top in Code.__members__ else top
    return {
        "sentence": f"{count:,} of {total:,} calls in {LATELY.days} days were refused, mostly: {title}.",
        "code": top,
    }


def _old_secret(facts: Facts, now: dt.datetime) -> Evidence:
    age = now - facts.secret.created_at
    most = dt.timedelta(days=facts.rotate_days) if facts.rotate_days else ROTATE
    if age <= most:
        return {}
    whose = "this organization's policy asks" if facts.rotate_days else "good practice is"
    return {"sentence": f"It was made {age.days} days ago; {whose} for a new one after {most.days}."}


def _maker_left(facts: Facts) -> Evidence:
    if not facts.maker_left:
        return {}
    secret = facts.secret
    return {"sentence": f"{secret.created_by} made its secret on {_day(secret.created_at)}."}


def _no_expiry(facts: Facts) -> Evidence:
    return {} if facts.key.expires_at is not None else {"sentence": "It has no expiry."}


def _idle(facts: Facts, now: dt.datetime) -> Evidence:
    since = facts.last_used or facts.key.created_at
    if since > now - IDLE:
        return {}
    if facts.last_used is None:
        return {"sentence": f"It was never used since it was made on {_day(since)}."}
    return {"sentence": f"Its last call was on {_day(since)}, {(now - since).days} days ago."}


def _networks(facts: Facts, now: dt.datetime) -> Evidence:
    sources = facts.sources
    if facts.key.environment != Environment.LIVE or facts.key.networks or not sources:
        return {}
    if min(each.first_seen for each in sources) > now - WATCHED:
        return {}
    if max(each.last_seen for each in sources) < now - WATCHED:
        return {}
    if any(each.is_other or not _says_where(each.address) for each in sources):
        return {}
    proposed = sorted({str(ipaddress.ip_network(each.address)) for each in sources})
    if len(proposed) > FEW_NETWORKS:
        proposed = sorted({network_of(each.address) for each in sources})
    if len(proposed) > FEW_NETWORKS:
        return {}
    calls = sum(each.calls for each in sources)
    places = ", ".join(in_words(network) for network in proposed)
    return {
        "sentence": f"All of its {_count(calls, 'accepted call')} came from {places}.",
        "networks": proposed,
    }


def _says_where(address: str) -> bool:
    """Is this an address, or a network, by which a client can be told?"""
    parsed = parse_address(address.partition("/")[0])
    return parsed is not None and not contains(_INSIDE, parsed)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _day(moment: dt.datetime) -> str:
    return f"{moment.astimezone(dt.UTC):%-d %B %Y}"
