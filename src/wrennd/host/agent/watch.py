"""Notices when a VMM or a pager ends by itself, or a disk is about to: its sandbox is in error
then, with the reason.

For the loop's thread. What runs is looked for again and again, since the command line makes, pauses
and destroys sandboxes beside the agent.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

from wrennd.core.states import State
from wrennd.host import disk_watch
from wrennd.host.agent.catalogue import Catalogue
from wrennd.host.record import Record
from wrennd.linux.process import is_alive, reap
from wrennd.storage.layout import Layout

LOOK_S = 2.0
Process = tuple[int, int]  # pid and start time


class Watch:
    """The processes of everything that runs. `settle` is called for a sandbox that lost one."""

    def __init__(
        self, layout: Layout, catalogue: Catalogue, settle: Callable[[str], Awaitable[None]]
    ) -> None:
        self._layout = layout
        self._catalogue = catalogue
        self._settle = settle
        self._watched: dict[Process, tuple[int, str]] = {}
        self._ended: asyncio.Queue[str] = asyncio.Queue()
        self._to_reap: set[Process] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                await self._look()
                ended = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        ended = await self._ended.get()
                if ended is not None:
                    await self._settle(ended)
        finally:
            for process in list(self._watched):
                self._drop(process)

    async def _look(self) -> None:
        """Watch what runs and is not watched yet; forget the rest."""
        records, in_trouble = await asyncio.to_thread(self._see)
        for sandbox_id in in_trouble:
            self._ended.put_nowait(sandbox_id)
        running = {process: found.id for found in records for process in _processes(found)}
        for gone in self._watched.keys() - running.keys():
            self._drop(gone)
        self._reap(running.keys())
        for process in running.keys() - self._watched.keys():
            self._add(process, running[process])

    def _reap(self, running: Collection[Process]) -> None:
        """What the agent started and another command has ended is a zombie until then."""
        for process in self._to_reap.difference(running):
            reap(*process)
            if not Path(f"/proc/{process[0]}").exists():
                self._to_reap.discard(process)

    def _see(self) -> tuple[list[Record], list[str]]:
        """What runs, and what of it must not go on writing to its disk."""
        running = [one for one in self._catalogue.records() if one.state is State.RUNNING]
        disks = {one.id: self._layout.sandbox(one.id).disk for one in running}
        return running, [
            sandbox_id
            for sandbox_id, disk in disks.items()
            if disk_watch.trouble_of(self._layout, disk)
        ]

    def _add(self, process: Process, sandbox_id: str) -> None:
        try:
            pidfd = os.pidfd_open(process[0])
        except ProcessLookupError:
            self._ended.put_nowait(sandbox_id)
            return
        if not is_alive(*process):  # the pid is another's by now, or it waits to be reaped
            os.close(pidfd)
            self._ended.put_nowait(sandbox_id)
            return
        self._watched[process] = (pidfd, sandbox_id)
        self._to_reap.add(process)
        asyncio.get_running_loop().add_reader(pidfd, self._end, process)

    def _end(self, process: Process) -> None:
        _, sandbox_id = self._watched[process]
        self._drop(process)
        self._ended.put_nowait(sandbox_id)

    def _drop(self, process: Process) -> None:
        pidfd, _ = self._watched.pop(process)
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)


def _processes(found: Record) -> list[Process]:
    pairs = (
        (found.vmm_pid, found.vmm_start_time),
        (found.pager_pid, found.pager_start_time),
    )
    return [(pid, start) for pid, start in pairs if pid is not None and start is not None]
