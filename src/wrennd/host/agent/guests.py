"""The guests of sandboxes that run: found by id, used for a while, counted as used meanwhile.

Synchronous; from any thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from wrennd.core.deadline import Deadline
from wrennd.core.errors import Error, NotFound, VmmFailed, WrongState
from wrennd.core.ids import check_sandbox_id
from wrennd.core.states import State, require
from wrennd.host import record
from wrennd.host.agent.activity import Activity
from wrennd.host.envd_client import EnvdClient
from wrennd.host.local import LocalSandboxes
from wrennd.host.machine import Machine

END_S = 1.0


class Guests:
    """The running guests of one installation."""

    def __init__(self, local: LocalSandboxes, activity: Activity) -> None:
        self._local = local
        self._layout = local.layout
        self._activity = activity

    @contextmanager
    def using(self, sandbox_id: str) -> Iterator[EnvdClient]:
        """Its agent, for the length of the block, which counts as activity.

        Errors: NotFound; WrongState when it does not run, or stops to run meanwhile; VmmFailed.
        """
        with self._activity.using(check_sandbox_id(sandbox_id)), self.reach(sandbox_id) as envd:
            yield envd

    @contextmanager
    def reach(self, sandbox_id: str) -> Iterator[EnvdClient]:
        """As `using`, but nothing that counts as a use."""
        found = record.load(self._layout.sandbox(check_sandbox_id(sandbox_id)))
        require(found.id, found.state, State.RUNNING, reason=found.error)
        try:
            if found.is_pager_lost:
                raise ProcessLookupError
            machine = Machine.adopt(self._layout, found)
        except (ProcessLookupError, FileNotFoundError):
            raise self._local.why_not_running(found.id) from None
        try:
            yield machine.envd
        except VmmFailed as error:
            raise self._how_it_ended(machine) from error
        finally:
            machine.close()

    def _how_it_ended(self, machine: Machine) -> Error:
        """The VMM is gone: destroyed, paused by somebody, or by itself."""
        sandbox_id = machine.journal.record.id
        machine.vm.process.wait(Deadline.after(END_S))
        try:
            state = record.load(machine.journal.paths).state
        except (NotFound, WrongState):
            state = State.DESTROYING
        if state in (State.DESTROYING, State.PAUSING, State.PAUSED):
            became = "destroyed" if state is State.DESTROYING else "paused"
            return WrongState(f"sandbox {sandbox_id} was {became} meanwhile")
        return VmmFailed(
            f"sandbox {sandbox_id} ended meanwhile: {machine.vm.describe_end()}",
            hint=machine.vm.console_hint(),
        )
