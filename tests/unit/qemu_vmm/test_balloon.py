import pytest

from wrennd.qemu_vmm import balloon
from wrennd.qemu_vmm.balloon import Balloon, BalloonStatsUpdate, BalloonUpdate
from wrennd.qemu_vmm.faults import Fault

MIB = 1 << 20
BALLOON = Balloon(amount_mib=10, deflate_on_oom=False, stats_polling_interval_s=1)


class Monitor:
    """What QEMU would be told, and what it answers."""

    def __init__(self, **answers):
        self.told, self.answers = [], answers

    def execute(self, command, **arguments):
        self.told.append((command, arguments))
        return self.answers.get(command)


def statistics(qemu):
    return balloon.statistics(qemu.execute, BALLOON, 128)


def test_the_target_is_what_the_guest_keeps():
    qemu = Monitor()
    after = balloon.updated(qemu.execute, BALLOON, BalloonUpdate(amount_mib=28), 128)
    assert after.amount_mib == 28
    balloon.updated(qemu.execute, BALLOON, BalloonUpdate(amount_mib=128), 128)
    assert qemu.told == [("balloon", {"value": 100 * MIB}), ("balloon", {"value": 1})]


@pytest.mark.parametrize(
    ("device", "update", "fault"),
    [
        (None, BalloonUpdate(amount_mib=1), "Device not found"),
        (BALLOON, BalloonUpdate(amount_mib=129), "less than 129MiB"),
        (BALLOON, BalloonStatsUpdate(stats_polling_interval_s=0), "enabled/disabled"),
        (
            Balloon(amount_mib=1, deflate_on_oom=True),
            BalloonStatsUpdate(stats_polling_interval_s=1),
            "enabled/disabled",
        ),
    ],
)
def test_updates_that_are_refused(device, update, fault):
    qemu = Monitor()
    with pytest.raises(Fault, match=fault):
        balloon.updated(qemu.execute, device, update, 128)
    assert qemu.told == []


def test_the_interval_may_change():
    qemu = Monitor()
    same = BalloonStatsUpdate(stats_polling_interval_s=1)
    assert balloon.updated(qemu.execute, BALLOON, same, 128) is BALLOON
    assert qemu.told == []
    other = BalloonStatsUpdate(stats_polling_interval_s=9)
    assert balloon.updated(qemu.execute, BALLOON, other, 128).stats_polling_interval_s == 9
    assert qemu.told[0][1]["value"] == 9


def test_statistics_are_shown_once_the_guest_sent_them():
    said = {"stat-free-memory": 5, "stat-swap-in": (1 << 64) - 1, "other": 1}
    qemu = Monitor(**{"query-balloon": {"actual": 120 * MIB}, "qom-get": {"stats": said}})
    assert statistics(qemu) == {
        "target_pages": 2560,
        "actual_pages": 2048,
        "target_mib": 10,
        "actual_mib": 8,
        "free_memory": 5,
    }


@pytest.mark.parametrize("answer", [None, [], {"stats": 1, "actual": "x"}, {"actual": 1 << 70}])
def test_whatever_qemu_answers_is_survived(answer):
    shown = statistics(Monitor(**{"query-balloon": answer, "qom-get": answer}))
    assert shown["actual_pages"] >= 0


def test_hinting_is_refused():
    with pytest.raises(Fault, match="free_page_hinting is not supported"):
        Balloon(amount_mib=0, deflate_on_oom=False, free_page_hinting=True).check(128)
    with pytest.raises(Fault, match="too large"):
        BALLOON.check(9)
