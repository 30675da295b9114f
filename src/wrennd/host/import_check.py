"""What is looked at of an import before anything is made of it: its author may be anybody.

Its memory, state and disk are a guest's: whatever they hold is read by processes without rights,
as with every snapshot. What our own code reads, its manifest and its facts, is checked here.
"""

import ipaddress
import json
import re

from wrennd.archive.document import ArchiveError, Document, Kind
from wrennd.core.errors import InvalidInput, NoCapacity, SnapshotBroken
from wrennd.core.ids import SANDBOX_ID
from wrennd.core.model import MAX_VCPUS, check_environment
from wrennd.host import capacity
from wrennd.snapshot.manifest import MAX_BYTES, Facts, Manifest
from wrennd.snapshot.reader import (
    DISK,
    HEADER,
    MANIFEST,
    MEMFILE,
    STATE,
    SUMS,
    TOKEN,
    TOUCHED,
    Snapshot,
)
from wrennd.snapshot.store import MAX_STATE_BYTES
from wrennd.snapshot.verify import verify
from wrennd.storage import cow, drivers
from wrennd.storage.usage import disk_usage_of

_TIERS = ("kvm", "emulated")
_BUILD_FILE = re.compile(r"(memfile|base)\.[0-9a-f]{32}")
_DIGEST = re.compile(r"[0-9a-f]{0,64}")
_LINE = re.compile(r"[ -~]{0,255}")
MAX_TOKEN_BYTES = 4096
MAX_ENV = 64 << 10
_BOUNDS = {MANIFEST: MAX_BYTES, STATE: MAX_STATE_BYTES, TOKEN: MAX_TOKEN_BYTES}
_NAMES = frozenset({MANIFEST, HEADER, SUMS, STATE, DISK, TOKEN, TOUCHED, MEMFILE})


def check_document(document: Document, kind: str) -> None:
    """That its files are a snapshot's, by name and size. Errors: ArchiveError."""
    if document.kind != kind:
        raise ArchiveError(f"it is a {document.kind[:20]!r}, not a {kind}")
    for member in document.members:
        if member.kind is not Kind.FILE or not _is_known(member.path):
            raise ArchiveError(f"a snapshot has no {member.kind} {member.path}")
        if member.size > _BOUNDS.get(member.path, member.size):
            raise ArchiveError(f"its {member.path} has {member.size} bytes")
    if MANIFEST not in {member.path for member in document.members}:
        raise ArchiveError(f"it has no {MANIFEST}")


def _is_known(path: str) -> bool:
    return path in _NAMES or _BUILD_FILE.fullmatch(path) is not None


def check_manifest(manifest: Manifest, document: Document) -> None:
    """That it is of exactly these files, and of a guest that this host could have: what of a
    snapshot is read into memory is in proportion to its guest. Errors: ArchiveError, NoCapacity."""
    names = {member.path for member in document.members} - {MANIFEST}
    if names != set(manifest.files):
        odd = ", ".join(sorted(names ^ set(manifest.files)))
        raise ArchiveError(f"its manifest and its files don't agree on {odd}")
    facts, total = manifest.facts, capacity.total_mib()
    if facts.mem_mib > total:
        raise NoCapacity(
            f"a guest of {facts.mem_mib} MiB does not fit: this host has {total} MiB in all",
            hint="import it on a larger machine",
        )
    memory = manifest.mem_bytes
    for name in (HEADER, SUMS, TOUCHED):
        if name in manifest.files and manifest.files[name].size > (memory >> 8) + (1 << 16):
            raise ArchiveError(f"its {name} has {manifest.files[name].size} bytes")
    _check_facts(facts)


def _check_facts(facts: Facts) -> None:
    """Errors: ArchiveError."""
    vmm = facts.vmm
    texts = [facts.cpu_model, facts.host_kernel, facts.guest_kernel, facts.template, facts.name]
    texts += [vmm.kind, vmm.version, vmm.binary, vmm.snapshot_version, *vmm.devices]
    if not all(_LINE.fullmatch(text) for text in texts):
        raise ArchiveError("what it says of its guest is not printable, or too long")
    if facts.vcpus > MAX_VCPUS or facts.tier not in _TIERS or facts.overlay not in drivers.NAMES:
        raise ArchiveError(
            f"no guest has {facts.vcpus} vCPUs, the tier {facts.tier[:20]!r} and a disk of the "
            f"driver {facts.overlay[:20]!r}"
        )
    if not SANDBOX_ID.fullmatch(facts.sandbox):
        raise ArchiveError(f"{facts.sandbox[:40]!r} is not the id of a sandbox")
    try:
        _check_extra(facts)
    except (ValueError, AttributeError, RecursionError, InvalidInput) as error:
        raise ArchiveError(f"what it says of its guest makes no sense: {error}") from error


def _check_extra(facts: Facts) -> None:
    """Errors: ValueError, AttributeError, InvalidInput."""
    extra = facts.extra
    for name in ("image_digest", "kernel_digest"):
        if not _DIGEST.fullmatch(extra.get(name, "")):
            raise ValueError(f"{name} is no digest")
    for address in filter(None, extra.get("resolvers", "").split(",")):
        ipaddress.IPv4Address(address)
    text = extra.get("env", "{}")
    if len(text) > MAX_ENV:
        raise ValueError(f"its variables have {len(text)} bytes")
    env = json.loads(text)
    if not all(isinstance(value, str) for value in env.values()):
        raise ValueError("a variable is not a text")
    check_environment(env)


def check_content(snapshot: Snapshot, what: str) -> None:
    """All of it against its checksums. Errors: SnapshotBroken."""
    problems = verify(snapshot.directory)
    if problems:
        raise SnapshotBroken(
            f"{what} can't be imported: {problems[0]}"
            + (f", and {len(problems) - 1} more" if problems[1:] else ""),
            hint="it was damaged before it was exported: wrenn snapshot verify, there",
        )


def flat_bytes(snapshot: Snapshot) -> int:
    """What its disk may take when it is made into one without a base; 0 where it is one.

    A stranger's list of what differs may name the same blocks again and again.
    """
    if not drivers.is_cow_disk(snapshot.disk):
        return 0
    bases = [snapshot.directory / name for name in cow.base_names(snapshot.directory)]
    with snapshot.disk.open("rb") as file:
        try:
            header = cow.read_header(file.fileno())
            written = sum(count for _, _, count in cow.exceptions(file.fileno(), header))
        except cow.CowError as error:
            raise SnapshotBroken(f"its disk can't be used: {error}") from error
    tail = min(header.tail_bytes, disk_usage_of([snapshot.disk]))
    return disk_usage_of(bases) + written * cow.CHUNK + tail
