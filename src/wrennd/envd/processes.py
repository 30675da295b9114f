"""All processes that envd started: found by pid or tag, kept for a moment after their end."""

from __future__ import annotations

from wrennd.envd.connect import RpcError
from wrennd.envd.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wrennd.envd.loop import Loop
    from wrennd.envd.process import Subscriber
    from wrennd.envd.spawn import Launch
    from wrennd.envd.stdio import Stdio

# Who connects late still learns how it ended.
KEEP_ENDED_S = 30.0


class Processes:
    """Owns every process."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._by_pid: dict[int, Process] = {}

    @property
    def running(self) -> list[Process]:
        return [process for process in self._by_pid.values() if process.end is None]

    def start(
        self,
        launch: Launch,
        stdio: Stdio,
        subscriber: Subscriber,
        *,
        tag: str | None,
        limit_s: float | None,
    ) -> Process:
        """Errors: RpcError resource_exhausted; `stdio` is closed then."""
        process = Process(self._loop, launch, tag, self._gone)
        process.limit_s = limit_s
        process.subscribe(subscriber)
        try:
            process.start(stdio)
        except OSError as error:
            stdio.close()
            raise RpcError("resource_exhausted", f"no process can be started: {error}") from None
        self._by_pid[process.pid] = process
        return process

    def by_pid(self, pid: int) -> Process:
        """Errors: RpcError not_found."""
        process = self._by_pid.get(pid)
        if process is None:
            raise RpcError("not_found", f"process with pid {pid} not found")
        return process

    def by_tag(self, tag: str) -> Process:
        """The newest process with this tag. Errors: RpcError not_found."""
        for process in reversed(self._by_pid.values()):
            if process.tag == tag:
                return process
        raise RpcError("not_found", f"process with tag {tag!r} not found")

    def _gone(self, process: Process) -> None:
        if process.end is None:
            self._forget(process)
        else:
            self._loop.after(KEEP_ENDED_S, lambda: self._forget(process))

    def _forget(self, process: Process) -> None:
        # Its number may belong to a newer one.
        if self._by_pid.get(process.pid) is process:
            del self._by_pid[process.pid]
