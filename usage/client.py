"""Who is at the other end: the client's address and scheme, behind the proxies that are trusted.

A forwarded address is believed only from `TRUSTED_PROXIES`, and only as far as their chain reaches; anything
left of that is what the client chose to write. Nothing else reads `X-Forwarded-For`.
"""

import ipaddress
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from keys.networks import Network, compile_networks, contains, parse_address
from usage.traits import BROWSER, PLAIN


@lru_cache(maxsize=1)
def _trusted() -> tuple[Network, ...]:
    return compile_networks(settings.TRUSTED_PROXIES)


@lru_cache(maxsize=1)
def _gateway() -> tuple[Network, ...]:
    return compile_networks(settings.GATEWAY_NETWORKS)


def canonical(text: str) -> str:
    """An address as written in a header (`192.0.2.1:567`, `[2001:db8::1]:5`, `::ffff:192.0.2.1`) in its
    one form; empty if it is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address.scope_id is not None:
            return ""
    return str(address)


@lru_cache(maxsize=8192)
def is_trusted(peer: str) -> bool:
    """May this direct peer say who the client is?"""
    return contains(_trusted(), parse_address(peer))


@lru_cache(maxsize=1024)
def may_ask(peer: str) -> bool:
    """Is this direct peer in `GATEWAY_NETWORKS`?"""
    return contains(_gateway(), parse_address(peer))


@lru_cache(maxsize=8192)
def resolve(peer: str, forwarded: str | None) -> str:
    """The client's address, canonical; empty if nobody trusted knows it.

    `peer` is the direct peer's, `forwarded` the X-Forwarded-For that it sent.
    """
    address = canonical(peer)
    if forwarded is None or not is_trusted(address):
        return address
    if not forwarded:
        return ""  # bytes that are no header value, so nobody knows; no network contains it
    for text in reversed(forwarded.split(",")):
        hop = canonical(text)
        if not hop:
            break  # a trusted proxy could not tell; what stands left of it is not its word
        address = hop
        if not is_trusted(hop):
            break
    return address


def address(environ: Mapping[str, Any]) -> str:
    """As `resolve`, from a WSGI environ."""
    return resolve(environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR"))


def traits(peer: str, *, from_page: bool, proto: str | None) -> str:
    """How a call came, as `usage.traits` has it: `from_page` says whether a browser named the page whose
    script calls, `proto` is the X-Forwarded-Proto that the direct peer sent."""
    plain = proto is not None and is_trusted(canonical(peer)) and _last_word(proto) == "http"
    return (BROWSER if from_page else "") + (PLAIN if plain else "")


def traits_of(environ: Mapping[str, Any]) -> str:
    """As `traits`, from a WSGI environ."""
    from_page = "HTTP_ORIGIN" in environ or "HTTP_REFERER" in environ
    proto = environ.get("HTTP_X_FORWARDED_PROTO")
    return traits(environ.get("REMOTE_ADDR", ""), from_page=from_page, proto=proto)


def _last_word(proto: str) -> str:
    return proto.rpartition(",")[2].strip().lower()


def scheme(environ: Mapping[str, Any]) -> str:
    """`http` or `https`, as the client used it: the rightmost word of a trusted proxy."""
    if is_trusted(canonical(environ.get("REMOTE_ADDR", ""))):
        said = _last_word(environ.get("HTTP_X_FORWARDED_PROTO", ""))
        if said in ("http", "https"):
            return said
    return str(environ.get("wsgi.url_scheme", "http"))


_caches: list[Callable[[], None]] = [
    cached.cache_clear for cached in (_trusted, _gateway, is_trusted, may_ask, resolve)
]


def when_forgotten(clear: Callable[[], None]) -> None:
    """Have a cache of answers from here cleared with those of this module."""
    _caches.append(clear)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("TRUSTED_PROXIES", "GATEWAY_NETWORKS", "KEY_QUERY_PARAMETER"):
        for clear in _caches:
            clear()


setting_changed.connect(_forget)  # sent by tests only
