"""The cgroup of one sandbox: made, limited, and put on its maker's stack to be removed."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from wrennd.host import capacity, record, unmake
from wrennd.linux.cgroup import Cgroup, Hierarchy
from wrennd.storage.layout import Layout
from wrennd.vmm.launch import MAX_TASKS

CPU_PERIOD_US = 100_000


def limits_of(vcpus: int, mem_mib: int) -> dict[str, str]:
    """What the VMM may use at most: its guest's share and what it needs itself."""
    cpus = vcpus + 1  # one for device emulation, beside one for each vCPU
    return {
        "pids.max": str(MAX_TASKS),
        "memory.max": str((mem_mib + capacity.VMM_OVERHEAD_MIB) << 20),
        "memory.swap.max": "0",
        "cpu.max": f"{cpus * CPU_PERIOD_US} {CPU_PERIOD_US}",
    }


@contextmanager
def cgroup_of(
    layout: Layout, sandbox_id: str, limits: Mapping[str, str]
) -> Iterator[Cgroup | None]:
    """As `make_cgroup`, for the length of a block."""
    with ExitStack() as held:
        yield make_cgroup(held, layout, sandbox_id, limits)


def make_cgroup(
    held: ExitStack, layout: Layout, sandbox_id: str, limits: Mapping[str, str]
) -> Cgroup | None:
    """The sandbox's cgroup, limited as far as there are controllers; None without cgroup2.

    What removes it, and kills what is in it, is put on `held`.
    """
    hierarchy = Hierarchy.find()
    if hierarchy is None:
        return None
    with record.installation_lock(layout):  # the last one to go removes the parent
        group = hierarchy.make(unmake.group_name(layout), sandbox_id)
    held.callback(unmake.remove_cgroup, layout, sandbox_id)
    for name, value in limits.items():
        group.limit(name, value)
    return group
