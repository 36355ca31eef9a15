"""Networks as integers agree with `ipaddress` on every address, and junk is in no network."""

import ipaddress

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keys import networks

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
addresses = st.ip_addresses()


MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


@st.composite
def cidrs(draw: st.DrawFn) -> str:
    """Canonical networks: those of IPv4 addresses are never written as IPv6."""
    address = draw(addresses)
    bits = draw(st.integers(0, address.max_prefixlen))
    network = ipaddress.ip_network(f"{address}/{bits}", strict=False)
    assume(not (isinstance(network, ipaddress.IPv6Network) and network.subnet_of(MAPPED)))
    return str(network)


def seen_as(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> IP:
    """An IPv4 client on a dual-stack socket is still that IPv4 client."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def expected(cidr: str, address: IP) -> bool:
    network = ipaddress.ip_network(cidr)
    return seen_as(address).version == network.version and seen_as(address) in network


@given(st.lists(cidrs(), max_size=5), addresses)
def test_membership_is_what_ipaddress_says(texts: list[str], address: IP) -> None:
    compiled = networks.compile_networks(texts)
    found = networks.contains(compiled, networks.parse_address(str(address)))
    assert found == any(expected(text, address) for text in texts)


@given(cidrs(), st.data())
def test_the_ends_of_a_network_are_in_it_and_their_neighbours_are_not(text: str, data: st.DataObject) -> None:
    network = ipaddress.ip_network(text)
    compiled = networks.compile_networks([text])
    first, last = int(network.network_address), int(network.broadcast_address)
    bits = network.max_prefixlen
    inside = data.draw(st.integers(first, last))
    assert all(networks.contains(compiled, (bits, each)) for each in (first, inside, last))
    neighbours = [each for each in (first - 1, last + 1) if 0 <= each < 2**bits]
    assert not any(networks.contains(compiled, (bits, each)) for each in neighbours)


@given(addresses)
def test_a_bare_address_is_a_network_of_one(address: IP) -> None:
    plain = getattr(address, "ipv4_mapped", None) or address
    assert networks.normalise(str(address)) == f"{plain}/{plain.max_prefixlen}"


@given(cidrs())
def test_a_canonical_network_stays_as_it_is(text: str) -> None:
    assert networks.normalise(f" {text} ") == text
    assert networks.normalise(networks.normalise(text)) == text


def test_an_ipv4_client_on_an_ipv6_socket_is_in_the_ipv4_network() -> None:
    compiled = networks.compile_networks(["10.0.0.0/8"])
    assert networks.contains(compiled, networks.parse_address("::ffff:10.1.2.3"))
    assert not networks.contains(compiled, networks.parse_address("::ffff:11.1.2.3"))


def test_an_unknown_address_is_in_no_network_not_even_the_whole_internet() -> None:
    compiled = networks.compile_networks(["0.0.0.0/0", "::/0"])
    assert not networks.contains(compiled, networks.parse_address("unknown"))
    assert not networks.contains(compiled, None)
    assert not networks.contains((), networks.parse_address("10.0.0.1"))


def test_host_bits_are_refused_with_a_proposal() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.5/8 has host bits set; did you mean 10\.0\.0\.0/8\?"):
        networks.normalise("10.0.0.5/8")


JUNK = [
    "",
    " ",
    "/",
    "/8",
    "10.0.0.0/33",
    "10.0.0.0/-1",
    "10.0.0.0/8/8",
    "10.0.0",
    "010.0.0.1",
    "256.0.0.1",
    "::/129",
    ":::",
    "localhost",
    "10.0.0.1:80",
    "[::1]",
    "10.0.0.0/8\0",
    "\ud800",
    "１０.0.0.1",
    "9" * 2**20,
    "1." * 2**18,
]


@pytest.mark.parametrize("text", JUNK, ids=lambda text: ascii(text[:24]) + f"…{len(text)}")
def test_junk_is_refused_with_a_short_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address or a network") as refusal:
        networks.normalise(text)
    assert len(str(refusal.value)) < 700
    assert networks.parse_address(text) is None


@given(st.text(max_size=100))
def test_no_text_at_all_makes_an_address_fail(text: str) -> None:
    address = networks.parse_address(text)
    assert address is None or address[0] in (32, 128)


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%" + "a" * 1000])
def test_a_zone_does_not_change_where_an_address_is(text: str) -> None:
    address = networks.parse_address(text)
    assert networks.contains(networks.compile_networks(["fe80::/10"]), address)


@pytest.mark.parametrize("text", ["fe80::1%eth0", "fe80::1%<b>", "fe80::%\x00/64", "fe80::1%" + "x" * 10_000])
def test_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="zone"):
        networks.normalise(text)


def test_ipv4_written_as_ipv6_is_ipv4() -> None:
    assert networks.normalise("::ffff:10.0.0.0/104") == "10.0.0.0/8"
    compiled = networks.compile_networks(["10.0.0.0/8"])
    assert networks.contains(compiled, networks.parse_address("::ffff:10.1.2.3"))
