from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.host.machine import limits_of


def test_limits_leave_room_for_the_vmm_itself():
    limits = limits_of(SandboxSpec(id=new_sandbox_id(), vcpus=2, mem_mib=512))
    assert limits == {
        "pids.max": "512",
        "memory.max": str(768 << 20),
        "memory.swap.max": "0",
        "cpu.max": "300000 100000",
    }
