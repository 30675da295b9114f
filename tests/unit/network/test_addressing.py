"""Slot numbers to addresses and names."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.core.errors import InvalidInput
from wrennd.network import addressing
from wrennd.network.addressing import (
    DEFAULT_POOL,
    GATEWAY_ADDRESS,
    GUEST_ADDRESS,
    GUEST_PREFIX,
    Addressing,
    parse_pool,
    slots_in,
)
from wrennd.network.firewall import REFUSED

SANDBOX = "abcdefghij0123456789"


def slot(index: int, pool: IPv4Network = DEFAULT_POOL) -> Addressing:
    return Addressing(installation="a1b2c3", sandbox_id=SANDBOX, index=index, pool=pool)


def test_first_and_last() -> None:
    first, last = slot(0), slot(4095)
    assert (str(first.host_address), str(first.address)) == ("198.19.0.0", "198.19.0.1")
    assert (str(last.host_address), str(last.address)) == ("198.19.31.254", "198.19.31.255")
    assert (first.link, last.link) == ("wa1b2c3v0", "wa1b2c3vfff")
    assert (first.uid, last.uid) == (1_879_100_000, 1_879_104_095)
    assert (first.host_mac, last.uplink_mac) == ("02:57:52:48:00:00", "02:57:52:55:0f:ff")
    assert first.netns == f"wrenn-a1b2c3-{SANDBOX}"
    assert first.alias == f"wrenn:a1b2c3:{SANDBOX}"


def test_the_default_pool_is_large_and_refused_to_guests() -> None:
    assert slots_in(DEFAULT_POOL) >= 4096
    assert any(DEFAULT_POOL.subnet_of(network) for network in REFUSED)


def test_the_guest_and_its_gateway_are_neighbours() -> None:
    network = IPv4Network((GUEST_ADDRESS, GUEST_PREFIX), strict=False)
    assert {GUEST_ADDRESS, GATEWAY_ADDRESS} == set(network.hosts())


@given(st.integers(0, 65535), st.integers(0, 65535))
def test_slots_share_nothing(one: int, other: int) -> None:
    pool = IPv4Network("10.128.0.0/15")
    assert slots_in(pool) == 65536
    values = [
        {s.host_address, s.address, s.link, s.uid, s.host_mac, s.uplink_mac}
        for s in (slot(one, pool), slot(other, pool))
    ]
    assert len(values[0]) == 6
    assert values[0] == values[1] if one == other else not values[0] & values[1]


@given(st.integers(0, 65535))
def test_link_names_fit_and_lead_back(index: int) -> None:
    name = slot(index, IPv4Network("10.128.0.0/15")).link
    assert len(name) <= 15
    assert addressing.slot_of_link("a1b2c3", name) == index
    assert addressing.slot_of_link("a1b2c4", name) is None


@pytest.mark.parametrize("name", ["eth0", "wa1b2c3v", "wa1b2c3vxy", "wa1b2c3v-1", "a1b2c3v0"])
def test_foreign_links_are_nobodys(name: str) -> None:
    assert addressing.slot_of_link("a1b2c3", name) is None


def test_names_lead_back_to_the_sandbox() -> None:
    made = slot(7)
    assert addressing.sandbox_of_alias("a1b2c3", made.alias) == SANDBOX
    assert addressing.sandbox_of_netns("a1b2c3", made.netns) == SANDBOX
    assert addressing.sandbox_of_alias("zzzzzz", made.alias) is None
    assert addressing.sandbox_of_netns("zzzzzz", made.netns) is None


def test_an_invalid_slot_cannot_exist() -> None:
    with pytest.raises(InvalidInput, match=r"198\.19\.0\.0/19 has no slot 4096"):
        slot(4096)
    with pytest.raises(InvalidInput, match="has no slot -1"):
        slot(-1)
    with pytest.raises(InvalidInput, match="not an installation id"):
        Addressing(installation="../etc", sandbox_id=SANDBOX, index=0)
    with pytest.raises(InvalidInput, match="not a sandbox id"):
        Addressing(installation="a1b2c3", sandbox_id="x", index=0)


def test_pools() -> None:
    assert parse_pool("") == DEFAULT_POOL
    assert parse_pool("10.200.0.0/16") == IPv4Network("10.200.0.0/16")
    assert slots_in(parse_pool("10.200.0.0/30")) == 2


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.1/16",
        "10.0.0.0/33",
        "10.0.0.0/31",
        "0.0.0.0/0",
        "0.0.0.0/8",
        "127.0.0.0/16",
        "169.254.0.0/16",
        "224.0.0.0/8",
        "255.255.0.0/16",
        "fd00::/64",
        "pool",
    ],
)
def test_pools_that_cannot_be(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_pool(text)


def test_addresses_are_values() -> None:
    assert slot(3).address == IPv4Address("198.19.0.7")
