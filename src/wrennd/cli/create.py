"""`wrenn create`: sandboxes that stay until they are killed."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated

import typer

from wrennd.cli import envfile, follow, place
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, Json, configured
from wrennd.cli.progress import Progress
from wrennd.core.errors import Error
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxRequest
from wrennd.core.sandboxes import Sandboxes
from wrennd.core.timings import Timings

HELP = "Make a microVM that stays, and print its id."
EXAMPLES = """\
Examples:
  wrenn create --vcpus 2 --memory 1024
  ID=$(wrenn create) && wrenn exec $ID -- hostname"""
MAX_COUNT = 64
AT_ONCE = 8
Count = Annotated[
    int, typer.Option(metavar="N", min=1, max=MAX_COUNT, help="How many to make, at once.")
]


def create(  # noqa: PLR0913 - one parameter for each option is how Typer declares them
    template: options.Template = "base",
    vcpus: options.Vcpus = None,
    memory: options.Memory = None,
    disk: options.Disk = None,
    env: options.Env = None,
    env_file: options.EnvFile = None,
    dns: options.Dns = None,
    count: Count = 1,
    cold: options.Cold = False,
    as_json: Json = False,
    show_timings: options.ShowTimings = False,
    data_dir: DataDir = None,
) -> None:
    config = configured(data_dir)
    requests = [
        SandboxRequest(
            id=new_sandbox_id(),
            template=template,
            vcpus=vcpus,
            mem_mib=memory,
            disk_mib=disk,
            dns=tuple(dns or ()),
            env=_environment(env_file, env),
            is_cold=cold,
        )
        for _ in range(count)
    ]
    with place.making(config, Progress()) as sandboxes:
        for sandbox_id, timings in _made(sandboxes, requests):
            if as_json:
                print(json.dumps({"sandbox_id": sandbox_id, **timings.to_json()}), flush=True)
                continue
            print(sandbox_id, flush=True)
            if show_timings:
                follow.print_timings(timings)


def _made(sandboxes: Sandboxes, requests: list[SandboxRequest]) -> Iterator[tuple[str, Timings]]:
    """Each when it is ready. When one fails the others are made all the same; when we are told to
    end, those that are being made are finished, and all that nobody was told of are destroyed.
    """
    if len(requests) == 1:  # in this thread, which a signal interrupts
        yield _make(sandboxes, requests[0])
        return
    pool = ThreadPoolExecutor(max_workers=AT_ONCE)
    making = [pool.submit(_make, sandboxes, request) for request in requests]
    untold = set(making)
    errors = []
    try:
        for done in as_completed(making):
            if (error := done.exception()) is not None:
                errors.append(error)
            else:
                yield done.result()
            untold.discard(done)
    finally:
        pool.shutdown(cancel_futures=True)
        for done in untold:
            with contextlib.suppress(Error, CancelledError):
                sandboxes.kill(done.result()[0])  # a server chooses ids itself
    if errors:
        raise errors[0]


def _make(sandboxes: Sandboxes, request: SandboxRequest) -> tuple[str, Timings]:
    timings = Timings()
    return sandboxes.create(request, timings), timings


def _environment(env_file: Path | None, env: list[str] | None) -> dict[str, str] | None:
    """None where nothing is said of it: a template's guest keeps what it was frozen with."""
    return envfile.merged(env_file, env or []) if env_file or env else None
