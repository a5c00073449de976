"""Which addresses a URL from outside may lead to. Pure: an address in, a reason out.

A request from here reaches what only this machine reaches: its own services, its network, the
cloud's metadata. So the address decides that a name was resolved to, never the name.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

METADATA = frozenset(
    ip_address(text)
    for text in (
        "169.254.169.254",
        "100.100.100.200",  # Alibaba, in the carriers' range
        "168.63.129.16",  # Azure's wire server, in public space
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # Amazon
        "fd20:ce::254",  # Google
    )
)
"""Metadata services, where a machine in a cloud gets its keys. Most are link-local as well."""

_THIS_NETWORK = IPv4Network("0.0.0.0/8")
_FUTURE = IPv4Network("240.0.0.0/4")
_GLOBAL_6 = IPv6Network("2000::/3")
_COMPATIBLE = IPv6Network("::/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_NAT64_LOCAL = IPv6Network("64:ff9b:1::/48")

Address = IPv4Address | IPv6Address


def refuse_address(text: str, *, private: bool) -> str:
    """Return why the agent sends nothing to that address, or to text that is none; "" = it may."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "it is not an IP address"
    for candidate in (address, *_inside(address)):
        if why := _always(candidate):
            return why
        if not private and (why := _where(candidate)):
            return f"it is {why}, and private = true is not set"
    return ""


def _inside(address: Address) -> Iterator[IPv4Address]:
    """Yield the IPv4 addresses in an IPv6 one, which a gateway or the kernel unpacks."""
    if not isinstance(address, IPv6Address) or address.is_loopback:
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in (_COMPATIBLE, _NAT64, _NAT64_LOCAL)):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _always(address: Address) -> str:
    kinds = {
        "a cloud's metadata service": address in METADATA,
        "link-local": address.is_link_local,
        "multicast": address.is_multicast,
        "unspecified": address.is_unspecified or address in _THIS_NETWORK,
        "reserved": address in _FUTURE,
    }
    return next((f"it is {kind}" for kind, is_one in kinds.items() if is_one), "")


def _where(address: Address) -> str:
    if address.is_loopback:
        return "loopback"
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None or address in _COMPATIBLE or address in _NAT64:
            return ""  # the inner address is judged by itself
        # 6to4 has no public relays any more; only a host in this network still unpacks it.
        if address not in _GLOBAL_6 or address.sixtofour is not None:
            return "private"
    return "" if address.is_global else "private"
