import pytest

from wrennd.qemu_vmm import resources
from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.phases import TABLE, Call, Phase, When, check

TAKEN = {
    When.ANY: set(Phase),
    When.BEFORE: {Phase.NOT_STARTED},
    When.BEFORE_OR_PCI: {Phase.NOT_STARTED},
    When.AFTER: {Phase.RUNNING, Phase.PAUSED},
    When.AFTER_WITH_PCI: set(),
}


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("when", list(When))
def test_each_call_in_each_phase(when, phase):
    if phase in TAKEN[when]:
        check(when, phase)
    else:
        with pytest.raises(Fault):
            check(when, phase)


def test_every_call_has_its_phase():
    assert set(Call) <= set(TABLE)
    assert resources.BootSource in TABLE
