"""To which address of another machine the fleet's bearer is sent: plain HTTP leads to loopback and
private addresses only, and nowhere where the fleet has a `ca`."""

from urllib.parse import urlsplit

from agent.core.network.addresses import refuse_address


def refuse_peer(address: str, *, tls: bool) -> str:
    """Why the bearer is not sent to an address; "" = it is."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "it is no http:// or https:// address"
    if not host or parts.username is not None or parts.scheme not in ("http", "https"):
        return "it is no http:// or https:// address"
    if parts.scheme == "https":
        return ""
    if tls:
        return "this fleet has a ca, and the address is plain http://"
    usable = not refuse_address(host, private=True)
    near = host == "localhost" or (usable and refuse_address(host, private=False))
    return "" if near else "plain http:// is for loopback and private addresses"
