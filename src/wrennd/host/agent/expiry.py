"""Ends sandboxes whose time has come: paused or destroyed, as their records say.

For the loop's thread. Nothing is decided by what is seen here: whether it is really due is looked
at again under the sandbox's lock. One that an operation holds is left for later.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from wrennd.core.errors import Error, NotFound, WrongState
from wrennd.core.expiry import Action, After
from wrennd.core.states import State
from wrennd.host import record
from wrennd.host.agent.activity import Activity, now_ms
from wrennd.host.agent.catalogue import Catalogue
from wrennd.host.agent.guests import Guests
from wrennd.host.agent.operations import Kind, Operations, Wanted
from wrennd.host.agent.sandboxes import Sandboxes
from wrennd.host.record import Record, Terms

log = logging.getLogger(__name__)
LOOK_S = 1.0
# What can't be paused now is tried again then: it costs its guest a freeze each time.
AGAIN_S = 60.0


class ExpiryLoop:
    """Looks at every sandbox that runs, and begins what is due."""

    def __init__(
        self,
        catalogue: Catalogue,
        activity: Activity,
        guests: Guests,
        sandboxes: Sandboxes,
        operations: Operations,
    ) -> None:
        self._catalogue = catalogue
        self._activity = activity
        self._guests = guests
        self._sandboxes = sandboxes
        self._operations = operations
        self._not_before: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until it is cancelled. Operations that were begun run to their end."""
        async with asyncio.TaskGroup() as group:
            while True:
                for found in await self._operations.call(self._due, Kind.LOOKS):
                    if found.id not in self._running:
                        self._running[found.id] = group.create_task(self._expire(found))
                await asyncio.sleep(LOOK_S)

    def _due(self) -> list[Record]:
        """Those whose time has come, as far as one can see from here."""
        records = self._catalogue.records()
        self._not_before = {
            found.id: self._not_before[found.id]
            for found in records
            if found.id in self._not_before
        }
        now = time.monotonic()
        return [
            found
            for found in records
            if found.state is State.RUNNING
            and self._is_due(found)
            and self._not_before.get(found.id, 0.0) <= now
        ]

    def _is_due(self, found: Record) -> bool:
        moment = found.expiry.moment_ms(
            set_ms=found.expiry_set_ms, active_ms=self._activity.last_ms(found.id)
        )
        return moment is not None and moment <= now_ms()

    async def _expire(self, found: Record) -> None:
        try:
            is_pause = found.expiry.action is Action.PAUSE
            kind = Kind.STOPS if is_pause else Kind.ENDS
            wanted = Wanted(method="Expire", sandbox=found.id, kind=kind)
            await self._operations.run(wanted, self._work(found, is_pause=is_pause))
        except (NotFound, WrongState):
            pass  # somebody was faster, or it was used meanwhile
        except Error as error:
            self._not_before[found.id] = time.monotonic() + AGAIN_S
            log.warning("could not expire", extra={"sandbox": found.id, "why": str(error)})
        finally:
            del self._running[found.id]

    def _work(self, found: Record, *, is_pause: bool) -> Callable[[], None]:
        def work() -> None:
            if self._has_processes(found):
                self._activity.touch(found.id)
                return
            terms = Terms(is_patient=False, cause=record.EXPIRY, check=self._check)
            if is_pause:
                self._sandboxes.pause(found.id, terms)
            else:
                self._sandboxes.destroy(found.id, terms)

        return work

    def _check(self, found: Record) -> None:
        """Errors: WrongState when it is not due any more, now that nobody else changes it."""
        if found.state is not State.RUNNING or not self._is_due(found):
            raise WrongState(f"sandbox {found.id} has not expired")

    def _has_processes(self, found: Record) -> bool:
        """Whether anything runs in it that was started through its agent; no, when it does not
        answer. A deadline does not ask."""
        if found.expiry.after is After.DEADLINE:
            return False
        try:
            with self._guests.reach(found.id) as envd:
                return bool(envd.processes.list())
        except Error:
            return False
