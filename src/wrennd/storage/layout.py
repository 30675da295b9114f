"""Every path on the host, in one place. It joins paths; it makes only what `prepare` says."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wrennd.core.ids import INSTALLATION_ID, check_name, check_sandbox_id, new_installation_id

RUN_DIR = Path("/run/wrenn")


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
    def api_socket(self) -> Path:
        return self.run / "api.sock"

    @property
    def console(self) -> Path:
        return self.run / "console.log"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The paths of one installation: a data directory and its id."""

    data_dir: Path
    installation: str

    @classmethod
    def prepare(cls, data_dir: Path) -> Self:
        """Make the data directory (0700) and this installation's id, if they are not there.

        Safe against another process that does the same: whoever links the id first has made it.
        """
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir.chmod(0o700)
        layout = cls(data_dir=data_dir, installation=_installation_id(data_dir / "installation"))
        for path in (
            layout.kernels,
            layout.images,
            layout.names,
            layout.sandboxes,
            layout.vmm,
            layout.cache,
        ):
            path.mkdir(mode=0o700, exist_ok=True)
        return layout

    @property
    def kernels(self) -> Path:
        return self.data_dir / "kernels"

    @property
    def current_kernel(self) -> Path:
        return self.kernels / "current"

    @property
    def images(self) -> Path:
        return self.data_dir / "images"

    @property
    def names(self) -> Path:
        return self.data_dir / "names"

    @property
    def vmm(self) -> Path:
        return self.data_dir / "vmm"

    @property
    def firecracker(self) -> Path:
        return self.vmm / "firecracker"

    @property
    def probes(self) -> Path:
        return self.vmm / "probes"

    @property
    def cache(self) -> Path:
        return self.data_dir / "cache"

    @property
    def setup_lock(self) -> Path:
        return self.data_dir / "setup.lock"

    @property
    def sandboxes(self) -> Path:
        return self.data_dir / "sandboxes"

    @property
    def run_dir(self) -> Path:
        return RUN_DIR / self.installation

    def image_name(self, name: str) -> Path:
        return self.names / check_name(name, "image")

    def sandbox(self, sandbox_id: str) -> SandboxPaths:
        check_sandbox_id(sandbox_id)
        return SandboxPaths(
            data=self.sandboxes / sandbox_id,
            run=self.run_dir / sandbox_id,
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
