"""Kernel and images for tests: built once into a data directory that stays, found afterwards.

Building takes a minute or so; a test that boots guests must not pay for it each time. The directory
is named by WRENN_TEST_DATA_DIR, else it is .cache/data of the repository; `wrenn setup` rebuilds
in it what was made from other recipes or another guest agent than those of the working tree.

Processes that share the tests of one session (pytest-xdist's workers) are each an installation of
their own: all but the first have copies in directories beside that one, NAME-gw1 and so on. Each
freezes its images itself (docs/instant.md): that boots guests, which are an installation's own. Not
so in the lab host, where it would take longer than what it saves.
"""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from wrennd.core.config import Config
from wrennd.core.ids import new_sandbox_id
from wrennd.core.model import SandboxSpec
from wrennd.host import setup, warming
from wrennd.host.local import LocalSandboxes
from wrennd.storage.layout import Layout

REPOSITORY = Path(__file__).parents[1]
FIRST_WORKER = "gw0"
IMAGES = ("base", "busybox")
DEFAULT_DATA_DIR = REPOSITORY / ".cache" / "data"


@cache
def prepared_layout() -> Layout:
    """The layout with kernel, base and busybox in it, built if need be (once a session).

    Sessions at the same time wait for each other: setup locks the directory. Errors: as
    `host.setup.setup`; nothing is caught, since without images the tests that ask can't pass.
    """
    layout = Layout.prepare(Path(os.environ.get("WRENN_TEST_DATA_DIR") or DEFAULT_DATA_DIR))
    setup.setup(layout, report=_report)
    worker = os.environ.get("PYTEST_XDIST_WORKER", FIRST_WORKER)
    own = layout if worker == FIRST_WORKER else _copied(layout, worker)
    if not os.environ.get("WRENN_LAB"):
        _freeze(own)
    return own


def _freeze(layout: Layout) -> None:
    here = LocalSandboxes(Config(data_dir=layout.data_dir), _report)
    for name in IMAGES:
        parts = here.parts(SandboxSpec(id=new_sandbox_id(), image=name))
        warming.ensure(parts, _report)


def _copied(layout: Layout, worker: str) -> Layout:
    """Copies, not links: tests damage what is theirs."""
    own = Layout.prepare(layout.data_dir.with_name(f"{layout.data_dir.name}-{worker}"))
    links = [layout.current_kernel, *(layout.image_name(name) for name in IMAGES)]
    for link in links:
        here = own.data_dir / link.relative_to(layout.data_dir)
        target = (here.parent / link.readlink()).resolve()
        if not target.exists():
            staging = target.with_name(f"{target.name}.tmp")
            shutil.rmtree(staging, ignore_errors=True)
            subprocess.run(["cp", "-a", "--sparse=always", link.resolve(), staging], check=True)
            staging.rename(target)
        here.unlink(missing_ok=True)
        here.symlink_to(link.readlink())
    setup.prune(own)
    return own


def _report(line: str) -> None:
    print(f"images for the tests: {line}", file=sys.stderr, flush=True)
