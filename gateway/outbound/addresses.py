"""Which addresses may be connected to: public ones, and those of hosts that the operator listed.

What is judged is the address itself, after the name was looked up and just before it is connected to, so that neither a
spelling of an address nor a name that resolves to another address the second time gets past it.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

import httpx

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[list[Address]]]  # OSError or UnicodeError when it fails
# Of what `is_global` lets through or embeds, what reaches into a network all the same: NAT64 (RFC 6052, 8215), 6to4,
# Teredo, IPv6's former site-local addresses (RFC 3879), and addresses that only clouds answer on.
INWARD: Final = ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "fec0::/10")
EMBEDDING: Final = tuple(ip_network(text) for text in INWARD)
CLOUD: Final = tuple(ip_network(text) for text in ("168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"))


def is_public(address: Address) -> bool:
    """Whether the address belongs to the public internet: not private, loopback, link-local, multicast, reserved, a
    cloud's own, or an IPv6 spelling that may stand for one of these."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in EMBEDDING):
            return False
    if any(address in network for network in CLOUD if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def literal(host: str) -> Address | None:
    """The address that a host is, or None for a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def permitted(addresses: Iterable[Address], host: str, *, private_ok: bool) -> list[Address]:
    """Those that may be connected to, in order and once each; httpx.ConnectError when there is none."""
    found = list(dict.fromkeys(addresses))
    allowed = [one for one in found if private_ok or is_public(one)]
    if found and not allowed:
        text = f"{host} is at a private address; an operator may list the host in the provider's row"
        raise httpx.ConnectError(text)
    if not allowed:
        raise httpx.ConnectError(f"{host} has no address")
    return allowed


async def system_resolver(host: str, port: int) -> list[Address]:
    """What the system says. A link-local IPv6 address carries its interface behind a "%"."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(str(item[4][0]).partition("%")[0]) for item in found]


async def look_up(host: str, port: int, *, private_ok: bool, resolve: Resolve = system_resolver) -> list[Address]:
    """The permitted addresses of a host, in the resolver's order; httpx.ConnectError when there is none."""
    address = literal(host)
    if address is not None:
        return permitted([address], host, private_ok=private_ok)
    try:
        found = await resolve(host, port)
    except OSError as error:
        raise httpx.ConnectError(f"{host} could not be looked up ({error.strerror})") from None
    except UnicodeError:
        raise httpx.ConnectError(f"{host[:80]!r} is no host name") from None
    return permitted(found, host, private_ok=private_ok)
