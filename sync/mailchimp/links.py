"""Which links from outside may be followed: those that lead to public addresses, by name and by where a name resolves.

A link comes from Mailchimp, but an attacker who changed it in transit would have this server fetch from networks that
only it can reach. A URL is parsed with httpx, so that what is checked is what is fetched.
"""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.request import getproxies, proxy_bypass

import httpx

PRIVATE_SUFFIXES = frozenset({"localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "arpa"})
"""Last labels of host names that exist only in private networks."""

HTTPS_PORT = 443
GLOBAL_UNICAST = ip_network("2000::/3")
TRANSITION = (ip_network("2002::/16"), ip_network("2001::/32"))  # 6to4 and Teredo embed IPv4 addresses
DNS64 = ip_network("64:ff9b::/96")  # what a resolver answers in a network without IPv4

Resolve = Callable[[str], list[str]]


def may_be_fetched(url: str, base_url: str) -> bool:
    """Return whether a link from outside may be followed: https to a public host, or to the host of *base_url*.

    Elsewhere than at the host of *base_url* only port 443 is allowed. All names of this machine count as one host. A
    name is public if it has a dot and no private suffix; where it resolves is for `resolves_to_public`.
    """
    try:
        link, base = httpx.URL(url), httpx.URL(base_url)
    except httpx.InvalidURL:
        return False
    host = host_of(link)
    if link.scheme in (base.scheme, "https") and is_own_host(host, base_url):
        return True
    if link.scheme != "https" or (link.port or HTTPS_PORT) != HTTPS_PORT:
        return False
    address = _parse(host)
    if address is not None:
        return is_public(address)
    # A last label of digits is an address in a form that only resolvers accept.
    ending = host.rpartition(".")[2]
    return "." in host and not ending[:1].isdigit() and ending not in PRIVATE_SUFFIXES


async def resolves_to_public(url: str, base_url: str, resolve: Resolve | None = None) -> bool:
    """Return whether every address of the link's host is public; True also for the host of *base_url*.

    A name that cannot be resolved here is left to the connection, which may go through a proxy that resolves it.
    """
    host = host_of(httpx.URL(url))
    if is_own_host(host, base_url) or goes_through_proxy(host):
        return True
    try:
        addresses = await asyncio.to_thread(resolve or _resolve, host)
    except OSError:
        return True
    return all(is_public_address(address) for address in addresses)


def host_of(url: httpx.URL) -> str:
    """Return the host as it is looked up: ASCII, lower case, without a final dot."""
    return url.raw_host.decode("ascii").lower().rstrip(".")


def is_own_host(host: str, base_url: str) -> bool:
    """Return whether this is the host of *base_url*; all names of this machine are one."""
    own = host_of(httpx.URL(base_url))
    return bool(host) and (host == own or (_is_loopback(host) and _is_loopback(own)))


def goes_through_proxy(host: str) -> bool:
    """Return whether the environment names a proxy for https, which then resolves names and connects."""
    proxies = getproxies()
    return ("https" in proxies or "all" in proxies) and not proxy_bypass(host)


def is_public_address(text: str) -> bool:
    """Return whether an address that a name resolved to is public, behind DNS64 too."""
    address = _parse(text)
    if isinstance(address, IPv6Address) and address in DNS64:
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    return address is not None and is_public(address)


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether an address is plainly one of the public internet, which embeds no other address."""
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, IPv4Address):
        return True
    return address in GLOBAL_UNICAST and not any(address in network for network in TRANSITION)


def _parse(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _resolve(host: str) -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, HTTPS_PORT, type=socket.SOCK_STREAM)]


def _is_loopback(host: str) -> bool:
    address = _parse(host)
    return host == "localhost" or (address is not None and address.is_loopback)
