"""Networks as pairs of integers, so that a check on the gateway's path is a comparison and a mask."""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

# (bits of the address family, network, mask)
Network = tuple[int, int, int]
Address = tuple[int, int]  # (bits of the address family, address)
MAX_NETWORKS = 50
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def normalise(text: str) -> str:
    """`text` as a canonical CIDR network; a bare address becomes a network of one.

    Raises ValueError with a sentence that can be shown.
    """
    text = text.strip()
    try:
        if "%" in text:  # a zone means something on one machine only
            raise ValueError
        return str(_unmapped(ipaddress.ip_network(text)))
    except ValueError:
        try:
            strictest = ipaddress.ip_network(text.partition("%")[0], strict=False)
        except ValueError:
            raise ValueError(f"{text[:64]!r} is not an address or a network.") from None
        if "%" in text:
            raise ValueError(f"{text[:64]!r} has a zone, which means nothing here.") from None
        raise ValueError(f"{text} has host bits set; did you mean {strictest}?") from None


def _unmapped(
    network: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """IPv4 addresses written as IPv6 (RFC 4291, 2.5.5.2) as what they are: so are callers' addresses."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        bits = int(network.network_address) & 0xFFFF_FFFF
        return ipaddress.IPv4Network((bits, network.prefixlen - 96))
    return network


def compile_networks(networks: Iterable[str]) -> tuple[Network, ...]:
    """Canonical CIDR strings as integers."""
    compiled = []
    for text in networks:
        network = ipaddress.ip_network(text)
        compiled.append((network.max_prefixlen, int(network.network_address), int(network.netmask)))
    return tuple(compiled)


def as_text(networks: Iterable[Network]) -> list[str]:
    """Canonical CIDR strings again."""
    kinds = {32: ipaddress.IPv4Network, 128: ipaddress.IPv6Network}
    return [str(kinds[bits]((number, mask.bit_count()))) for bits, number, mask in networks]


@lru_cache(maxsize=4096)
def in_words(network: str) -> str:
    """A canonical network as people write it: one address alone goes without its prefix length."""
    parsed = ipaddress.ip_network(network)
    return str(parsed.network_address) if parsed.num_addresses == 1 else network


def parse_address(text: str) -> Address | None:
    """An address as (bits, integer), IPv4-mapped IPv6 as IPv4; None if it is not one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.max_prefixlen, int(address)


def contains(networks: Sequence[Network], address: Address | None) -> bool:
    """Is the address in one of the networks? An unknown address is in none."""
    if address is None:
        return False
    bits, number = address
    return any(family == bits and number & mask == network for family, network, mask in networks)
