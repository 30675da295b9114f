"""The VMM's log, in the lines that Firecracker writes.

`TIME [ID:THREAD(:LEVEL)(:FILE:LINE)] TEXT`, to the file that `--log-path` or `PUT /logger` names,
else to standard output. Not `core/log.py`: this program stands in for another one, and its log is
part of what it imitates.
"""

import sys
import time
from enum import IntEnum

from wrennd.qemu_vmm.resources import LEVELS, Logger
from wrennd.qemu_vmm.sinks import Sink, open_sink

API_THREAD = "fc_api"
MAIN_THREAD = "main"


class Level(IntEnum):
    """By what is shown: a log at one level shows it and those above."""

    ERROR = 1
    WARN = 2
    INFO = 3
    DEBUG = 4


class Log:
    """Writing never fails; `missed` counts the lines that were lost.

    Owns the file that `update` opens, not the sink that it begins with.
    """

    def __init__(self, instance_id: str, sink: Sink) -> None:
        self._id, self._sink = instance_id, sink
        self._file: Sink | None = None
        self._level = LEVELS["info"]
        self._shows_level = self._shows_origin = False
        self._module = ""
        self.missed = 0

    def update(self, config: Logger) -> None:
        """Apply what is set in `config`. Errors: OSError when its file can't be opened."""
        if config.log_path is not None:
            file = open_sink(config.log_path)
            self.close()
            self._file = self._sink = file
        self._level = LEVELS[(config.level or "info").lower()]
        if config.show_level is not None:
            self._shows_level = config.show_level
        if config.show_log_origin is not None:
            self._shows_origin = config.show_log_origin
        if config.module is not None:
            self._module = config.module

    def error(self, text: str, thread: str = MAIN_THREAD) -> None:
        self._write(Level.ERROR, text, thread)

    def warn(self, text: str, thread: str = MAIN_THREAD) -> None:
        self._write(Level.WARN, text, thread)

    def info(self, text: str, thread: str = MAIN_THREAD) -> None:
        self._write(Level.INFO, text, thread)

    def debug(self, text: str, thread: str = MAIN_THREAD) -> None:
        self._write(Level.DEBUG, text, thread)

    def _write(self, level: Level, text: str, thread: str) -> None:
        if level > self._level:
            return
        caller = sys._getframe(2)
        if not str(caller.f_globals.get("__name__", "")).startswith(self._module):
            return
        extra = f":{level.name}" if self._shows_level else ""
        if self._shows_origin:
            extra += f":{caller.f_globals.get('__name__')}:{caller.f_lineno}"
        line = f"{_now()} [{self._id}:{thread}{extra}] {text}\n"
        if self._sink.write(line.encode(errors="backslashreplace")):
            self.missed += 1

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _now() -> str:
    ns = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(ns // 10**9)) + f".{ns % 10**9:09d}"
