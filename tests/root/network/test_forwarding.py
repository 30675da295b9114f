"""Forwarding is turned on for slots, for nobody else, and off again."""

import pytest

from root.network.topology import HOST_ADDRESS, INTERNET, LAN, Worker, World
from wrennd.core.ids import new_sandbox_id

pytestmark = pytest.mark.root


@pytest.fixture
def worker(own_world: World, installation: str) -> Worker:
    return own_world.worker(installation)


def switch(made: World, name: str, value: str | None = None) -> str:
    key = f"net.ipv4.{name}"
    words = ["sysctl", "-n", key] if value is None else ["sysctl", "-qw", f"{key}={value}"]
    return made.run("host", *words).strip()


def strangers_pass(made: World) -> bool:
    """Whether the host carries packets between the internet and its LAN, either way."""
    for name in ("internet", "lan"):
        made.visitors(name)
    made.probe("lan", ("udp", INTERNET, 80), seconds=0.4)
    made.probe("internet", ("udp", LAN, 80), seconds=0.4)
    return bool(made.visitors("internet") or made.visitors("lan"))


def tables(made: World) -> str:
    return made.run("host", "nft", "list", "tables")


def test_the_host_becomes_no_router_for_others(own_world: World, worker: Worker) -> None:
    own_world.ip("internet", "route", "add", "192.168.77.7", "via", HOST_ADDRESS)
    assert switch(own_world, "ip_forward") == "0"
    guest = own_world.guest(worker, "guest")
    assert own_world.probe("guest", ("tcp", INTERNET, 80)) == [HOST_ADDRESS]
    assert switch(own_world, "ip_forward") == "0"
    assert switch(own_world, "conf.wan0.forwarding") == "1"
    assert switch(own_world, "conf.lan0.forwarding") == "0"
    assert not strangers_pass(own_world)
    worker("close", sandbox=guest.sandbox)
    assert switch(own_world, "conf.wan0.forwarding") == "0"
    assert tables(own_world) == ""
    switch(own_world, "ip_forward", "1")
    assert strangers_pass(own_world), "without us, and with ip_forward, they would"


def test_the_last_of_two_slots_turns_it_off(own_world: World, worker: Worker) -> None:
    sandboxes = [new_sandbox_id() for _ in range(2)]
    for sandbox in sandboxes:
        worker("open", sandbox=sandbox, dns=[])
    worker("close", sandbox=sandboxes[0])
    assert switch(own_world, "conf.wan0.forwarding") == "1"
    assert "wrenn-forwarding" in tables(own_world)
    worker("close", sandbox=sandboxes[1])
    assert switch(own_world, "conf.wan0.forwarding") == "0"
    assert tables(own_world) == ""


def test_a_router_stays_one(own_world: World, worker: Worker) -> None:
    switch(own_world, "ip_forward", "1")
    sandbox = new_sandbox_id()
    worker("open", sandbox=sandbox, dns=[])
    assert "wrenn-forwarding" not in tables(own_world)
    assert strangers_pass(own_world)
    worker("close", sandbox=sandbox)
    assert switch(own_world, "ip_forward") == "1"
    assert switch(own_world, "conf.wan0.forwarding") == "1"


def test_one_that_became_a_router_meanwhile_stays_one(own_world: World, worker: Worker) -> None:
    """Docker, say, was started while a sandbox ran."""
    sandboxes = [new_sandbox_id() for _ in range(2)]
    worker("open", sandbox=sandboxes[0], dns=[])
    switch(own_world, "ip_forward", "1")
    worker("open", sandbox=sandboxes[1], dns=[])
    assert "wrenn-forwarding" not in tables(own_world), "the next slot takes the guard away"
    assert strangers_pass(own_world)
    for sandbox in sandboxes:
        worker("close", sandbox=sandbox)
    assert switch(own_world, "conf.wan0.forwarding") == "1"


def test_with_no_way_to_the_internet_the_host_still_reaches_guests(
    own_world: World, worker: Worker
) -> None:
    own_world.ip("host", "route", "del", "default")
    guest = own_world.guest(worker, "guest")
    address = guest.slot["address"]
    own_world.serve("guest", ("127.0.0.1", "169.254.0.21"))
    assert own_world.probe("host", ("tcp", address, 80)) == ["169.254.0.22"]
    assert "wrenn-forwarding" not in tables(own_world)
