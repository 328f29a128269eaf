"""The address of a caller behind proxies: which forwarding headers are believed, and how far.

Every proxy appends the address that it got the request from to ``X-Forwarded-For``, in the same header line or in a
further one. So all lines are joined and read from the right, as far as the entries are trusted proxies; what is to
the left of the first other entry was written by the caller. ``Forwarded`` and ``X-Real-IP``, which proxies pass on as
they got them, are ignored.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

FORWARDED_FOR = "X-Forwarded-For"
FORWARDED_PROTO = "X-Forwarded-Proto"
_WITH_PORT = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5}")  # [::1], [::1]:80, 192.0.2.1:80


@dataclass(frozen=True, slots=True)
class Route:
    """*address*: that of the caller, or of the proxy next to an entry that is not an address (*is_whole* is False)."""

    address: str
    is_whole: bool = True


class Proxies:
    """The proxies in front of this server whose forwarding headers are trusted."""

    def __init__(self, trusted: tuple[str, ...]) -> None:
        """*trusted*: addresses or networks (``10.0.0.0/8``). Raises ``ValueError`` for anything else."""
        self._networks = tuple(ip_network(text, strict=False) for text in trusted)

    def route(self, remote: str, forwarded_for: Sequence[str]) -> Route:
        """How a request came from the caller to *remote*, by all ``X-Forwarded-For`` lines in order."""
        address = remote
        hops = ",".join(forwarded_for).split(",") if forwarded_for else []
        while hops and self.trusts(address):
            hop = parse_address(hops.pop())
            if hop is None:
                return Route(address, is_whole=False)
            address = str(hop)
        return Route(address)

    def trusts(self, address: str) -> bool:
        """Whether the address is that of a trusted proxy."""
        if not self._networks:
            return False
        parsed = parse_address(address)
        return parsed is not None and any(parsed in network for network in self._networks)


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """The address, without a port, IPv4 where it is an IPv4 address in IPv6; None for anything else."""
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2] or ""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
