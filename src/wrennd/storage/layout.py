"""Every path on the host, in one place. It joins paths; it makes only what `prepare` says."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wrennd.core.errors import InvalidInput
from wrennd.core.ids import INSTALLATION_ID, check_name, check_sandbox_id, new_installation_id
from wrennd.storage import volume

RUN_DIR = Path("/run/wrenn")
INSTALLATION = "installation"  # the file with this installation's id


@dataclass(frozen=True, kw_only=True)
class SandboxPaths:
    """Where one sandbox's things lie. `data` outlives a reboot, `run` does not."""

    data: Path
    run: Path

    @property
    def record(self) -> Path:
        return self.data / "record.json"

    @property
    def owner_lock(self) -> Path:
        return self.data / "owner.lock"

    @property
    def disk(self) -> Path:
        return self.data / "rootfs.ext4"

    @property
    def disk_before(self) -> Path:
        """The disk of one in error, while it is tried to go back to its snapshot."""
        return self.data / "rootfs.ext4.before"

    @property
    def token(self) -> Path:
        """What the guest's agent asks for of its callers."""
        return self.data / "token"

    @property
    def last_console(self) -> Path:
        """The end of the console of a VMM that is gone."""
        return self.data / "console.log"

    @property
    def out(self) -> Path:
        """Where a VMM writes what a snapshot is made of."""
        return self.data / "out"

    def generation(self, number: int) -> Path:
        return self.data / f"gen-{number}"

    @property
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def console(self) -> Path:
        return self.run / "console.log"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of one installation: a data directory and its id.

    has_volume: what shares blocks with each other lies in a filesystem of its own
    (`storage/volume.py`), mounted in the data directory.
    """

    data_dir: Path
    installation: str
    has_volume: bool = False

    @classmethod
    def prepare(cls, data_dir: Path) -> Self:
        """Make the data directory (0700) and this installation's id, if they are not there.

        Safe against another process that does the same: whoever links the id first has made it.
        A volume that is there is mounted first. Errors: InvalidInput when the directory holds what
        is not ours; HostUnsuitable.
        """
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (data_dir / INSTALLATION).exists():
            _check_is_free(data_dir)
            data_dir.chmod(0o700)
        layout = cls(
            data_dir=data_dir,
            installation=_installation_id(data_dir / INSTALLATION),
            has_volume=volume.ready(data_dir) != data_dir,
        )
        for path in (
            layout.kernels,
            layout.images,
            layout.names,
            layout.sandboxes,
            layout.templates,
            layout.incoming,
            layout.warm,
            layout.vmm,
            layout.cache,
        ):
            path.mkdir(mode=0o700, exist_ok=True)
        return layout

    @property
    def store(self) -> Path:
        """Where disks lie, and what they are made from."""
        return self.data_dir / volume.MOUNT if self.has_volume else self.data_dir

    @property
    def kernels(self) -> Path:
        return self.data_dir / "kernels"

    @property
    def current_kernel(self) -> Path:
        return self.kernels / "current"

    @property
    def images(self) -> Path:
        return self.store / "images"

    @property
    def names(self) -> Path:
        return self.store / "names"

    @property
    def vmm(self) -> Path:
        return self.data_dir / "vmm"

    @property
    def firecracker(self) -> Path:
        return self.vmm / "firecracker"

    @property
    def cache(self) -> Path:
        return self.data_dir / "cache"

    @property
    def setup_lock(self) -> Path:
        return self.data_dir / "setup.lock"

    @property
    def server_lock(self) -> Path:
        """Held by the one server that this installation may have."""
        return self.data_dir / "server.lock"

    @property
    def agent_lock(self) -> Path:
        """Held by the one host agent that serves this installation."""
        return self.data_dir / "agent.lock"

    @property
    def departures(self) -> Path:
        """What the host agent tells of sandboxes that ended by themselves."""
        return self.data_dir / "departures.json"

    @property
    def loops_lock(self) -> Path:
        """Held while the loop device of a base is looked for, or made."""
        return self.data_dir / "loops.lock"

    @property
    def sandboxes(self) -> Path:
        return self.store / "sandboxes"

    @property
    def templates(self) -> Path:
        return self.store / "templates"

    @property
    def incoming(self) -> Path:
        """Where snapshots are unpacked before they have a name."""
        return self.store / "incoming"

    def template(self, template_id: str) -> Path:
        return self.templates / check_sandbox_id(template_id)

    @property
    def warm(self) -> Path:
        """Booted and frozen images (`docs/instant.md`)."""
        return self.store / "warm"

    @property
    def run_dir(self) -> Path:
        return RUN_DIR / self.installation

    @classmethod
    def find(cls, data_dir: Path) -> Self | None:
        """The layout of a data directory that is there; nothing is made."""
        return cls.prepare(data_dir) if (data_dir / INSTALLATION).exists() else None

    def image_name(self, name: str) -> Path:
        return self.names / check_name(name, "image")

    def sandbox(self, sandbox_id: str) -> SandboxPaths:
        check_sandbox_id(sandbox_id)
        return SandboxPaths(
            data=self.sandboxes / sandbox_id,
            run=self.run_dir / sandbox_id,
        )


def _check_is_free(data_dir: Path) -> None:
    """It becomes ours alone, so nothing of others may be in it."""
    others = {p.name for p in data_dir.iterdir()} - {"lost+found"}
    if any(not name.startswith(INSTALLATION) for name in others):
        raise InvalidInput(
            f"{data_dir} is not empty and no data directory of Wrenn's",
            hint="choose an empty directory, or one that does not exist yet",
        )


def _installation_id(path: Path) -> str:
    if not path.exists():
        made = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        made.write_text(new_installation_id() + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(made, path)
        made.unlink()
    text = path.read_text().strip()
    if not INSTALLATION_ID.fullmatch(text):
        raise ValueError(f"{path} does not hold an installation id")
    return text
