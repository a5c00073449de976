"""Which addresses a webhook may lead to, with private = true and without."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.addresses import METADATA, refuse_address

NEVER = {
    "metadata": "169.254.169.254",
    "metadata, mapped": "::ffff:169.254.169.254",
    "metadata behind NAT64": "64:ff9b::a9fe:a9fe",
    "metadata behind a NAT64 of one's own": "64:ff9b:1::a9fe:a9fe",
    "metadata through 6to4": "2002:a9fe:a9fe::1",
    "metadata of Amazon, IPv6": "fd00:ec2::254",
    "link-local": "169.254.1.1",
    "link-local, IPv6": "fe80::1",
    "multicast": "224.0.0.251",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "reserved": "240.0.0.1",
    "no address": "localhost",
    "an odd spelling": "127.1",
}
PRIVATE = {
    "loopback": "127.0.0.1",
    "loopback, IPv6": "::1",
    "loopback, mapped": "::ffff:127.0.0.1",
    "10/8": "10.0.0.1",
    "192.168/16, mapped": "::ffff:192.168.1.1",
    "a carrier's": "100.64.0.1",
    "unique local": "fd12:3456::1",
    "NAT64 of one's own": "64:ff9b:1::808:808",
}
PUBLIC = {
    "IPv4": "8.8.8.8",
    "just outside 172.16/12": "172.32.0.1",
    "just outside 100.64/10": "100.128.0.1",
    "IPv6": "2606:4700::1111",
    "mapped": "::ffff:8.8.8.8",
    "behind NAT64": "64:ff9b::808:808",
}


@pytest.mark.parametrize("address", NEVER.values(), ids=NEVER)
def test_f62_never(address: str) -> None:
    assert refuse_address(address, private=True)
    assert refuse_address(address, private=False)


@pytest.mark.parametrize("address", PRIVATE.values(), ids=PRIVATE)
def test_f62_only_where_private_is_set(address: str) -> None:
    assert refuse_address(address, private=True) == ""
    assert "private = true is not set" in refuse_address(address, private=False)


@pytest.mark.parametrize("address", PUBLIC.values(), ids=PUBLIC)
def test_the_rest_of_the_world_is_allowed(address: str) -> None:
    assert refuse_address(address, private=False) == ""


@given(st.ip_addresses(v=4), st.booleans())
def test_f62_an_address_in_disguise_is_judged_as_without(
    address: ipaddress.IPv4Address, private: bool
) -> None:
    plain = refuse_address(str(address), private=private)
    for disguise in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert bool(refuse_address(disguise, private=private)) == bool(plain), disguise


@given(st.ip_addresses())
def test_f62_without_private_nothing_local_passes(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address in METADATA or address.is_private or address.is_link_local or address.is_loopback:
        assert refuse_address(str(address), private=False)
