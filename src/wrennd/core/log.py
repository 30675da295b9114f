"""Log lines with keys: `log.info("vm booted", extra={"vmm_pid": 7})`; ids are bound, not repeated.

Owns the two renderings (console and JSON) and the bound context. Programs call `configure` once
in their `__main__`; modules only ever use `logging.getLogger(__name__)`. Secrets, guest output
and request bodies are never logged.
"""

import contextvars
import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from wrennd.core.text import printable

_bound: contextvars.ContextVar[dict[str, Any] | None] = contextvars.ContextVar(
    "bound", default=None
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def bind(**keys: Any) -> Iterator[None]:
    """Add `keys` to every line logged inside the block."""
    token = _bound.set({**(_bound.get() or {}), **keys})
    try:
        yield
    finally:
        _bound.reset(token)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = {k: v for k, v in vars(record).items() if k not in _STANDARD}
    return {**(_bound.get() or {}), **given}


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(_fields(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class ConsoleFormatter(logging.Formatter):
    """`level event key=value ...`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        keys = " ".join(f"{k}={v}" for k, v in _fields(record).items())
        text = f"{record.levelname.lower():7} {record.getMessage()}"
        if keys:
            text += f"  {keys}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return printable(text)


def configure(
    *, level: str, form: Literal["console", "json"], stream: TextIO | None = None
) -> None:
    """Send the root logger to `stream` (default: stderr) in one form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
