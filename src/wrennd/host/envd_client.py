"""Talking to one guest's agent: until it is ready, its first orders, commands, files.

Synchronous; a method may be called from any thread, and each call has a connection of its own.
RPCs go through the generated client (`envd_rpc.py`), which is imported when first needed, since
that takes long; `wait_ready` does it while the guest boots, a restore while its VMM starts.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlencode

from wrennd.core.deadline import Deadline
from wrennd.core.errors import (
    DeadlineExceeded,
    GuestFailed,
    NotFound,
)
from wrennd.core.model import Command, TerminalSize
from wrennd.core.sandboxes import Exit, Output
from wrennd.host import envd_wire
from wrennd.host.envd_files import GuestFiles
from wrennd.host.envd_orders import HookReport, Initialised, Orders, Told
from wrennd.host.envd_wire import Peer, Reply, check_reply, understanding

if TYPE_CHECKING:
    from wrennd.host.envd_processes import GuestProcesses
    from wrennd.host.envd_rpc import Call, Event

PORT = 49983
# Emulated and on a busy host, an answer that takes milliseconds elsewhere may take a second.
CALL_S = 30.0
# A connection that a guest took before it was frozen, or lost, is never answered: another is tried
# after this long. Each is given twice the time of one that was in vain: on a host that is slow
# enough, no answer comes in any fixed time.
ATTEMPT_S = 2.0
GROW_S = 120.0  # an emulated guest's kernel writes the tables of a hundred GiB
INPUT_BYTES = 1 << 20
# The agent gives its hooks no more than that together.
HOOKS_S = 60.0
# A restored guest's clock is right when it is known to be this close to ours.
CLOCK_TOLERANCE_S = 0.05
CLOCK_ATTEMPTS = 5
RAW = "application/octet-stream"


class EnvdClient:
    """The agent of one guest.

    vmm_pidfd: when this becomes readable every wait ends with VmmFailed. The caller owns it and
    keeps it open for as long as the client is used.
    """

    def __init__(
        self, address: str, port: int = PORT, *, token: str = "", vmm_pidfd: int = -1
    ) -> None:
        self._peer = Peer(address=address, port=port, vmm_pidfd=vmm_pidfd)
        self._token = token

    @property
    def peer(self) -> Peer:
        """Where the agent listens."""
        return self._peer

    def wait_ready(self, deadline: Deadline, vmm_pidfd: int = -1) -> None:
        """Until the agent answers; a pidfd given here is watched in this call only.

        Errors: DeadlineExceeded; VmmFailed at once when the VMM ends; GuestFailed when something
        else than our agent answers.
        """
        peer = self._peer if vmm_pidfd < 0 else replace(self._peer, vmm_pidfd=vmm_pidfd)
        import_rpc()
        reply = _repeat(peer, deadline, lambda: ("GET", "/health", {}, None))
        if reply.status != 204:
            raise GuestFailed(f"{peer} answered /health with status {reply.status}")

    def init(
        self,
        *,
        token: str,
        sandbox_id: str = "",
        env: Mapping[str, str] | None = None,
        restored: bool = False,
        deadline: Deadline | None = None,
    ) -> Initialised:
        """Set clock, entropy, identity, token, environment; from then on this client uses `token`.

        sandbox_id: whose guest it is; empty and env None mean as it was. restored: the guest comes
        from a snapshot, of which this client has the token. Then every older connection is dropped,
        and the clock is set until it is known to be right, or CLOCK_ATTEMPTS times.
        Repeated until it is answered: an order that is carried out twice does no harm. Errors:
        InvalidInput for values that the agent refuses; GuestFailed when it refuses our token.
        """
        orders = Orders(
            token=token,
            sandbox_id=sandbox_id,
            env=env,
            is_restored=restored,
        )
        deadline = deadline or Deadline.after(CALL_S)
        told = self._order(orders, deadline)
        self._token = token
        if not restored:
            return Initialised()
        warnings = told.warnings
        for _ in range(CLOCK_ATTEMPTS - 1):
            if told.clock_error_s <= CLOCK_TOLERANCE_S:
                break
            # What the first call touched had to be fetched from the snapshot; now it is there.
            told = self._order(orders, deadline)
        return Initialised(clock_error_s=told.clock_error_s, warnings=warnings)

    def set_clock(self) -> None:
        """As `init`, of the clock alone: of a guest that stood still, and is the same."""
        self.init(token=self._token)

    def _order(self, orders: Orders, deadline: Deadline) -> Told:
        """One /init, answered. Errors: as of `init`."""
        headers = {"Content-Type": "application/json", **self._headers}
        began = time.time()

        def request() -> envd_wire.Request:
            nonlocal began
            began = time.time()
            return "POST", "/init", headers, orders.to_json()

        reply = _repeat(self._peer, deadline, request)
        ended = time.time()
        if reply.status == 401:
            raise GuestFailed(f"{self._peer} refuses the access token")
        check_reply(reply, "initialise the guest")
        return Told.understand(reply, began, ended)

    @contextmanager
    def start(self, command: Command, *, limit_s: float | None = None) -> Iterator["Started"]:
        """Run a command; leaving the block drops its connection, not the command.

        limit_s: the agent kills the command after that time; its events end in DeadlineExceeded.
        Errors: CommandNotFound, CommandNotExecutable, InvalidInput (cwd, user), NoCapacity (the
        guest has no room for another process), GuestFailed, VmmFailed.
        """
        call = self._call(None)
        events = call.start(command, limit_s)
        try:
            pid = _begun(events)
        except BaseException:
            call.cancel()
            raise
        started = Started(self, call, events, pid, has_terminal=command.terminal is not None)
        try:
            yield started
        finally:
            started.close()

    def upload_file(
        self,
        path: str,
        source: BinaryIO | Iterable[bytes],
        *,
        mode: int,
        user: str = "",
        limit_s: float = 3600.0,
        on_open: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """Write a file in the guest: parents are made, what is there is replaced.

        on_open: told what ends the upload, from any thread.

        mode: its permission bits, set before the first byte is written. Errors: InvalidInput (path
        or user), NoCapacity when the guest's disk is full, GuestFailed, VmmFailed.
        """
        query = {"path": path, "mode": f"{mode & 0o7777:o}"}
        if user:
            query["username"] = user
        deadline = Deadline.after(limit_s)
        request = (
            "POST",
            f"/files?{urlencode(query)}",
            {"Content-Type": RAW, **self._headers},
            source,
        )
        sock = envd_wire.dial(self._peer, Deadline.after(CALL_S))
        try:
            reply = envd_wire.call(sock, self._peer, deadline, request, on_open)
        except OSError as error:
            raise GuestFailed(f"uploading {path} broke off: {error}") from error
        check_reply(reply, f"write {path}")

    @property
    def files(self) -> GuestFiles:
        """The guest's file tree."""
        return GuestFiles(self._peer, self._headers, lambda: self._call(Deadline.after(CALL_S)))

    @property
    def processes(self) -> "GuestProcesses":
        """The guest's processes."""
        from wrennd.host.envd_processes import GuestProcesses

        return GuestProcesses(self._call)

    def freeze(self, wait_s: float) -> bool:
        """Stop every process of users, and write the guest's cached writes to its disk.

        Returns whether both were done in time. Until `unfreeze` the agent answers its host only,
        and streams that are open stand still: call that after everything but a success, too.
        Errors: GuestFailed (also when the guest has no cgroups), VmmFailed, DeadlineExceeded.
        """
        target = f"/freeze?maxWaitMs={round(wait_s * 1000)}"
        reply = self._ask("POST", target, "freeze", wait_s + CALL_S)
        with understanding("freeze"):
            found = json.loads(reply.body)
            return bool(found["frozen"] and found["synced"])

    def grow(self, disk_bytes: int) -> None:
        """Let the root filesystem be as long as its disk, which has, or will have, `disk_bytes`.

        Errors: GuestFailed when it can't be, or the agent is older than this; VmmFailed,
        DeadlineExceeded.
        """
        try:
            self._ask("POST", f"/grow?bytes={disk_bytes}", "grow its filesystem", GROW_S)
        except NotFound as error:
            raise GuestFailed(
                "the guest's agent is too old to grow a filesystem",
                hint="make the template anew, or leave --disk out",
            ) from error

    def unfreeze(self, deadline: Deadline | None = None) -> tuple[HookReport, ...]:
        """Let users' processes go on; in a restored guest its hooks run first.

        Without an `init` of a restored guest since the freeze everything goes on as it was.
        Repeated until it is answered, for HOOKS_S and a call's time by default. Errors:
        GuestFailed, VmmFailed, DeadlineExceeded.
        """
        reply = _repeat(
            self._peer,
            deadline or Deadline.after(HOOKS_S + CALL_S),
            lambda: ("POST", "/unfreeze", self._headers, None),
        )
        check_reply(reply, "thaw")
        return HookReport.all_of(reply)

    def metrics(self) -> Mapping[str, float]:
        """Processor, memory and disk, as docs/envd.md names them. Errors: as of `unfreeze`."""
        reply = self._ask("GET", "/metrics", "measure", CALL_S)
        with understanding("metrics"):
            return {str(name): float(value) for name, value in json.loads(reply.body).items()}

    def _ask(self, method: str, target: str, what: str, limit_s: float) -> Reply:
        deadline = Deadline.after(limit_s)
        sock = envd_wire.dial(self._peer, deadline)
        try:
            reply = envd_wire.call(
                sock, self._peer, deadline, (method, target, self._headers, None)
            )
        except OSError as error:
            raise GuestFailed(f"{self._peer} broke off: {error}") from error
        check_reply(reply, what)
        return reply

    @property
    def _headers(self) -> dict[str, str]:
        return {"X-Access-Token": self._token} if self._token else {}

    def _call(self, deadline: Deadline | None) -> "Call":
        from wrennd.host.envd_rpc import Call

        return Call(self._peer, self._headers, deadline)


class Started:
    """A command that runs in the guest. Only `events` belongs to one thread."""

    def __init__(
        self,
        client: EnvdClient,
        call: "Call",
        events: Iterator["Event"],
        pid: int,
        *,
        has_terminal: bool,
    ) -> None:
        self.pid = pid
        self._has_terminal = has_terminal
        self._client = client
        self._calls = {call}
        self._events = events
        # Guards _calls and _is_closed; never held while something waits.
        self._lock = threading.Lock()
        self._is_closed = False

    def events(self) -> Iterator[Output | Exit]:
        """What the command writes as it comes, then one Exit.

        Errors: DeadlineExceeded (its time limit), GuestFailed, VmmFailed.
        """
        last: Exit | None = None
        for event in self._events:
            if isinstance(event, Exit):
                # Held back: when the limit killed it, that is what the caller must learn.
                last = event
            elif isinstance(event, Output):
                yield event
        if last is None:
            raise GuestFailed(f"the guest agent did not say how process {self.pid} ended")
        yield last

    def send_stdin(self, data: bytes) -> bool:
        """Wait until the command has taken it; false when it takes no more (ended, closed).

        Errors: VmmFailed; GuestFailed after `close`.
        """
        for at in range(0, len(data), INPUT_BYTES):
            with self._calling() as call:
                try:
                    call.send_input(
                        self.pid, data[at : at + INPUT_BYTES], is_terminal=self._has_terminal
                    )
                except (NotFound, GuestFailed):
                    self._check_open()
                    return False
        return True

    def close_stdin(self) -> None:
        """The command reads end of file. Nothing happens when it has ended."""
        with self._calling(CALL_S) as call:
            try:
                call.close_stdin(self.pid)
            except NotFound:
                return

    def resize(self, size: TerminalSize) -> None:
        """Give the command's terminal another size. Nothing happens when it has ended."""
        with self._calling(CALL_S) as call:
            try:
                call.resize(self.pid, size)
            except NotFound:
                return

    def signal(self, *, kill: bool) -> None:
        """SIGKILL or SIGTERM to the command's process group; nothing when it has ended."""
        with self._calling(CALL_S) as call:
            try:
                call.send_signal(self.pid, kill=kill)
            except NotFound:
                return

    def close(self) -> None:
        """Drop the connections and wake whoever waits on them. The command goes on."""
        with self._lock:
            self._is_closed = True
            calls = set(self._calls)
        for call in calls:
            call.cancel()

    @contextmanager
    def _calling(self, limit_s: float | None = None) -> Iterator["Call"]:
        call = self._client._call(None if limit_s is None else Deadline.after(limit_s))
        with self._lock:
            self._check_open()
            self._calls.add(call)
        try:
            yield call
        finally:
            with self._lock:
                self._calls.discard(call)

    def _check_open(self) -> None:
        if self._is_closed:
            raise GuestFailed(f"the connection to process {self.pid} was closed")


def import_rpc() -> None:
    """Import what commands need, 150 ms of it, at a time when nobody waits for it."""
    import wrennd.host.envd_rpc  # noqa: F401


def _begun(events: Iterator["Event"]) -> int:
    """The pid, which is the first event. Errors: why there is none."""
    from wrennd.host.envd_rpc import Began

    first = next(events, None)
    if not isinstance(first, Began):
        raise GuestFailed("the guest agent did not say that the command started")
    return first.pid


def _repeat(
    peer: Peer,
    deadline: Deadline,
    request: Callable[[], envd_wire.Request],
    attempt_s: float = ATTEMPT_S,
) -> Reply:
    """Ask until there is a reply. Errors: DeadlineExceeded, VmmFailed, GuestFailed."""
    while True:
        sock = envd_wire.knock(peer, deadline)
        patience = Deadline(min(deadline.at, Deadline.after(attempt_s).at))
        try:
            return envd_wire.call(sock, peer, patience, request())
        except (OSError, DeadlineExceeded) as error:
            if deadline.is_over:
                raise DeadlineExceeded(f"{peer} did not answer in time") from error
            if patience.is_over:
                attempt_s *= 2
            envd_wire.rest(peer, deadline)
