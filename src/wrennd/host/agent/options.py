"""What the agent is told when it is started: one frozen object, read once."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wrennd.core.config import Config

STOP_TIMEOUT_S = 120.0
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, kw_only=True)
class Options:
    """config: what every program of ours is told. uids: who may connect besides root."""

    config: Config
    socket: Path
    uids: tuple[int, ...] = ()
    stop_timeout_s: float = STOP_TIMEOUT_S
    mem_overcommit: float = 1.0


def parse(argv: Sequence[str], config: Config) -> Options:
    """Exits with 2, and says why, when they make no sense."""
    parser = argparse.ArgumentParser(prog="python -m wrennd.host.agent", description=__doc__)
    parser.add_argument("--data-dir", type=_absolute, default=config.data_dir)
    parser.add_argument("--socket", type=_absolute, required=True)
    parser.add_argument("--allow-uid", type=_uid, action="append", default=[], metavar="UID")
    parser.add_argument("--stop-timeout", type=_seconds, default=STOP_TIMEOUT_S, metavar="S")
    parser.add_argument("--mem-overcommit", type=_ratio, default=1.0, metavar="RATIO")
    found = parser.parse_args(argv)
    return Options(
        config=dataclasses.replace(config, data_dir=found.data_dir),
        socket=found.socket,
        uids=tuple(found.allow_uid),
        stop_timeout_s=found.stop_timeout,
        mem_overcommit=found.mem_overcommit,
    )


def _absolute(text: str) -> Path:
    return Path(text).absolute()


def _uid(text: str) -> int:
    return _within(int(text), 0, (1 << 32) - 2)


def _seconds(text: str) -> float:
    return _within(float(text), 0.0, 3600.0)


def _ratio(text: str) -> float:
    return _within(float(text), 0.1, 100.0)


def _within(value: Number, least: Number, most: Number) -> Number:
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
    return value
