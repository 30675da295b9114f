"""What takes disk in a data directory: images, templates, sandboxes and their generations, caches.

Only looked at, without a lock: what comes or goes meanwhile is there or not.
"""

import dataclasses
from contextlib import suppress
from pathlib import Path

from wrennd.core.errors import Error
from wrennd.core.space import Holding, Space
from wrennd.host import record, templates, warm
from wrennd.host.reclaim import ids
from wrennd.snapshot import store
from wrennd.snapshot.reader import BASE_PREFIX
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout, SandboxPaths
from wrennd.storage.shares import weigh

ORDER = (
    "image",
    "warm",
    "kernel",
    "template",
    "sandbox",
    "disk",
    "generation",
    "cache",
    "leftover",
)
LEFTOVER = ".tmp"
_Things = dict[Holding, list[Path]]


def space(layout: Layout) -> Space:
    """Seconds, where there are thousands of snapshots. Errors: OSError for what can't be read."""
    rest = {**_published(layout), **_warm(layout), **_templates(layout), **_caches(layout)}
    boxes: _Things = {}
    parts: _Things = {}
    for sandbox_id in ids(layout):
        paths = layout.sandbox(sandbox_id)
        boxes[Holding(kind="sandbox", name=sandbox_id, note=_state(paths))] = [paths.data]
        with suppress(FileNotFoundError):  # it ends right now
            parts |= _parts(paths)
    # A sandbox's parts share with each other: they are weighed against all others, and it as one.
    weights = weigh({**rest, **parts}) | weigh({**rest, **boxes})
    found = [
        dataclasses.replace(each, total_bytes=weight.total_bytes, own_bytes=weight.own_bytes)
        for each, weight in weights.items()
    ]
    found.sort(key=lambda each: (ORDER.index(each.kind), each.of, each.name))
    every = weigh({"all": [path for paths in {**rest, **boxes}.values() for path in paths]})
    return Space(holdings=tuple(found), total_bytes=every["all"].total_bytes)


def _published(layout: Layout) -> _Things:
    """Images and kernels: those that have names by these, the others by their digest."""
    names: dict[Path, list[str]] = {}
    for name, directory in ImageStore(layout).named():
        names.setdefault(directory, []).append(name)
    found: _Things = {}
    for kind, parent in (("image", layout.images), ("kernel", layout.kernels)):
        for path in _directories(parent):
            known = names.get(path)
            if path.name.endswith(LEFTOVER):
                found[_leftover(path)] = [path]
            elif known:
                found[Holding(kind=kind, name=", ".join(sorted(known)))] = [path]
            else:
                found[Holding(kind=kind, name=path.name, note="an earlier one")] = [path]
    return found


def _warm(layout: Layout) -> _Things:
    """Frozen images, by the image and its size."""
    names = {directory.name: name for name, directory in ImageStore(layout).named()}
    found: _Things = {}
    for path in _directories(layout.warm):
        digest, _, size = path.name.partition("-")
        name = f"{names.get(digest, digest)}-{size}"
        found[_leftover(path) if warm.is_leftover(path) else Holding(kind="warm", name=name)] = [
            path
        ]
    return found


def _templates(layout: Layout) -> _Things:
    names = {found.directory: found.name for found in templates.every(layout)}
    found: _Things = {}
    for path in _directories(layout.templates):
        name = names.get(path)
        found[Holding(kind="template", name=name) if name else _leftover(path)] = [path]
    return found | {_leftover(path): [path] for path in _directories(layout.incoming)}


def _caches(layout: Layout) -> _Things:
    return {
        _leftover(path)
        if path.name.endswith(LEFTOVER)
        else Holding(kind="cache", name=path.name): [path]
        for path in layout.cache.iterdir()
    }


def _leftover(path: Path) -> Holding:
    name = f"{path.parent.name}/{path.name}"
    return Holding(kind="leftover", name=name, note="in the making, or broken off")


def _state(paths: SandboxPaths) -> str:
    try:
        return str(record.load(paths).state)
    except Error:
        return "unreadable"


def _parts(paths: SandboxPaths) -> _Things:
    """Its disk, while it has one, and each of its generations."""
    of = paths.data.name
    found: _Things = {
        Holding(kind="generation", name=f"gen-{number}", of=of): [paths.generation(number)]
        for number in store.generations(paths.data)
    }
    disk = [paths.disk, paths.disk_before, *paths.data.glob(f"{BASE_PREFIX}*")]
    there = [path for path in disk if path.exists()]
    if there:
        found[Holding(kind="disk", name="disk", of=of)] = there
    return found


def _directories(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir() and not path.is_symlink()]
