"""The manifest of a snapshot: what it is, which files it has, and where it can be restored.

Pure values and their JSON (docs/snapshot-format.md). A manifest that is made is valid.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Self, TypeVar

T = TypeVar("T")
FORMAT = 1
MAX_BYTES = 1 << 20
MIB = 1 << 20
_BUILD = re.compile(r"[0-9a-f]{32}")
_CHECKSUM = re.compile(r"(sha256|blocks):[0-9a-f]{64}|pages")
_FILE = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


class ManifestError(ValueError):
    """These are not the bytes, or the parts, of a manifest."""


class NewerFormat(ManifestError):
    """It was written by a newer version of this program."""


class Layout(StrEnum):
    """How memory lies in a snapshot: files for each build and a header, or one raw file."""

    CHAIN = "chain"
    SINGLE = "single"


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """One file: `size` in bytes, and `checksum` with its kind (sha256:, blocks:, or pages)."""

    size: int
    checksum: str

    def __post_init__(self) -> None:
        if self.size < 0 or not _CHECKSUM.fullmatch(self.checksum):
            raise ManifestError(f"no file has size {self.size} and checksum {self.checksum!r}")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One pause since the last full one. `build` names its file even if no page of it is left."""

    build: str
    created: str
    data_pages: int
    zero_pages: int

    def __post_init__(self) -> None:
        if not _BUILD.fullmatch(self.build) or min(self.data_pages, self.zero_pages) < 0:
            raise ManifestError(f"{self.build!r} is not a generation with its pages")


@dataclass(frozen=True, kw_only=True)
class VmmFacts:
    """The VMM that made a snapshot, or that is here.

    kind: `firecracker` or `qemu`. version: of the program. binary: its digest. snapshot_version:
    Firecracker's, or that of our own state file. devices: which kinds, in the machine's order.
    """

    kind: str
    version: str
    binary: str
    snapshot_version: str
    devices: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the host knew about the sandbox when it was frozen. `extra`: anything else, as text.

    tier: `kvm` or `emulated`. template: what the sandbox was made from. overlay: the disk driver.
    name: a snapshot template's; empty for a paused sandbox.
    """

    vmm: VmmFacts
    tier: str
    cpu_model: str
    host_kernel: str
    guest_kernel: str
    template: str
    sandbox: str
    overlay: str
    vcpus: int
    mem_mib: int
    name: str = ""
    extra: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        if self.vcpus < 1 or self.mem_mib < 1:
            raise ManifestError(f"no guest has {self.vcpus} vCPUs and {self.mem_mib} MiB")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that `manifest.json` says. `created` is ISO 8601 in UTC."""

    layout: Layout
    created: str
    facts: Facts
    generations: tuple[Generation, ...]
    files: Mapping[str, FileFacts]

    def __post_init__(self) -> None:
        if not self.generations:
            raise ManifestError("a snapshot has at least one generation")
        for name in self.files:
            if not _FILE.fullmatch(name):
                raise ManifestError(f"{name!r} is not the name of a snapshot's file")

    @property
    def mem_bytes(self) -> int:
        return self.facts.mem_mib * MIB

    def encode(self) -> bytes:
        facts = {**vars(self.facts), "vmm": vars(self.facts.vmm), "extra": dict(self.facts.extra)}
        value: dict[str, Any] = {
            "format": FORMAT,
            "layout": str(self.layout),
            "created": self.created,
            "facts": facts,
            "generations": [asdict(generation) for generation in self.generations],
            "files": {name: vars(file) for name, file in self.files.items()},
        }
        value["checksum"] = _checksum(value)
        return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Errors: NewerFormat; ManifestError says what is wrong with these bytes."""
        value = _document(data)
        try:
            return cls(
                layout=Layout(_text(value, "layout")),
                created=_text(value, "created"),
                facts=_facts(value["facts"]),
                generations=tuple(_build(Generation, item) for item in value["generations"]),
                files=MappingProxyType(
                    {name: _build(FileFacts, item) for name, item in value["files"].items()}
                ),
            )
        except ManifestError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ManifestError(f"the manifest lacks something: {error!r}") from error


def _document(data: bytes) -> dict[str, Any]:
    """The JSON of a manifest of this format, its checksum found right."""
    if len(data) > MAX_BYTES:
        raise ManifestError(f"a manifest of {len(data)} bytes is too long")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is not JSON: {error}") from error
    if not isinstance(value, dict) or not isinstance(value.get("format"), int):
        raise ManifestError("this is not a manifest")
    if value["format"] > FORMAT:
        raise NewerFormat(f"the manifest is of format {value['format']}, newer than {FORMAT}")
    if value["format"] != FORMAT:
        raise ManifestError(f"there is no manifest of format {value['format']}")
    if value.pop("checksum", None) != _checksum(value):
        raise ManifestError("the manifest's checksum is wrong")
    return value


def _checksum(value: dict[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _facts(value: dict[str, Any]) -> Facts:
    vmm = _build(VmmFacts, {**value["vmm"], "devices": _texts(value["vmm"]["devices"])})
    extra = value["extra"]
    _texts([*extra.keys(), *extra.values()])
    return _build(Facts, {**value, "vmm": vmm, "extra": MappingProxyType(extra)})


def _build(kind: type[T], value: dict[str, Any]) -> T:
    """A dataclass of texts and numbers from JSON, each of the type that is declared."""
    made = kind(**value)
    for name, declared in kind.__annotations__.items():
        if declared in (str, int) and type(value.get(name, "")) is not declared:
            raise ManifestError(f"{name} of the manifest is {value.get(name)!r}")
    return made


def _text(value: dict[str, Any], name: str) -> str:
    return _texts([value[name]])[0]


def _texts(values: list[Any]) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ManifestError(f"{values!r} is not a list of texts")
    return tuple(values)
