"""`wrenn forward`: a port of a sandbox as a port of this machine. Needs no DNS."""

import asyncio
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from wrennd.cli import place
from wrennd.cli.options import DataDir, SandboxId, configured
from wrennd.core.errors import InvalidInput

if TYPE_CHECKING:
    from wrennd.client.forwarding import Forwarding

HELP = "Make a sandbox's port one of this machine, until Ctrl-C (needs the server)."
EXAMPLES = """\
Examples:
  wrenn forward ID 8000          http://127.0.0.1:8000 leads into the sandbox
  wrenn forward ID 80 8080"""


def forward(
    sandbox_id: SandboxId,
    port: Annotated[
        int,
        typer.Argument(metavar="PORT", min=1, max=65535, help="The sandbox's.", show_default=False),
    ],
    local_port: Annotated[
        int | None,
        typer.Argument(
            metavar="LOCAL",
            min=0,
            max=65535,
            help="Ours; default: the same number; 0: any that is free.",
            show_default=False,
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Any protocol where the server is this machine's; HTTP and WebSocket where it is another's."""
    from wrennd.cli.main import Interrupted
    from wrennd.client.forwarding import Forwarding

    sandboxes = place.required_sandboxes(configured(data_dir))
    with sandboxes.connect(sandbox_id) as box:
        found = sandboxes.client.get(box.id)
    way = Forwarding(sandboxes.client.server, found.id, found.address, port)
    wanted = port if local_port is None else local_port
    try:
        number = asyncio.run(_serve(way, wanted))
    except OSError as error:
        raise InvalidInput(
            f"port {wanted} of this machine can't be used: {error.strerror}",
            hint="give another one behind it: wrenn forward ID PORT LOCAL",
        ) from error
    raise Interrupted(number)


async def _serve(way: "Forwarding", local_port: int) -> int:
    """Until a signal comes, whose number is returned. It is the loop's to take: an exception out of
    a handler would end the connection that is just served, and nothing else."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[int] = loop.create_future()

    def end(number: int) -> None:
        if not came.done():
            came.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end, number)
    server = await asyncio.start_server(way.accepted, "127.0.0.1", local_port)
    host, number = server.sockets[0].getsockname()
    print(f"http://{host}:{number} leads to port {way.port} of {way.sandbox_id}", flush=True)
    with closing(server):
        return await came
