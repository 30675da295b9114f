"""Warm images: base images that were booted once and frozen, for sandboxes to be restored from.

Found, compared with what is here, linked into a sandbox, removed; `host/warming.py` makes them, and
docs/instant.md says what they are. One is a snapshot directory, named by its image and its size.

`warm/.lock` is held for as long as links are made or a directory is renamed away; whoever makes or
prunes them holds the setup lock besides.
"""

import logging
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from wrennd.core.errors import Error, NotFound, SnapshotBroken, SnapshotIncompatible, VmmRefused
from wrennd.core.model import SandboxSpec
from wrennd.host import vmm_facts
from wrennd.host.machine import Parts
from wrennd.host.record import Record
from wrennd.linux import files
from wrennd.snapshot import store
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.reader import Snapshot, exists, open_snapshot, read_manifest
from wrennd.snapshot.validity import Here, compatible
from wrennd.snapshot.verify import verify
from wrennd.storage.layout import Layout, SandboxPaths

log = logging.getLogger(__name__)
TRIAL = ".trial"  # of one that has not been restored yet
LEFTOVER = ".tmp"
_MARK = {"warm_image": "yes"}


@dataclass(frozen=True, kw_only=True)
class Cold:
    """There is no warm image to start from. why: a clause."""

    why: str


def directory(layout: Layout, image_digest: str, spec: SandboxSpec) -> Path:
    """Where the one of an image lies that has the size of `spec`, if there is one."""
    return layout.warm / f"{image_digest}-{spec.vcpus}-{spec.mem_mib}"


def find(parts: Parts, spec: SandboxSpec) -> Snapshot | Cold:
    """What a sandbox like that can be restored from here.

    One that is not whole, or of another format, is removed, and the log says so.
    """
    found = directory(parts.layout, parts.image.digest, spec)
    if not exists(found):
        return Cold(
            why=f"there is no warm image of {spec.image} with {spec.vcpus} vCPUs and "
            f"{spec.mem_mib} MiB"
        )
    try:
        snapshot = open_snapshot(found)
    except (SnapshotBroken, SnapshotIncompatible, NotFound) as error:
        _discard(parts.layout, found, error)
        return Cold(why=f"the warm image can't be used, and is removed: {error}")
    kernel = parts.kernel
    here = vmm_facts.here(parts.program, parts.layout.vmm, kernel.version)
    resolvers = ",".join(str(address) for address in parts.dns)
    reasons = differences(snapshot.manifest.facts, here, kernel.digest, resolvers)
    return Cold(why="; ".join(reasons)) if reasons else snapshot


def differences(facts: Facts, here: Here, kernel_digest: str, resolvers: str) -> list[str]:
    """Why what was frozen with those facts is not what a boot would give here; clauses.

    Stricter than for what a user has frozen: nothing is lost by a boot. The host's kernel is not
    looked at.
    """
    found = compatible(facts, replace(here, host_kernel=facts.host_kernel))
    reasons = [*found.refusals, *found.warnings]
    if facts.extra.get("kernel_digest") != kernel_digest:
        reasons.append("its kernel was another one")
    if facts.extra.get("resolvers") != resolvers:
        reasons.append(f"its guest asks {facts.extra.get('resolvers')}, not {resolvers}")
    return [f"of the warm image: {reason}" for reason in reasons]


def marked(facts: Facts) -> Facts:
    """Of a snapshot that is a warm image: what a sandbox has of that says so, too."""
    return replace(facts, extra={**facts.extra, **_MARK})


def has_snapshot(paths: SandboxPaths, found: Record) -> bool:
    """Whether there is one of its own, a template's or its source's, not just the warm image's: of
    that nobody knows. Errors: NotFound, SnapshotBroken, SnapshotIncompatible."""
    if not found.generation:
        return False
    facts = read_manifest(paths.generation(found.generation)).facts
    return not _MARK.items() <= facts.extra.items()


def share(layout: Layout, snapshot: Snapshot, target: Path) -> Snapshot:
    """Links of its files for a sandbox. Errors: SnapshotBroken when it is gone; NoCapacity."""
    with _lock(layout):
        try:
            return store.share(open_snapshot(snapshot.directory), target)
        except NotFound as error:
            raise SnapshotBroken(f"the warm image was removed: {error}") from error


def doubt(layout: Layout, snapshot: Snapshot, error: Error) -> None:
    """A restore of it failed with that error: remove it if it is the reason."""
    if not isinstance(error, SnapshotBroken | VmmRefused) and _is_whole(snapshot.directory):
        return
    _discard(layout, snapshot.directory, error)


def _discard(layout: Layout, directory: Path, error: Error) -> None:
    log.warning("a warm image is removed; wrenn setup makes it again", extra={"why": str(error)})
    remove(layout, directory)


def _is_whole(directory: Path) -> bool:
    try:
        return not verify(directory)
    except (NotFound, SnapshotIncompatible):
        return False


def remove(layout: Layout, directory: Path) -> None:
    """Sandboxes that were made of it go on. Nothing happens when there is none."""
    with _lock(layout):
        if directory.suffix == LEFTOVER:
            shutil.rmtree(directory)
        else:
            store.remove(directory)


def prune(layout: Layout) -> None:
    """Remove what is `unwanted`. For the holder of the setup lock."""
    for found in unwanted(layout):
        remove(layout, found)


def unwanted(layout: Layout) -> list[Path]:
    """Those whose image or kernel was replaced or removed, and what killed setups left."""
    images = {image.readlink().name for image in layout.names.iterdir() if image.is_symlink()}
    kernel = layout.current_kernel
    current = kernel.readlink().name if kernel.is_symlink() else ""
    found = sorted(path for path in layout.warm.iterdir() if path.is_dir())
    return [path for path in found if not _is_wanted(path, images, current)]


def is_leftover(found: Path) -> bool:
    """Whether it is in the making, or its making was broken off."""
    return found.suffix in (TRIAL, LEFTOVER)


def _is_wanted(found: Path, images: set[str], kernel_digest: str) -> bool:
    if is_leftover(found) or found.name.partition("-")[0] not in images:
        return False
    try:
        return read_manifest(found).facts.extra.get("kernel_digest") == kernel_digest
    except (NotFound, SnapshotBroken, SnapshotIncompatible):
        return False


def _lock(layout: Layout) -> AbstractContextManager[None]:
    return files.locked(layout.warm / ".lock")
