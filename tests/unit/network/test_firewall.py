"""The rule texts. What the rules do is tried in tests/root/network/test_firewall.py."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from wrennd.network.firewall import REFUSED, SlotRules, forwarding_rules, host_rules


def rules(*resolvers: str) -> str:
    return SlotRules(
        host_address=IPv4Address("198.19.0.6"),
        address=IPv4Address("198.19.0.7"),
        resolvers=tuple(map(IPv4Address, resolvers)),
        refused=(IPv4Network("203.0.113.77/32"),),
    ).render()


INSIDE = """
    0.0.0.1 10.255.0.1 100.127.255.255 127.0.0.1 169.254.169.254 172.31.0.1 192.168.0.1
    198.19.255.255 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
"""
OUTSIDE = """
    1.1.1.1 9.255.255.255 11.0.0.0 100.63.0.1 100.128.0.1 172.15.0.1 172.32.0.1 192.167.0.1
    192.169.0.1 198.17.0.1 198.20.0.1 223.255.255.255
"""


@pytest.mark.parametrize("text", INSIDE.split())
def test_refused(text: str) -> None:
    assert any(IPv4Address(text) in network for network in REFUSED)


@pytest.mark.parametrize("text", OUTSIDE.split())
def test_not_refused(text: str) -> None:
    assert not any(IPv4Address(text) in network for network in REFUSED)


def test_every_refused_network_is_in_the_set() -> None:
    text = rules()
    assert all(str(network) in text for network in REFUSED)
    assert "203.0.113.77/32" in text


def test_only_resolvers_are_exempt() -> None:
    assert "elements = { 10.0.0.53, 1.1.1.1 }" in rules("10.0.0.53", "1.1.1.1")
    assert "elements = {  }" not in rules(), "nft refuses an empty list"


def test_braces_are_paired() -> None:
    for text in (rules("10.0.0.1"), host_rules("abc123"), forwarding_rules(["eth0"])):
        assert text.count("{") == text.count("}")


def test_the_hosts_table_is_replaced_in_one_transaction() -> None:
    lines = host_rules("0bc123").splitlines()
    assert lines[:3] == [
        "add table inet wrenn-0bc123",
        "delete table inet wrenn-0bc123",
        "table inet wrenn-0bc123 {",
    ]


def test_host_rules_know_only_the_installations_links() -> None:
    text = host_rules("abc123")
    assert text.count('"wabc123v*"') == 5
    assert "198.19." not in text


def test_forwarding_adds_to_the_set() -> None:
    text = forwarding_rules(["wlan0", "eth0.7"])
    assert '{ "eth0.7", "wlan0" }' in text
    assert "delete" not in text
