"""The program: `python -m wrennd.qemu_vmm --api-sock PATH --id ID [...]`.

Ends with the guest. Killed by SIGTERM, SIGINT or SIGHUP it takes QEMU with it and dies by that
signal; killed by SIGKILL it does so too, by QEMU's death signal.
"""

import os
import signal
import sys
import time
from contextlib import ExitStack
from types import FrameType

from wrennd.qemu_vmm import config_file, options
from wrennd.qemu_vmm.controller import VERSION, Controller, Identity
from wrennd.qemu_vmm.faults import Fault
from wrennd.qemu_vmm.log import Log
from wrennd.qemu_vmm.metrics import Recorder
from wrennd.qemu_vmm.options import ExitCode, Options, Stop
from wrennd.qemu_vmm.resources import Logger, Metrics
from wrennd.qemu_vmm.server import Server, listen
from wrennd.qemu_vmm.sinks import Sink, sink_of

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Killed(BaseException):
    """A signal told us to end; not an Exception, so that nothing on the way takes it for one."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)


def main() -> int:
    """Run until the guest is gone; returns the exit code."""
    for number in _SIGNALS:
        signal.signal(number, _on_signal)
    try:
        return _run(options.parse(sys.argv[1:]))
    except Stop as stop:
        _say(2, f"Error: {stop}")
        return stop.code
    except _Killed as killed:
        signal.signal(killed.number, signal.SIG_DFL)
        os.kill(os.getpid(), killed.number)
        return ExitCode.ERROR


def _on_signal(number: int, frame: FrameType | None) -> None:
    for other in _SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    raise _Killed(number)


def _run(wanted: Options) -> int:
    if wanted.wants_help or wanted.wants_version:
        _say(1, f"Firecracker v{VERSION}\n")
        if wanted.wants_help:
            _say(1, options.help_text())
        return ExitCode.OK
    with ExitStack() as held:
        out = sink_of(os.dup(1)) if _is_open(1) else sink_of(-1)
        held.callback(out.close)
        log = Log(wanted.id, out)
        held.callback(log.close)
        try:
            return _serve(wanted, _controller(wanted, log, out, held), held)
        except Stop as stop:
            log.error(str(stop))
            log.error(f"Firecracker exiting with error. exit_code={int(stop.code)}")
            raise


def _controller(wanted: Options, log: Log, out: Sink, held: ExitStack) -> Controller:
    metrics = Recorder(time.monotonic())
    identity = Identity(
        id=wanted.id,
        accel=wanted.accel,
        program=wanted.qemu,
        is_tracking_exact=wanted.is_tracking_exact,
        max_mmds=wanted.max_mmds,
    )
    controller = Controller(identity, log, metrics, out)
    held.callback(controller.close)
    try:
        if wanted.logger != Logger():
            controller.perform(wanted.logger)
        log.info(f"Running Firecracker v{VERSION}")
        if wanted.metrics_path is not None:
            controller.perform(Metrics(metrics_path=wanted.metrics_path))
    except Fault as fault:
        raise Stop(ExitCode.ERROR, str(fault)) from None
    return controller


def _serve(wanted: Options, controller: Controller, held: ExitStack) -> int:
    listener = None
    if wanted.api_socket is not None:
        listener = held.enter_context(listen(wanted.api_socket))
        controller.log.info(f'Listening on API socket ("{wanted.api_socket}").')
    if wanted.metadata is not None:
        config_file.load_metadata(wanted.metadata, controller)
    if wanted.config_file is not None:
        config_file.run(wanted.config_file, controller)
    with Server(controller, listener, wanted.max_body) as server:
        code = server.run()
    if code == ExitCode.OK:
        controller.log.info("Firecracker exiting successfully. exit_code=0")
    else:
        controller.log.error(f"Firecracker exiting with error. exit_code={code}")
    return code


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _say(fd: int, text: str) -> None:
    try:
        os.write(fd, f"{text}\n".encode(errors="replace"))
    except OSError:
        return  # nobody listens


if __name__ == "__main__":
    sys.exit(main())
