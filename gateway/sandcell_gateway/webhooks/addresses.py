"""Where webhooks may go: to public addresses, and where the operator allows it. Pure.

The gateway can reach what its users cannot: services of its machine and its network,
and the metadata of a cloud. A webhook must be no way there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?\.?")

REFUSED: dict[Network, str] = {
    ip_network(text): word
    for text, word in {
        # IANA IPv4 Special-Purpose Address Registry, and addresses of clouds among public ones.
        "0.0.0.0/8": "this network",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "shared by carriers",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "metadata of a cloud",
        "169.254.0.0/16": "link-local",
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "protocol assignments",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "relays to IPv6",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarks",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "240.0.0.0/4": "reserved",
        # IPv6: of the one block that is public, the parts that are not, or that hold IPv4.
        "2001::/23": "protocol assignments",
        "2001:db8::/32": "documentation",
        "2002::/16": "tunnels to IPv4",
        "3fff::/20": "documentation",
    }.items()
}
_PUBLIC_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
"""Public IPv4 addresses as networks without IPv4 see them (RFC 6052)."""


def refusal(address: Address, own: Collection[Address] = ()) -> str | None:
    """Why nothing may be sent there; None when it may. `own` are this machine's addresses."""
    if address in own:
        return "this machine's own"
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return refusal(IPv4Address(int(address) & 0xFFFF_FFFF), own)
        if address not in _PUBLIC_V6:
            return "not public"
    return next((word for network, word in REFUSED.items() if address in network), None)


@dataclass(frozen=True)
class Allowed:
    """What an operator allows besides public addresses."""

    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, words: Iterable[str]) -> Allowed:
        """From host names, addresses and networks. Raises `ValueError` naming the bad one."""
        names: set[str] = set()
        networks: list[Network] = []
        for word in words:
            try:
                networks.append(ip_network(word.strip("[]")))
            except ValueError:
                if not _NAME.fullmatch(word):
                    raise ValueError(
                        "expected host names, addresses or networks such as hooks.internal, "
                        f"10.1.2.3 or 10.1.0.0/16, got {word!r}"
                    ) from None
                names.add(_plain(word))
        return cls(frozenset(names), tuple(networks))

    def admits(self, host: str, address: Address, own: Collection[Address]) -> bool:
        """Whether a webhook for this host may go to this address of it."""
        return (
            _plain(host) in self.names
            or any(address in network for network in self.networks)
            or refusal(address, own) is None
        )


def _plain(host: str) -> str:
    return host.lower().rstrip(".")


def literal(host: str) -> Address | None:
    """The host as an address; None when it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
