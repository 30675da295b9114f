import pytest

from wrennd.core.errors import NoCapacity
from wrennd.host import capacity

MEMINFO = "MemTotal:       24684096 kB\nMemAvailable:    1048576 kB\n"


def test_what_fits_fits():
    capacity.check_memory(1024 - capacity.VMM_OVERHEAD_MIB, MEMINFO)


def test_what_others_have_not_taken_yet_is_not_there():
    wanted = 512 - capacity.VMM_OVERHEAD_MIB
    capacity.check_memory(wanted, MEMINFO, coming_mib=512)
    with pytest.raises(NoCapacity):
        capacity.check_memory(wanted, MEMINFO, coming_mib=513)


def test_what_does_not_is_refused_with_figures():
    with pytest.raises(NoCapacity, match="1000 MiB does not fit: this host has 1024 MiB") as caught:
        capacity.check_memory(1000, MEMINFO)
    assert "--memory" in caught.value.hint


def test_a_host_that_does_not_say_is_an_error_of_ours():
    with pytest.raises(ValueError, match="MemAvailable"):
        capacity.available_mib("MemTotal: 1 kB\n")
