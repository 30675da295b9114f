"""Which sandbox holds which slot number of this host: one file each, under one lock.

Slot numbers fix addresses and uids, so they are host-wide: every installation leases from the
same directory, `<run root>/slots`. `<run root>/slots.lock` guards it, and with it everything on
the host that the slots of an installation share (its table, forwarding); it is the only lock
here, held for milliseconds. The lock file's content is the number given last.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from wrennd.core.deadline import Deadline
from wrennd.core.errors import NoCapacity
from wrennd.linux.files import try_lock

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Slot `index` belongs to a sandbox of an installation."""

    index: int
    installation: str
    sandbox_id: str


@dataclass(frozen=True)
class Leases:
    """The leases below one run root. `take` and `release` are for holders of the lock."""

    run_root: Path

    @property
    def _lock_file(self) -> Path:
        return self.run_root / "slots.lock"

    @property
    def _directory(self) -> Path:
        return self.run_root / "slots"

    @contextmanager
    def lock(self, deadline: Deadline) -> Iterator[None]:
        """Hold the host-wide lock. It is released by the kernel when its holder dies.

        Errors: DeadlineExceeded.
        """
        self.run_root.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not try_lock(fd):
                deadline.check(f"getting the lock {self._lock_file}")
                time.sleep(0.002)  # flock(2) can be waited for, but not until a deadline
            self._directory.mkdir(mode=0o700, exist_ok=True)
            yield
        finally:
            os.close(fd)

    def all(self) -> list[Lease]:
        """Every lease of this host, by number. One that can't be read belongs to nobody we know."""
        if not self._directory.exists():
            return []
        found = (self._read(entry) for entry in self._directory.iterdir() if entry.name.isdigit())
        return sorted((lease for lease in found if lease), key=lambda lease: lease.index)

    def _read(self, path: Path) -> Lease | None:
        try:
            said = json.loads(path.read_bytes())
            return Lease(
                index=int(path.name),
                installation=str(said["installation"]),
                sandbox_id=str(said["sandbox_id"]),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            log.warning("unreadable lease", extra={"path": str(path)})
            return Lease(index=int(path.name), installation="", sandbox_id="")

    def age_s(self, lease: Lease) -> float:
        """How long ago it was taken."""
        with contextlib.suppress(FileNotFoundError):
            return time.time() - (self._directory / str(lease.index)).stat().st_mtime
        return 0.0

    def leased(self, installation: str) -> list[Lease]:
        return [lease for lease in self.all() if lease.installation == installation]

    def take(
        self,
        installation: str,
        sandbox_id: str,
        *,
        slots: int,
        is_free: Callable[[int], bool],
        is_forgotten: Callable[[Lease], bool] = lambda _: False,
    ) -> Lease:
        """Lease the next number that nobody holds and that `is_free` lets pass.

        is_forgotten: a lease of an installation that is not there any more, for example; such ones
        are given up when all numbers are held. Errors: NoCapacity when all are held, or passed
        over.
        """
        wanted = partial(self._take, installation, sandbox_id, slots, is_free)
        try:
            return wanted()
        except NoCapacity:
            forgotten = [lease for lease in self.all() if is_forgotten(lease)]
            if not forgotten:
                raise
        for lease in forgotten:
            log.warning("nobody has the holder of this slot any more", extra=asdict(lease))
            (self._directory / str(lease.index)).unlink()
        return wanted()

    def _take(
        self, installation: str, sandbox_id: str, slots: int, is_free: Callable[[int], bool]
    ) -> Lease:
        held = {lease.index for lease in self.all()}
        start = self._last() + 1
        passed_over = 0
        for number in range(start, start + slots):
            index = number % slots
            if index in held:
                continue
            if is_free(index):
                lease = Lease(index=index, installation=installation, sandbox_id=sandbox_id)
                self._write(lease)
                return lease
            passed_over += 1
        raise NoCapacity(
            f"none of the {slots} network slots of this host is free: {slots - passed_over} are "
            f"held, the addresses of {passed_over} are in use by a route or link",
            hint="end sandboxes, or choose an unused range with WRENN_NETWORK_POOL; "
            "see `wrenn doctor`",
        )

    def _last(self) -> int:
        text = self._lock_file.read_text().strip()
        return int(text) if text.isdigit() else -1

    def _write(self, lease: Lease) -> None:
        # No sync: leases describe what a reboot ends, and lie on a tmpfs.
        made = self._directory / f"{lease.index}.tmp"
        made.write_text(json.dumps({k: v for k, v in asdict(lease).items() if k != "index"}))
        made.rename(self._directory / str(lease.index))
        self._lock_file.write_text(f"{lease.index}\n")

    def release(self, installation: str, sandbox_id: str) -> None:
        """Give up what this sandbox holds; nothing happens when it holds nothing."""
        for unfinished in self._directory.glob("*.tmp"):  # its writer died: the lock is ours
            unfinished.unlink()
        for lease in self.leased(installation):
            if lease.sandbox_id == sandbox_id:
                with contextlib.suppress(FileNotFoundError):
                    (self._directory / str(lease.index)).unlink()
