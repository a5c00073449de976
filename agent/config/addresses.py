"""Addresses as agent.toml writes them."""

import ipaddress


def split_address(text: str) -> tuple[str, int]:
    """HOST:PORT or [IPV6]:PORT; ValueError says what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("it must be HOST:PORT with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1])), int(port)
    if not host or ":" in host or any(not (sign.isalnum() or sign in ".-") for sign in host):
        raise ValueError("it must be HOST:PORT; an IPv6 address stands in [ ]")
    return host, int(port)


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
