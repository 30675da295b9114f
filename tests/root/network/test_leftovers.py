"""Two installations on one host, one of them killed: neither disturbs the other."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from leaks import LeakCheck
from root.network.topology import HOST_ADDRESS, INTERNET, Worker, World
from wrennd.core.ids import new_installation_id, new_sandbox_id

pytestmark = pytest.mark.root

KERNEL = ("link", "namespace", "table", "mount", "file")


@pytest.fixture
def two(own_world: World, leak_check: LeakCheck) -> tuple[Worker, Worker]:
    """Workers of two installations that share a host."""
    ids = (new_installation_id(), new_installation_id())
    for made in ids:
        leak_check.watch(made)
    return own_world.worker(ids[0]), own_world.worker(ids[1])


def left(worker: Worker) -> list[str]:
    found = worker("snapshot")
    return [name for kind in KERNEL for name in found[kind]]


def test_two_installations_share_numbers_but_nothing_else(
    own_world: World, two: tuple[Worker, Worker]
) -> None:
    one, other = two
    slots = [
        worker("open", sandbox=new_sandbox_id(), dns=[]) for worker in (one, other, one, other)
    ]
    assert len({slot["index"] for slot in slots}) == 4
    assert len({slot["address"] for slot in slots}) == 4
    assert len(one("find")) == len(other("find")) == 2
    assert not set(one("find")) & set(other("find"))


def test_processes_that_open_and_close_at_once(
    own_world: World, two: tuple[Worker, Worker]
) -> None:
    """First and last slots of two installations meet: what they share comes and goes safely."""
    workers = [*two, *(own_world.worker(worker.installation) for worker in two)]
    guest = own_world.guest(two[0], "guest")
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: worker("rounds", count=8), workers))
    assert own_world.probe("guest", ("tcp", INTERNET, 80)) == [HOST_ADDRESS]
    two[0]("close", sandbox=guest.sandbox)
    assert [left(worker) for worker in two] == [[], []]
    assert own_world.run("host", "nft", "list", "tables") == ""


def test_the_killed_one_is_found_and_removed_beside_the_living(
    own_world: World, two: tuple[Worker, Worker]
) -> None:
    killed, living = two
    guest = own_world.guest(living, "guest")
    sandboxes = [new_sandbox_id() for _ in range(3)]
    for sandbox in sandboxes:
        killed("open", sandbox=sandbox, dns=[])
    killed.kill()
    assert own_world.probe("guest", ("tcp", INTERNET, 80)) == [HOST_ADDRESS]

    heir = own_world.worker(killed.installation)
    assert heir("find") == sorted(sandboxes)
    for sandbox in sandboxes:
        heir("remove", sandbox=sandbox)
        heir("remove", sandbox=sandbox)  # again: nothing is there, nothing happens
    assert heir("find") == []
    assert left(heir) == []
    assert living("find") == [guest.sandbox]
    assert own_world.probe("guest", ("tcp", INTERNET, 80)) == [HOST_ADDRESS]


@pytest.mark.parametrize("lost", ["lease", "alias", "namespace"])
def test_any_one_trace_is_enough(own_world: World, two: tuple[Worker, Worker], lost: str) -> None:
    killed, _ = two
    sandbox = new_sandbox_id()
    slot = killed("open", sandbox=sandbox, dns=[])
    killed.kill()
    link = f"w{killed.installation}v{slot['index']:x}"
    if lost != "lease":
        own_world.ip("host", "link", "set", link, "alias", "")
    else:
        (own_world.run_root / "slots" / str(slot["index"])).unlink()
    if lost == "namespace":
        own_world.run("host", "umount", slot["netns"])
        own_world.run("host", "rm", slot["netns"])
    heir = own_world.worker(killed.installation)
    assert heir("find") == [sandbox]
    heir("remove", sandbox=sandbox)
    assert left(heir) == []


def test_what_names_no_sandbox_is_swept(own_world: World, two: tuple[Worker, Worker]) -> None:
    """A link without alias and lease, and a table that outlived them."""
    swept, living = two
    living("open", sandbox=new_sandbox_id(), dns=[])
    link, table = f"w{swept.installation}vff", f"wrenn-{swept.installation}"
    own_world.ip("host", "link", "add", link, "type", "veth", "peer", "name", "orphan0")
    own_world.run("host", "nft", "add", "table", "inet", table)
    assert swept("find") == []
    assert left(swept) == [link, f"inet {table}"]
    before = left(living)
    swept("sweep")
    assert left(swept) == []
    assert left(living) == before


def test_sweeping_spares_what_is_in_use(own_world: World, two: tuple[Worker, Worker]) -> None:
    swept, _ = two
    swept("open", sandbox=new_sandbox_id(), dns=[])
    before = left(swept)
    swept("sweep")
    assert left(swept) == before


def test_a_slot_can_be_opened_again_after_a_crash(
    own_world: World, two: tuple[Worker, Worker]
) -> None:
    """Also while the old one's leftovers are still there: the number goes to nobody."""
    killed, _ = two
    killed("open", sandbox=new_sandbox_id(), dns=[])
    killed.kill()
    (own_world.run_root / "slots.lock").write_text("")
    heir = own_world.worker(killed.installation)
    (old,) = heir("find")
    guest = own_world.guest(heir, "guest")
    assert guest.slot["index"] == 1
    heir("remove", sandbox=old)
    assert own_world.probe("guest", ("tcp", INTERNET, 80)) == [HOST_ADDRESS]
    heir("close", sandbox=guest.sandbox)
    assert left(heir) == []
