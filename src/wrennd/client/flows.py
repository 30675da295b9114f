"""What takes several calls, written once for both clients: a generator of calls and pauses.

Whoever carries one out sends the result of each call back in; the generator's return value is the
flow's.
"""

import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from wrennd.client import calls
from wrennd.client.calls import Call
from wrennd.client.values import Expiry, Fork, Operation, Page, Sandbox, Template, Timings
from wrennd.core.errors import DeadlineExceeded, Error, NotFound

T = TypeVar("T")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 1.0
PATIENCE_S = 300.0
GONE = ("stopped",)


@dataclass(frozen=True)
class Pause:
    """Wait for so many seconds."""

    seconds: float


Flow = Generator[Call[Any] | Pause, Any, T]


def create(  # noqa: PLR0913 - as the call
    template: str = "base",
    *,
    vcpus: int | None = None,
    memory_mib: int | None = None,
    disk_mib: int | None = None,
    env: Mapping[str, str] | None = None,
    dns: Sequence[str] = (),
    expiry: Expiry | None = None,
    metadata: Mapping[str, str] | None = None,
    cold: bool = False,
    idempotency_key: str = "",
    timeout_s: float = PATIENCE_S,
) -> Flow[Sandbox]:
    """A new sandbox that runs. It carries an idempotency key: repeated requests make one."""
    made: Sandbox = yield calls.create(
        template,
        vcpus=vcpus,
        memory_mib=memory_mib,
        disk_mib=disk_mib,
        env=env,
        dns=dns,
        expiry=expiry,
        metadata=metadata,
        cold=cold,
        idempotency_key=idempotency_key or uuid.uuid4().hex,
    )
    return (yield from _settled(made, "create", timeout_s, wanted="running"))


def pause(sandbox_id: str, *, timeout_s: float = PATIENCE_S) -> Flow[Sandbox]:
    """Until it is paused."""
    found: Sandbox = yield calls.pause(sandbox_id)
    return (yield from _settled(found, "pause", timeout_s, wanted="paused"))


def resume(
    sandbox_id: str,
    *,
    cold: bool = False,
    discard: bool = False,
    expiry: Expiry | None = None,
    timeout_s: float = PATIENCE_S,
) -> Flow[Sandbox]:
    """Until it runs."""
    found: Sandbox = yield calls.resume(sandbox_id, cold=cold, discard=discard, expiry=expiry)
    return (yield from _settled(found, "resume", timeout_s, wanted="running"))


def fork(
    sandbox_id: str,
    count: int = 1,
    *,
    expiry: Expiry | None = None,
    metadata: Mapping[str, str] | None = None,
    timeout_s: float = PATIENCE_S,
) -> Flow[Fork]:
    """New sandboxes that go on where this one is, which goes on, too, or stays paused. Every child
    has its own end: look at `error` of each. Repeated requests make one fork."""
    key = uuid.uuid4().hex
    for pause_s in _pauses(sandbox_id, "being forked", timeout_s):
        found: Fork = yield calls.fork(
            sandbox_id, count, expiry=expiry, metadata=metadata, idempotency_key=key
        )
        if not any(child.sandbox.is_passing for child in found.children):
            return found
        yield Pause(pause_s)
    raise AssertionError("the pauses end with an error")


def destroy(sandbox_id: str, *, timeout_s: float = PATIENCE_S) -> Flow[None]:
    """Until it is gone."""
    yield calls.destroy(sandbox_id)
    for pause_s in _pauses(sandbox_id, "being destroyed", timeout_s):
        try:
            found: Sandbox = yield calls.get(sandbox_id)
        except NotFound:
            return
        if found.state in GONE:
            return
        if not found.is_passing:
            raise Error(f"sandbox {sandbox_id} is {found.state}, not destroyed: {found.error}")
        yield Pause(pause_s)


def snapshot(
    sandbox_id: str,
    name: str,
    *,
    pause: bool = True,
    overwrite: bool = False,
    timeout_s: float = PATIENCE_S,
) -> Flow[Template]:
    """Freeze a sandbox under a name; until the template is there."""
    made = yield calls.create_snapshot(
        sandbox_id, name, pause=pause, overwrite=overwrite, idempotency_key=uuid.uuid4().hex
    )
    if made is None:
        found: Sandbox = yield calls.get(sandbox_id)
        wanted = "paused" if pause else "running"
        yield from _settled(found, "snapshot", timeout_s, wanted=wanted)
    found_template: Template = yield calls.template(name)
    return found_template


def listed(
    *,
    state: Sequence[str] = (),
    template: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Flow[tuple[Sandbox, ...]]:
    """All of them, newest first; without states none that is stopped."""
    found: list[Sandbox] = []
    cursor = ""
    while True:
        page: Page = yield calls.page(
            state=state, template=template, metadata=metadata, cursor=cursor
        )
        found += page.sandboxes
        if not page.next_cursor:
            return tuple(found)
        cursor = page.next_cursor


def settled(sandbox_id: str, *, timeout_s: float = PATIENCE_S) -> Flow[Sandbox]:
    """Wait until nothing is being done to it."""
    found: Sandbox = yield calls.get(sandbox_id)
    return (yield from _settled(found, "", timeout_s))


def _settled(found: Sandbox, doing: str, timeout_s: float, *, wanted: str = "") -> Flow[Sandbox]:
    """Wait for the end of an operation. The answer has its timings.

    Errors: Error when it ends in another state than the wanted one; DeadlineExceeded.
    """
    timings = found.timings if not found.is_passing else None
    for pause_s in _pauses(found.id, f"busy with {doing or 'an operation'}", timeout_s):
        if not found.is_passing:
            break
        yield Pause(pause_s)
        found = yield calls.get(found.id)
    if wanted and found.state != wanted:
        why = f": {found.error}" if found.error else ""
        raise Error(f"sandbox {found.id} is {found.state}, not {wanted}{why}")
    if timings is None and doing:
        timings = yield from _timings(found.id, doing)
    return replace(found, timings=timings)


def _timings(sandbox_id: str, doing: str) -> Flow[Timings | None]:
    """Of the last operation of that name."""
    done: tuple[Operation, ...] = yield calls.timings(sandbox_id)
    last = next((each for each in done if each.operation == doing), None)
    return None if last is None else Timings(total_ms=last.total_ms, phases=last.phases)


def _pauses(
    sandbox_id: str, doing: str, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> Generator[float, None, None]:
    """Growing ones, until the time is over. Errors: DeadlineExceeded."""
    end = clock() + timeout_s
    pause_s = FIRST_PAUSE_S
    while clock() < end:
        yield pause_s
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)
    raise DeadlineExceeded(f"sandbox {sandbox_id} was still {doing} after {timeout_s:g} s")
