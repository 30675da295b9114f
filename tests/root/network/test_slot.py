"""Slots made and unmade: what they hold, and that nothing of them is left, whatever happens."""

import json
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from root.network.topology import RESOLVER, Failed, Worker, World
from wrennd.core.ids import new_sandbox_id
from wrennd.linux import mountinfo, netns
from wrennd.network.addressing import FIRST_UID, GATEWAY_MAC, LINK_GROUP
from wrennd.network.slot import STEPS

pytestmark = pytest.mark.root

# All that a slot leaves traces in; the worker itself is a process with descriptors.
KERNEL = ("link", "namespace", "table", "mount", "file", "process")


@pytest.fixture
def worker(own_world: World, installation: str) -> Worker:
    return own_world.worker(installation)


def state(worker: Worker) -> dict[str, list[str]]:
    found = worker("snapshot")
    return {kind: found[kind] for kind in KERNEL}


def test_a_slot_is_what_its_number_says(own_world: World, worker: Worker) -> None:
    sandbox = new_sandbox_id()
    slot = worker("open", sandbox=sandbox, dns=[RESOLVER])
    assert slot["uid"] == FIRST_UID + slot["index"]
    name = f"wrenn-{worker.installation}-{sandbox}"
    assert slot["netns"].endswith(name)
    (link,) = (
        found
        for found in json.loads(own_world.ip("host", "-j", "-d", "link", "show"))
        if found.get("ifalias") == f"wrenn:{worker.installation}:{sandbox}"
    )
    assert link["ifname"] == f"w{worker.installation}v{slot['index']:x}"
    assert link["group"] == str(LINK_GROUP)
    assert link["mtu"] == 1400
    inside = {
        found["ifname"]: found
        for found in json.loads(own_world.run("host", *_in(slot), "ip", "-j", "-d", "a"))
    }
    assert inside["tap0"]["address"] == GATEWAY_MAC
    tun = inside["tap0"]["linkinfo"]["info_data"]
    assert (tun["type"], tun["persist"], tun["user"]) == ("tap", True, slot["uid"])
    assert "group" not in tun
    assert [a["local"] for a in inside["tap0"]["addr_info"]] == ["169.254.0.22"]
    assert [a["local"] for a in inside["uplink"]["addr_info"]] == [slot["address"]]
    (route,) = json.loads(own_world.run("host", *_in(slot), "ip", "-j", "route", "show", "default"))
    assert route["gateway"] == str(IPv4Address(slot["address"]) - 1)


def _in(slot: dict[str, str]) -> list[str]:
    return ["nsenter", f"--net={slot['netns']}", "--"]


def test_the_worker_stays_in_its_own_namespace(own_world: World, worker: Worker) -> None:
    worker("open", sandbox=new_sandbox_id(), dns=[])
    pid = worker.program.process.pid
    here = own_world.path("host").stat()
    threads = [task.joinpath("ns/net").stat() for task in Path(f"/proc/{pid}/task").iterdir()]
    assert {thread.st_ino for thread in threads} == {here.st_ino}


@pytest.mark.parametrize("name", STEPS)
def test_a_failure_after_each_step_leaves_nothing(worker: Worker, name: str) -> None:
    before = state(worker)
    with pytest.raises(Failed, match=f"Planned: after {name}"):
        worker("open", sandbox=new_sandbox_id(), dns=[], fail_after=name)
    assert state(worker) == before


def test_a_failure_beside_another_slot_leaves_that_alone(own_world: World, worker: Worker) -> None:
    own_world.guest(worker, "guest")
    before = state(worker)
    with pytest.raises(Failed, match="Planned"):
        worker("open", sandbox=new_sandbox_id(), dns=[], fail_after=STEPS[-1])
    assert state(worker) == before
    assert own_world.probe("guest", ("udp", RESOLVER, 53)) != ["silence"]


def test_fifty_rounds_leave_nothing(worker: Worker) -> None:
    before = worker("snapshot")
    worker("rounds", count=50)
    assert worker("snapshot") == before


def test_a_name_that_is_taken_is_not_taken_away(own_world: World, worker: Worker) -> None:
    sandbox = new_sandbox_id()
    worker("open", sandbox=sandbox, dns=[])
    twin = own_world.worker(worker.installation)
    with pytest.raises(Failed, match="FileExistsError"):
        twin("open", sandbox=sandbox, dns=[])
    assert f"wrenn-{worker.installation}-{sandbox}" in worker("snapshot")["namespace"]


def test_numbers_whose_addresses_lead_elsewhere_are_passed_over(
    own_world: World, worker: Worker
) -> None:
    own_world.ip("host", "route", "add", "198.19.0.0/29", "via", "198.51.100.1")
    own_world.ip("host", "addr", "add", "198.19.0.9/32", "dev", "lo")
    own_world.ip("host", "route", "add", "blackhole", "198.19.0.10/31")
    slot = worker("open", sandbox=new_sandbox_id(), dns=[])
    assert slot["index"] == 6


def test_default_routes_in_disguise_cost_no_number(own_world: World, worker: Worker) -> None:
    own_world.ip("host", "route", "add", "128.0.0.0/1", "via", "198.51.100.1")
    assert worker("open", sandbox=new_sandbox_id(), dns=[])["index"] == 0


def test_a_pool_in_use_is_refused_with_its_reason(own_world: World, installation: str) -> None:
    own_world.ip("host", "route", "add", "10.9.0.0/16", "via", "198.51.100.1")
    worker = own_world.worker(installation, pool="10.9.8.0/27")
    before = state(worker)
    with pytest.raises(Failed, match=r"NoCapacity: none of the 16 .* the addresses of 16 are"):
        worker("open", sandbox=new_sandbox_id(), dns=[])
    assert state(worker) == before


def test_a_full_pool_says_so(own_world: World, installation: str) -> None:
    worker = own_world.worker(installation, pool="198.19.40.0/30")
    for _ in range(2):
        worker("open", sandbox=new_sandbox_id(), dns=[])
    with pytest.raises(Failed, match=r"NoCapacity: none of the 2 .* 2 are held"):
        worker("open", sandbox=new_sandbox_id(), dns=[])


def test_the_directory_of_names_is_shared_once(worker: Worker) -> None:
    """The namespaces' directory is a shared mount, so that no copy of ours outlives us."""
    shared = [mount for mount in mountinfo.mounts() if mount.target == netns.NETNS_DIR]
    assert len(shared) == 1
