"""The guest's wall clock, and the text form of a moment. Times are nanoseconds since 1970."""

from __future__ import annotations

import time

_DAYS_BEFORE_MONTH = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_FIRST_S, _LAST_S = -62135596800, 253402300799


class Clock:
    """CLOCK_REALTIME. Errors: PermissionError when it is set without the right."""

    def now_ns(self) -> int:
        return time.time_ns()

    def set_ns(self, moment_ns: int) -> None:
        time.clock_settime_ns(time.CLOCK_REALTIME, moment_ns)


def parse_moment(text: str) -> int:
    """An RFC 3339 moment, up to nanoseconds. Errors: ValueError."""
    date, separator, rest = text.replace("t", "T").replace("z", "Z").partition("T")
    offset_s = 0
    for sign in "+-":
        if sign in rest:
            rest, _, offset = rest.partition(sign)
            hours, minutes = _numbers(offset, ":", (23, 59))
            offset_s = (hours * 60 + minutes) * (60 if sign == "+" else -60)
            break
    else:
        if not rest.endswith("Z"):
            raise ValueError(f"{text!r} has no time zone")
        rest = rest[:-1]
    seconds, _, fraction = rest.partition(".")
    if not separator or len(fraction) > 9 or (fraction and not fraction.isdigit()):
        raise ValueError(f"{text!r} is not a moment")
    year, month, day = _numbers(date, "-", (9999, 12, 31))
    hour, minute, second = _numbers(seconds, ":", (23, 59, 60))
    if not (year >= 1970 and month and day):
        raise ValueError(f"{text!r} is not a moment after 1970")
    total_s = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset_s
    return total_s * 10**9 + int(fraction.ljust(9, "0"))


def _numbers(text: str, separator: str, most: tuple[int, ...]) -> list[int]:
    parts = text.split(separator)
    if len(parts) != len(most) or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is not {len(most)} numbers")
    numbers = [int(part) for part in parts]
    if any(number > limit for number, limit in zip(numbers, most, strict=True)):
        raise ValueError(f"{text!r} is out of range")
    return numbers


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar."""
    past = year - 1
    leap_days = past // 4 - past // 100 + past // 400 - 477  # 477 leap days before 1970
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    in_year = _DAYS_BEFORE_MONTH[month - 1] + (1 if is_leap and month > 2 else 0) + day - 1
    return (year - 1970) * 365 + leap_days + in_year


def format_moment(moment_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, from year 1 to 9999 as protobuf allows."""
    moment_s, fraction = divmod(moment_ns, 10**9)
    moment_s = min(max(moment_s, _FIRST_S), _LAST_S)
    # gmtime reaches back before 1970, unlike the parser, which only ever reads the present.
    at = time.gmtime(moment_s)
    return (
        f"{at.tm_year:04}-{at.tm_mon:02}-{at.tm_mday:02}"
        f"T{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}.{fraction:09}Z"
    )
