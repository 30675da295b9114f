"""The store of published kernels and root filesystems: found by name, published in one step.

What is published never changes: a directory named by the digest of its content, files read-only,
a manifest that says what they were. A name is a symlink to such a directory. Publishing is: sync
the staging directory, rename it, then flip the name, so what is half built has no name. Writers
hold the setup lock (`Layout.setup_lock`); readers need none. Everything lies in the data directory.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from wrennd.core.errors import AlreadyExists, ImageBroken, NotFound
from wrennd.linux.files import data_runs, sync_directory, write_atomic
from wrennd.storage.layout import Layout

ROOTFS = "rootfs.ext4"
VMLINUX = "vmlinux"
INITRD = "initrd.img"
MANIFEST = "manifest.json"
_FORMAT = 1
_STAGING_SUFFIX = ".tmp"
_DIGEST_LENGTH = 32  # hex digits: 128 bits of SHA-256
_CHUNK = 1 << 20
_REBUILD = "build it again with: wrenn setup --force, or remove it with wrenn image rm"


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What the manifest says about one file. `size` in bytes; `mtime_ns` as published."""

    size: int
    sha256: str
    mtime_ns: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a published directory holds and what it was made from.

    created: when, ISO 8601 in UTC. facts: what the builder had to say, by name (recipe, versions).
    """

    created: str
    files: Mapping[str, FileFacts]
    facts: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Of the content only: two builds with the same bytes are the same thing."""
        lines = [f"{name} {facts.sha256}\n" for name, facts in sorted(self.files.items())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()[:_DIGEST_LENGTH]

    def encode(self) -> bytes:
        value = {
            "format": _FORMAT,
            "created": self.created,
            "files": {name: vars(facts) for name, facts in sorted(self.files.items())},
            "facts": dict(self.facts),
        }
        return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Errors: ValueError when these are not the bytes of a manifest of this format."""
        value = json.loads(data)
        if not isinstance(value, dict) or value.get("format") != _FORMAT:
            raise ValueError(f"not a manifest of format {_FORMAT}")
        try:
            return cls(
                created=value["created"],
                files={name: FileFacts(**facts) for name, facts in value["files"].items()},
                facts=MappingProxyType(value["facts"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the manifest lacks something: {error!r}") from error


@dataclass(frozen=True, kw_only=True)
class Image:
    """A base image. `size_bytes` is the size of its disk, not what it takes on the host's."""

    name: str
    digest: str
    rootfs: Path
    manifest: Manifest

    @property
    def size_bytes(self) -> int:
        return self.manifest.files[ROOTFS].size

    @property
    def created(self) -> str:
        return self.manifest.created

    @property
    def used_bytes(self) -> int:
        """What the file takes on the host's disk: it is sparse."""
        return self.rootfs.stat().st_blocks * 512

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "digest": self.digest,
            "size_bytes": self.size_bytes,
            "disk_bytes": self.used_bytes,
            "created": self.created,
            "facts": dict(self.manifest.facts),
        }


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel for guests, with the initrd that belongs to it."""

    digest: str
    vmlinux: Path
    initrd: Path
    manifest: Manifest

    @property
    def version(self) -> str:
        """The kernel's release, as `uname -r` says it in the guest."""
        return self.manifest.facts.get("version", "unknown")


class ImageStore:
    """The published images and the kernel of one installation."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def find(self, name: str) -> Image:
        """The image of that name.

        Errors: InvalidInput (no such name is possible), NotFound, ImageBroken (a file is missing or
        was changed: judged by size and time, in microseconds; `verify` reads the content).
        """
        directory = _target(self._layout.image_name(name))
        if directory is None or not self._is_image(directory):
            raise self._unknown(name)
        manifest = _checked(directory, f"image {name!r}", {ROOTFS})
        rootfs = directory / ROOTFS
        return Image(name=name, digest=directory.name, rootfs=rootfs, manifest=manifest)

    def kernel(self) -> Kernel:
        """The kernel that guests boot. Errors: NotFound, ImageBroken (as for `find`)."""
        directory = _target(self._layout.current_kernel)
        if directory is None:
            raise NotFound("there is no guest kernel yet", hint="build it with: wrenn setup")
        manifest = _checked(directory, "the guest kernel", {VMLINUX, INITRD})
        return Kernel(
            digest=directory.name,
            vmlinux=directory / VMLINUX,
            initrd=directory / INITRD,
            manifest=manifest,
        )

    def list(self) -> list[Image]:
        """Every image that has a name, by name. Errors: ImageBroken."""
        return [self.find(name) for name in self._names()]

    def verify(self, found: Image | Kernel) -> None:
        """Read every file and compare it with its digest. Errors: ImageBroken names the file."""
        directory = (found.rootfs if isinstance(found, Image) else found.vmlinux).parent
        for name, facts in found.manifest.files.items():
            if _sha256(directory / name) != facts.sha256:
                raise ImageBroken(
                    f"{directory / name} is corrupt: it is not what was built", hint=_REBUILD
                )

    def publish_image(self, name: str, staging: Path, facts: Mapping[str, str]) -> Image:
        """Take `staging`, which holds the root filesystem, and give it `name`.

        The staging directory lies in `Layout.images` and is gone afterwards. On an error the name
        still means what it meant before. Errors: OSError (disk full), ImageBroken, AlreadyExists
        when a snapshot template has it.
        """
        link = self._layout.image_name(name)
        self._check_is_no_template(name)
        _publish(staging, self._layout.images, facts, {ROOTFS}, link)
        return self.find(name)

    def publish_kernel(self, staging: Path, facts: Mapping[str, str]) -> Kernel:
        """As `publish_image`, for a kernel; the fact "version" is its release."""
        link = self._layout.current_kernel
        _publish(staging, self._layout.kernels, facts, {VMLINUX, INITRD}, link)
        return self.kernel()

    def has(self, name: str) -> bool:
        """Whether an image, broken or not, or a template has that name. Errors: InvalidInput."""
        return self._layout.image_name(name).is_symlink()

    def unname(self, name: str) -> None:
        """Take a name away, for `prune` to remove what has none. For the holder of the setup lock.

        Errors: InvalidInput (no such name is possible), NotFound.
        """
        link = self._layout.image_name(name)
        directory = _target(link)
        if directory is None or not self._is_image(directory):
            raise self._unknown(name)
        link.unlink()
        sync_directory(self._layout.names)

    def _unknown(self, name: str) -> NotFound:
        names = ", ".join(self._names())
        known = f"there are: {names}" if names else "there are none"
        return NotFound(
            f"there is no image named {name!r} ({known})",
            hint="wrenn image ls lists them; wrenn setup builds base and busybox",
        )

    def _is_image(self, directory: Path) -> bool:
        """Names of snapshot templates lie beside those of images."""
        return directory.parent != self._layout.templates

    def _check_is_no_template(self, name: str) -> None:
        directory = _target(self._layout.image_name(name))
        if directory is not None and not self._is_image(directory):
            raise AlreadyExists(
                f"{name!r} is a snapshot template",
                hint=f"choose another name, or remove it: wrenn snapshot rm {name}",
            )

    def image_staging(self, name: str) -> Path:
        """Where an image is to be built: a path in the store, not made yet."""
        return self._layout.images / (self._layout.image_name(name).name + _STAGING_SUFFIX)

    def kernel_staging(self) -> Path:
        return self._layout.kernels / f"kernel{_STAGING_SUFFIX}"

    def remove_leftovers(self) -> None:
        """Remove what killed builds left. Only for the holder of the setup lock."""
        for path in self.leftovers():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def nameless(self, in_use: Collection[str]) -> tuple[Path, ...]:
        """The directories that have no name any more and are not in use (digests)."""
        links = [self._layout.current_kernel, *self._layout.names.iterdir()]
        named = {link.readlink().name for link in links if link.is_symlink()}
        return tuple(
            path
            for parent in (self._layout.images, self._layout.kernels)
            for path in sorted(parent.iterdir())
            if path.is_dir()
            and not path.is_symlink()
            and not path.name.endswith(_STAGING_SUFFIX)
            and path.name not in named | {*in_use}
        )

    def leftovers(self) -> tuple[Path, ...]:
        """What builds work on; for the holder of the setup lock, what killed ones left."""
        parents = (self._layout.images, self._layout.kernels, self._layout.names)
        return tuple(path for parent in parents for path in parent.glob(f"*{_STAGING_SUFFIX}"))

    def prune(self, in_use: Collection[str]) -> None:
        """Remove what is `nameless`. Only for the holder of the setup lock; what lost its name just
        now may still be on its way into a sandbox.
        """
        for path in self.nameless(in_use):
            shutil.rmtree(path)

    def named(self) -> "Iterator[tuple[str, Path]]":
        """(name, directory) of everything that has one, broken or not; kernels are `current`."""
        for name in self._names():
            directory = _target(self._layout.image_name(name))
            if directory is not None:
                yield name, directory
        kernel = _target(self._layout.current_kernel)
        if kernel is not None:
            yield self._layout.current_kernel.name, kernel

    def _names(self) -> Iterator[str]:
        for link in sorted(self._layout.names.iterdir()):
            if link.is_symlink() and not link.name.endswith(_STAGING_SUFFIX):
                directory = _target(link)
                if directory is not None and self._is_image(directory):
                    yield link.name


def _target(link: Path) -> Path | None:
    """The directory that a name means, or None when there is no such name."""
    try:
        return Path(os.path.normpath(link.parent / link.readlink()))
    except FileNotFoundError:
        return None


def _checked(directory: Path, what: str, names: set[str]) -> Manifest:
    """The manifest of a published directory whose files are there as published."""
    try:
        manifest = Manifest.decode((directory / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise ImageBroken(
            f"{what} is broken: {error.filename} is missing", hint=_REBUILD
        ) from error
    except ValueError as error:
        text = f"{what} is broken: {directory / MANIFEST} can't be read: {error}"
        raise ImageBroken(text, hint=_REBUILD) from error
    if set(manifest.files) != names:
        text = f"{what} is broken: {directory / MANIFEST} lists {', '.join(manifest.files)}"
        raise ImageBroken(text, hint=_REBUILD)
    for name, facts in manifest.files.items():
        problem = _difference(directory / name, facts)
        if problem:
            raise ImageBroken(f"{what} is broken: {directory / name} {problem}", hint=_REBUILD)
    return manifest


def _difference(path: Path, facts: FileFacts) -> str:
    """How a file differs from its manifest at a glance; empty when it does not."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return "is missing"
    if found.st_size != facts.size:
        return f"has {found.st_size} bytes instead of {facts.size}"
    if found.st_mtime_ns != facts.mtime_ns:
        return "was changed after it was published"
    return ""


def _publish(
    staging: Path, parent: Path, facts: Mapping[str, str], names: set[str], link: Path
) -> None:
    manifest = _manifest(staging, names, facts)
    write_atomic(staging / MANIFEST, manifest.encode(), mode=0o444)
    for name in names:
        (staging / name).chmod(0o444)
        _sync(staging / name)
    sync_directory(staging)
    target = parent / manifest.digest
    if target.exists():  # the same bytes again, or the same with a broken manifest
        _replace(staging, target)
    else:
        staging.rename(target)
    sync_directory(parent)
    _flip(link, os.path.relpath(target, link.parent))


def _manifest(staging: Path, names: set[str], facts: Mapping[str, str]) -> Manifest:
    files = {}
    for name in names:
        path = staging / name
        digest = _sha256(path)
        found = path.stat()
        files[name] = FileFacts(size=found.st_size, sha256=digest, mtime_ns=found.st_mtime_ns)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(created=created, files=files, facts=dict(facts))


def _replace(staging: Path, target: Path) -> None:
    """Put each file of `staging` in the place of its namesake: whoever has one open keeps it."""
    for path in sorted(staging.iterdir()):
        path.rename(target / path.name)
    sync_directory(target)
    staging.rmdir()


def _flip(link: Path, target: str) -> None:
    made = link.with_name(link.name + _STAGING_SUFFIX)
    made.unlink(missing_ok=True)
    made.symlink_to(target)
    made.rename(link)
    sync_directory(link.parent)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sha256(path: Path) -> str:
    """SHA-256 of a file as `sha256sum` says it; holes are not read from the disk."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as opened:
        size = os.fstat(opened.fileno()).st_size
        at = 0
        for start, end in data_runs(opened.fileno(), size):
            _hash_zeros(digest, start - at)
            _hash_data(digest, opened.fileno(), start, end)
            at = end
        _hash_zeros(digest, size - at)
    return digest.hexdigest()


def _hash_data(digest: "hashlib._Hash", fd: int, start: int, end: int) -> None:
    while start < end:
        data = os.pread(fd, min(_CHUNK, end - start), start)
        if not data:
            raise ImageBroken("a file became shorter while it was read", hint=_REBUILD)
        digest.update(data)
        start += len(data)


def _hash_zeros(digest: "hashlib._Hash", count: int) -> None:
    zeros = bytes(min(_CHUNK, count))
    while count > 0:
        digest.update(zeros[: min(_CHUNK, count)])
        count -= _CHUNK
