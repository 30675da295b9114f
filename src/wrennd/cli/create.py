"""`wrenn create`: boot a sandbox that stays until it is killed."""

import json

from wrennd.cli import envfile, follow, standalone
from wrennd.cli import run_options as options
from wrennd.cli.options import DataDir, Json, configured
from wrennd.cli.progress import Progress
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.core.timings import Timings

HELP = "Boot a microVM that stays, and print its id."


def create(  # noqa: PLR0913 - one parameter for each option is how Typer declares them
    template: options.Template = "base",
    vcpus: options.Vcpus = 1,
    memory: options.Memory = 512,
    env: options.Env = None,
    env_file: options.EnvFile = None,
    dns: options.Dns = None,
    as_json: Json = False,
    show_timings: options.ShowTimings = False,
    data_dir: DataDir = None,
) -> None:
    config = configured(data_dir)
    spec = SandboxSpec(
        id=new_sandbox_id(),
        image=template,
        vcpus=vcpus,
        mem_mib=memory,
        dns=tuple(dns or ()),
        env=envfile.merged(env_file, env or []),
    )
    timings = Timings()
    with standalone.sandboxes(config, Progress()) as sandboxes:
        sandboxes.create(spec, timings)
    if as_json:
        print(json.dumps({"sandbox_id": spec.id, **timings.to_json()}))
        return
    print(spec.id)
    if show_timings:
        follow.print_timings(timings)
