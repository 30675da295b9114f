"""What the survey tells about hosts that stand in the way of slots."""

import pytest

from root.network.topology import UPLINK_MTU, Worker, World

pytestmark = pytest.mark.root


@pytest.fixture
def worker(own_world: World, installation: str) -> Worker:
    return own_world.worker(installation)


def test_a_plain_host(worker: Worker) -> None:
    before = worker("snapshot")
    assert worker("survey") == {
        "is_router": False,
        "uplinks": ["wan0"],
        "mtu": UPLINK_MTU,
        "forward_drops": [],
        "overlaps": [],
        "nft_problem": "",
        "tun_problem": "",
        "netns_problem": "",
    }
    assert worker("snapshot") == before


def test_routes_in_the_pool_are_named(own_world: World, worker: Worker) -> None:
    own_world.ip("host", "route", "add", "198.18.0.0/15", "via", "198.51.100.1")
    own_world.ip("host", "route", "add", "198.19.3.0/24", "dev", "lan0", "table", "77")
    own_world.ip("host", "route", "add", "198.20.0.0/16", "via", "198.51.100.1")
    own_world.ip("host", "route", "add", "128.0.0.0/1", "via", "198.51.100.1")
    assert worker("survey")["overlaps"] == ["198.18.0.0/15 by wan0", "198.19.3.0/24 by lan0"]


def test_firewalls_that_drop_are_named(own_world: World, worker: Worker) -> None:
    rules = (
        "table ip filter {\n"
        "  chain DOCKER-USER { }\n"
        "  chain FORWARD { type filter hook forward priority filter; policy drop; }\n"
        "}\n"
    )
    own_world.run("host", "nft", "-f", "-", stdin=rules)
    assert worker("survey")["forward_drops"] == [
        "table ip filter, chain FORWARD: policy drop (Docker)"
    ]


def test_a_router_and_no_way_out(own_world: World, worker: Worker) -> None:
    own_world.run("host", "sysctl", "-qw", "net.ipv4.ip_forward=1")
    own_world.ip("host", "route", "del", "default")
    found = worker("survey")
    assert found["is_router"]
    assert found["uplinks"] == []
    assert found["mtu"] == 1500
