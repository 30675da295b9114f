"""The balloon: memory that the guest is asked to give back, and what it tells of its memory.

QEMU's virtio-balloon does the work; here is what it is told, and how its answers look in the API.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from wrennd.qemu_vmm.faults import Fault, Prefix, unsupported
from wrennd.qemu_vmm.schema import Field, boolean, struct, unsigned

Execute = Callable[..., Any]  # `Qemu.execute`
BALLOON_DEVICE = "balloon"  # its id in QEMU
QOM_PATH = f"/machine/peripheral/{BALLOON_DEVICE}"
POLLING_PROPERTY = "guest-stats-polling-interval"  # in seconds; 0 is never
PAGE_SIZE = 4096
_PAGES_A_MIB = (1 << 20) // PAGE_SIZE
_UNREPORTED = (1 << 64) - 1  # QEMU's sign for a statistic that the guest has not sent
# Firecracker's name for each of QEMU 7.2's, in its order. It knows six more, of Linux 6.12.
_STATISTICS = {
    "swap_in": "stat-swap-in",
    "swap_out": "stat-swap-out",
    "major_faults": "stat-major-faults",
    "minor_faults": "stat-minor-faults",
    "free_memory": "stat-free-memory",
    "total_memory": "stat-total-memory",
    "available_memory": "stat-available-memory",
    "disk_caches": "stat-disk-caches",
    "hugetlb_allocations": "stat-htlb-pgalloc",
    "hugetlb_failures": "stat-htlb-pgfail",
}


@dataclass(frozen=True, kw_only=True)
class Balloon:
    """`amount_mib`: what is asked for now. `stats_polling_interval_s` 0: no statistics."""

    amount_mib: int
    deflate_on_oom: bool
    stats_polling_interval_s: int = 0
    free_page_hinting: bool = False
    free_page_reporting: bool = False

    def check(self, mem_size_mib: int) -> None:
        """Before the start. Errors: Fault."""
        if self.amount_mib > mem_size_mib:
            raise Fault(f"{Prefix.BALLOON_CONFIG}Amount of pages requested is too large.")
        if self.free_page_hinting:
            raise unsupported(Prefix.BALLOON_CONFIG, "free_page_hinting")


@dataclass(frozen=True, kw_only=True)
class BalloonUpdate:
    amount_mib: int


@dataclass(frozen=True, kw_only=True)
class BalloonStatsUpdate:
    stats_polling_interval_s: int


BALLOON = struct(
    "BalloonDeviceConfig",
    Balloon,
    (
        Field(key="amount_mib", kind=unsigned("u32"), required=True),
        Field(key="deflate_on_oom", kind=boolean, required=True),
        Field(key="stats_polling_interval_s", kind=unsigned("u16"), default=0),
        Field(key="free_page_hinting", kind=boolean, default=False),
        Field(key="free_page_reporting", kind=boolean, default=False),
    ),
)
BALLOON_UPDATE = struct(
    "BalloonUpdateConfig",
    BalloonUpdate,
    (Field(key="amount_mib", kind=unsigned("u32"), required=True),),
)
BALLOON_STATS_UPDATE = struct(
    "BalloonUpdateStatsConfig",
    BalloonStatsUpdate,
    (Field(key="stats_polling_interval_s", kind=unsigned("u16"), required=True),),
)
START_HINTING = struct(
    "StartHintingCmd",
    lambda acknowledge_on_stop: acknowledge_on_stop,
    (Field(key="acknowledge_on_stop", kind=boolean, default=True),),
    ignores_unknown=True,
)


def set_target(execute: Execute, balloon: Balloon, mem_size_mib: int) -> None:
    """Ask the guest for `amount_mib`; it follows when it can. Errors: those of `execute`."""
    # QEMU is told what the guest keeps, and takes no 0.
    execute("balloon", value=max(1, (mem_size_mib - balloon.amount_mib) << 20))


def updated(
    execute: Execute,
    balloon: Balloon | None,
    update: BalloonUpdate | BalloonStatsUpdate,
    mem_size_mib: int,
) -> Balloon:
    """The balloon after a PATCH. Errors: Fault, those of `execute`."""
    if balloon is None:
        raise _no_device(Prefix.BALLOON_UPDATE)
    if isinstance(update, BalloonUpdate):
        return _resized(execute, balloon, update.amount_mib, mem_size_mib)
    return _polled(execute, balloon, update.stats_polling_interval_s)


def _resized(execute: Execute, balloon: Balloon, amount_mib: int, mem_size_mib: int) -> Balloon:
    if amount_mib > mem_size_mib:
        raise Fault(
            f"{Prefix.BALLOON_UPDATE}Balloon: Requested memory should be less than {amount_mib}MiB"
        )
    balloon = replace(balloon, amount_mib=amount_mib)
    set_target(execute, balloon, mem_size_mib)
    return balloon


def _polled(execute: Execute, balloon: Balloon, interval_s: int) -> Balloon:
    if interval_s == balloon.stats_polling_interval_s:
        return balloon
    if interval_s == 0 or balloon.stats_polling_interval_s == 0:
        raise Fault(
            f"{Prefix.BALLOON_UPDATE}Balloon: Statistics cannot be enabled/disabled after "
            "activation."
        )
    execute("qom-set", path=QOM_PATH, property=POLLING_PROPERTY, value=interval_s)
    return replace(balloon, stats_polling_interval_s=interval_s)


def statistics(execute: Execute, balloon: Balloon | None, mem_size_mib: int) -> dict[str, int]:
    """What is asked for, what is given, what the guest says. Errors: as `updated`."""
    if balloon is None:
        raise _no_device(Prefix.INTERNAL)
    if balloon.stats_polling_interval_s == 0:
        raise Fault(f"{Prefix.INTERNAL}Balloon: Received stats query when stats are disabled.")
    kept = _number(execute("query-balloon"), "actual")
    reported = execute("qom-get", path=QOM_PATH, property="guest-stats")
    actual_pages = max(0, (mem_size_mib << 20) - kept) // PAGE_SIZE
    shown = {
        "target_pages": balloon.amount_mib * _PAGES_A_MIB,
        "actual_pages": actual_pages,
        "target_mib": balloon.amount_mib,
        "actual_mib": actual_pages // _PAGES_A_MIB,
    }
    values = reported.get("stats") if isinstance(reported, dict) else None
    for name, theirs in _STATISTICS.items():
        value = _number(values, theirs)
        if 0 <= value < _UNREPORTED:
            shown[name] = value
    return shown


def _number(answer: Any, key: str) -> int:
    """A number out of what QEMU answered; -1 in the place of anything else."""
    value = answer.get(key) if isinstance(answer, dict) else None
    return value if isinstance(value, int) else -1


def refuse_hinting(balloon: Balloon | None) -> None:
    """Always raises Fault: no balloon of ours has hinting."""
    if balloon is None:
        raise _no_device(Prefix.BALLOON_UPDATE)
    raise Fault(f"{Prefix.BALLOON_UPDATE}Balloon: Attempting to use hinting when not enabled")


def not_found(*, has_started: bool) -> Fault:
    """For a GET of a balloon that is not there."""
    if has_started:
        return _no_device(Prefix.INTERNAL)
    return Fault(f"{Prefix.BALLOON_CONFIG}No balloon device found.")


def _no_device(prefix: Prefix) -> Fault:
    return Fault(f"{prefix}Failed perform action on device: Device not found")
