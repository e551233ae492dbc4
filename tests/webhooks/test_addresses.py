"""Where webhooks may go."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandcell_gateway.webhooks.addresses import Address, Allowed, literal, refusal


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0.0.0.0", "this network"),
        ("10.1.2.3", "private"),
        ("100.64.0.1", "shared"),
        ("100.100.100.200", "shared"),  # the metadata of one cloud
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("168.63.129.16", "metadata"),
        ("169.254.169.254", "link-local"),
        ("172.16.0.1", "private"),
        ("172.31.255.255", "private"),
        ("192.0.0.192", "assignments"),
        ("192.0.2.1", "documentation"),
        ("192.88.99.1", "relays"),
        ("192.168.1.1", "private"),
        ("198.18.0.1", "benchmarks"),
        ("198.51.100.1", "documentation"),
        ("203.0.113.1", "documentation"),
        ("224.0.0.1", "multicast"),
        ("239.255.255.250", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::", "not public"),
        ("::1", "not public"),
        ("::7f00:1", "not public"),
        ("::ffff:127.0.0.1", "not public"),
        ("::ffff:8.8.8.8", "not public"),
        ("64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("64:ff9b:1::1", "not public"),
        ("100::1", "not public"),
        ("2001::1", "assignments"),
        ("2001:db8::1", "documentation"),
        ("2002:7f00:1::", "tunnels"),
        ("3fff::1", "documentation"),
        ("fc00::1", "not public"),
        ("fd00:ec2::254", "not public"),
        ("fe80::1", "not public"),
        ("fe80::1%eth0", "not public"),
        ("fec0::1", "not public"),
        ("ff02::1", "not public"),
        ("ff0e::1", "not public"),
    ],
)
def test_refused(text: str, why: str) -> None:
    assert why in (refusal(ip_address(text)) or "")


@pytest.mark.parametrize(
    "text",
    [
        "1.1.1.1",
        "8.8.8.8",
        "11.0.0.1",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.0.1",
        "172.32.0.1",
        "192.167.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::808:808",
    ],
)
def test_public(text: str) -> None:
    assert refusal(ip_address(text)) is None


SPECIAL = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:20::/28"),
        *("2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10"),
        *("fec0::/10", "ff00::/8"),
    )
]
"""What the registries of special-purpose and multicast addresses list."""


@given(st.sampled_from(SPECIAL).flatmap(lambda network: st.ip_addresses(network=network)))
def test_nothing_passes_that_has_a_special_purpose(address: Address) -> None:
    assert refusal(address) is not None


@given(st.ip_addresses())
def test_nothing_passes_that_python_calls_special(address: Address) -> None:
    """Its tables are others than ours, and have gaps where ours have none."""
    nat64 = isinstance(address, IPv6Address) and address.packed[:12] == bytes.fromhex(
        "0064ff9b0000000000000000"
    )
    if refusal(address) is None and not nat64:
        assert address.is_global
        assert not address.is_multicast
        assert not address.is_reserved
        assert not address.is_private


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_the_same_behind_nat64(address: IPv4Address) -> None:
    assert refusal(IPv6Address(f"64:ff9b::{address}")) == refusal(address)


@given(st.ip_addresses())
def test_this_machine_is_refused_by_all_its_addresses(address: Address) -> None:
    assert refusal(address, {address}) == "this machine's own"


def admits(words: list[str], host: str, address: str) -> bool:
    return Allowed.parse(words).admits(host, ip_address(address), {ip_address("8.8.4.4")})


def test_what_an_operator_allows_besides() -> None:
    words = ["hooks.Internal.", "10.1.0.0/16", "192.168.1.5", "[fd00::5]"]
    assert admits(words, "HOOKS.internal", "127.0.0.1")
    assert admits(words, "any.example", "10.1.255.1")
    assert admits(words, "any.example", "192.168.1.5")
    assert admits(words, "any.example", "fd00::5")
    assert admits(words, "any.example", "8.8.8.8")
    assert not admits(words, "any.example", "8.8.4.4")
    assert not admits(words, "any.example", "10.2.0.1")
    assert not admits(words, "evil.hooks.internal", "127.0.0.1")
    assert not admits(words, "any.example", "::ffff:10.1.0.1")
    assert not admits([], "localhost", "127.0.0.1")


@pytest.mark.parametrize("word", ["", "*", "https://a.example", "10.1.2.3/8", "a b", "a/8", "-a"])
def test_what_cannot_be_allowed(word: str) -> None:
    with pytest.raises(ValueError, match="expected host names, addresses or networks") as caught:
        Allowed.parse(["fine.example", word])
    assert repr(word) in str(caught.value)


def test_literals() -> None:
    assert literal("127.0.0.1") == IPv4Address("127.0.0.1")
    assert literal("::1") == IPv6Address("::1")
    assert literal("localhost") is None
    # The resolver takes these for addresses; what it makes of them is looked at later.
    assert literal("0x7f.1") is None
