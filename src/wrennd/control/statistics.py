"""Series and sums over minutes, as the older API shows them. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta

from wrennd.control.store.usage import Minute

PEAK_MINUTES = 30 * 24 * 60
# How many minutes a series goes back, and how many make one of its points.
STEPS = {"5m": (5, 1), "1h": (60, 1), "6h": (360, 5), "24h": (1440, 15), "30d": (43200, 360)}


def series(minutes: Iterable[Minute], last: int, span: str) -> list[Minute]:
    """One point for each step up to the minute `last`: the most of each in it, 0 where none ran."""
    length, step = STEPS[span]
    first = (last - length) // step + 1
    found = {
        at: Minute(minute=at * step, running=0, vcpus=0, mem_mib=0)
        for at in range(first, last // step + 1)
    }
    for each in minutes:
        at = each.minute // step
        if at in found:
            found[at] = Minute(
                minute=at * step,
                running=max(found[at].running, each.running),
                vcpus=max(found[at].vcpus, each.vcpus),
                mem_mib=max(found[at].mem_mib, each.mem_mib),
            )
    return list(found.values())


def by_day(minutes: Iterable[Minute], first: date, last: date) -> list[tuple[date, float, float]]:
    """Of each day: minutes of vCPUs, and of MiB."""
    vcpus: dict[date, int] = defaultdict(int)
    memory: dict[date, int] = defaultdict(int)
    for each in minutes:
        day = time_of(each.minute).date()
        vcpus[day] += each.vcpus
        memory[day] += each.mem_mib
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [(day, float(vcpus[day]), float(memory[day])) for day in days]


def time_of(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


def minutes_of(first: date, last: date) -> tuple[int, int]:
    """The first minute of one day and the last of another."""
    start = datetime.combine(first, time.min, UTC)
    end = datetime.combine(last, time.max, UTC)
    return int(start.timestamp()) // 60, int(end.timestamp()) // 60
