from wrennd.host.group import limits_of


def test_limits_leave_room_for_the_vmm_itself():
    limits = limits_of(2, 512)
    assert limits == {
        "pids.max": "512",
        "memory.max": str(768 << 20),
        "memory.swap.max": "0",
        "cpu.max": "300000 100000",
    }
