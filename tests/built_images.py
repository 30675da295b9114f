"""Kernel and images for tests: built once into a data directory that stays, found afterwards.

Building takes a minute or so; a test that boots guests must not pay for it each time. The directory
is named by WRENN_TEST_DATA_DIR, else it is .cache/data of the repository; `wrenn setup` rebuilds
in it what was made from other recipes or another guest agent than those of the working tree.
"""

import os
import sys
from functools import cache
from pathlib import Path

from wrennd.host import setup
from wrennd.storage.layout import Layout

REPOSITORY = Path(__file__).parents[1]
DEFAULT_DATA_DIR = REPOSITORY / ".cache" / "data"


@cache
def prepared_layout() -> Layout:
    """The layout with kernel, base and busybox in it, built if need be (once a session).

    Sessions at the same time wait for each other: setup locks the directory. Errors: as
    `host.setup.setup`; nothing is caught, since without images the tests that ask can't pass.
    """
    layout = Layout.prepare(Path(os.environ.get("WRENN_TEST_DATA_DIR") or DEFAULT_DATA_DIR))
    setup.setup(layout, report=_report)
    return layout


def _report(line: str) -> None:
    print(f"images for the tests: {line}", file=sys.stderr, flush=True)
