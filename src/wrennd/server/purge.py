"""All that a server and its installation have on a machine, removed. Its sandboxes are gone."""

import contextlib
import shutil
from pathlib import Path

from wrennd.core.errors import WrongState
from wrennd.server import account
from wrennd.server.settings import ADMIN_KEY, STATE_ROOT, USER, settings
from wrennd.storage import volume
from wrennd.storage.layout import Layout


def purged(data_dir: Path) -> list[str]:
    """What was removed, a line each.

    Errors: WrongState when sandboxes are left: their VMMs would lose their files.
    """
    done = []
    layout = Layout.find(data_dir)
    if layout is not None:
        if any(each.is_dir() for each in layout.sandboxes.iterdir()):
            raise WrongState(f"there are sandboxes in {data_dir}", hint="wrenn ls --all lists them")
        kept = settings(layout)
        volume.remove(data_dir)
        for directory in (kept.state_dir, data_dir):
            if directory.exists():
                shutil.rmtree(directory)
                done.append(str(directory))
        if kept.key_file == ADMIN_KEY and ADMIN_KEY.exists():
            ADMIN_KEY.unlink()
            done.append(str(ADMIN_KEY))
            with contextlib.suppress(OSError):  # the administrator may have put more there
                ADMIN_KEY.parent.rmdir()
    if STATE_ROOT.exists() and not any(STATE_ROOT.iterdir()):  # no other installation's
        STATE_ROOT.rmdir()
        account.remove(USER)
        done.append(f"the system user {USER}")
    return done
