"""What a host can do without: found, weighed, and removed under the locks of those who make it.

Never what somebody made: images without a name of which no sandbox is, kernels likewise, frozen
images that fit none of these any more, what builds keep to be faster the next time, and what killed
ones left. Snapshot templates of which no sandbox is only go when that is asked for.

Locks: the setup lock for everything that setups make, taken without waiting, since one may hold it
for minutes; `incoming/.lock` likewise, for what imports left, which are let alone while one works;
then `templates/.lock`, for as long as hard links take, for what lies there.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from wrennd.core.errors import NotFound, WrongState
from wrennd.core.space import Pruned, Pruning
from wrennd.host import exchange, templates, warm
from wrennd.host.record import Record
from wrennd.linux.files import try_lock
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout
from wrennd.storage.shares import weigh

_REMOVED_SUFFIX = ".tmp"


@dataclass(frozen=True, kw_only=True)
class _Doomed:
    """What goes: where it lies, and how it is removed."""

    kind: str
    name: str
    why: str
    path: Path
    remove: Callable[[], None]


def prune(layout: Layout, *, is_dry_run: bool = False, with_templates: bool = False) -> Pruning:
    """Remove what nobody uses, or only say what that is.

    with_templates: snapshot templates of which there is no sandbox, too. Errors: WrongState while
    a setup works, of which nobody can say what it leaves.
    """
    with _held(layout.setup_lock) as is_ours, _held(exchange.lock_file(layout)) as is_idle:
        if not is_ours:
            raise WrongState(
                f"a setup is at work on {layout.data_dir}", hint="try again when it has ended"
            )
        records, notes = _records(layout)
        doomed = [
            *_leftovers(layout),
            *_published(layout, records),
            *_warm(layout),
            *_caches(layout),
        ]
        if is_idle:
            doomed += _imports(layout)
        if with_templates:
            doomed += _unused_templates(layout, records)
        pruning = _weighed(doomed, notes)
        if not is_dry_run:
            for each in doomed:
                each.remove()
    return pruning


def digests_in_use(layout: Layout) -> set[str] | None:
    """The digests of images and kernels that sandboxes were made of. None when the record of one
    can't be read: who can say what that one is made of?"""
    records, _ = _records(layout)
    return None if records is None else _digests(records)


def _digests(records: list[Record]) -> set[str]:
    return {digest for found in records for digest in (found.image_digest, found.kernel_digest)}


@contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Whether a lock could be taken, for the block, without waiting."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield try_lock(lock)
    finally:
        os.close(lock)


def _records(layout: Layout) -> tuple[list[Record] | None, tuple[str, ...]]:
    """Of all sandboxes; None, and why, when one can't be read."""
    found = []
    for path in sorted(layout.sandboxes.glob("*/record.json")):
        try:
            found.append(Record.decode(path.read_bytes()))
        except FileNotFoundError:
            continue  # that sandbox ends right now
        except ValueError:
            return None, (
                f"images, kernels and templates are left alone: the record of sandbox "
                f"{path.parent.name} can't be read, so nobody knows what it is made of",
            )
    return found, ()


def _published(layout: Layout, records: list[Record] | None) -> Iterator[_Doomed]:
    """Images and kernels that have no name any more."""
    if records is None:
        return
    for path in ImageStore(layout).nameless(_digests(records)):
        is_kernel = path.parent == layout.kernels
        yield _Doomed(
            kind="kernel" if is_kernel else "image",
            name=path.name,
            why="it was replaced or removed, and no sandbox was made of it",
            path=path,
            remove=partial(_remove, path),
        )


def _warm(layout: Layout) -> Iterator[_Doomed]:
    """Frozen images that no sandbox will be restored from."""
    for path in warm.unwanted(layout):
        remove = partial(warm.remove, layout, path)
        if warm.is_leftover(path):
            yield _leftover(path, "a setup that was broken off left it", remove)
            continue
        yield _Doomed(
            kind="warm",
            name=path.name,
            why="its image or the kernel was replaced or removed",
            path=path,
            remove=remove,
        )


def _leftovers(layout: Layout) -> Iterator[_Doomed]:
    """What killed builds, snapshots and removals left."""
    built = [*ImageStore(layout).leftovers(), *layout.cache.glob(f"*{_REMOVED_SUFFIX}")]
    for path in sorted(built):
        yield _leftover(path, "a build that was broken off left it", partial(_remove, path))
    with templates.lock(layout):
        for path in templates.nameless(layout):
            yield _leftover(
                path,
                "a snapshot that was broken off left it",
                partial(templates.remove_nameless, layout),
            )


def _imports(layout: Layout) -> Iterator[_Doomed]:
    for path in exchange.leftovers(layout):
        yield _leftover(path, "an import that was broken off left it", partial(_remove, path))


def _leftover(path: Path, why: str, remove: Callable[[], None]) -> _Doomed:
    name = f"{path.parent.name}/{path.name}"
    return _Doomed(kind="leftover", name=name, why=why, path=path, remove=remove)


def _caches(layout: Layout) -> Iterator[_Doomed]:
    for path in sorted(layout.cache.iterdir()):
        if not path.name.endswith(_REMOVED_SUFFIX):
            yield _Doomed(
                kind="cache",
                name=path.name,
                why="the next build that needs it makes it, or downloads it, again",
                path=path,
                remove=partial(_remove, path),
            )


def _unused_templates(layout: Layout, records: list[Record] | None) -> Iterator[_Doomed]:
    if records is None:
        return
    used = {found.template for found in records}
    for template in templates.every(layout):
        if template.name not in used:
            yield _Doomed(
                kind="template",
                name=template.name,
                why="no sandbox was made of it",
                path=template.directory,
                remove=partial(_remove_template, layout, template.name),
            )


def _remove_template(layout: Layout, name: str) -> None:
    try:
        templates.remove(layout, name)
    except NotFound:  # somebody was faster
        return


def _remove(path: Path) -> None:
    """A directory goes by its name first, so that one that is half there can't be taken for one."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = path
    if not path.name.endswith(_REMOVED_SUFFIX):
        doomed = path.with_name(f"{path.name}{_REMOVED_SUFFIX}")
        path.rename(doomed)
    shutil.rmtree(doomed)


def _weighed(doomed: list[_Doomed], notes: tuple[str, ...]) -> Pruning:
    each = weigh({index: [found.path] for index, found in enumerate(doomed)})
    together = weigh({"all": [found.path for found in doomed]})
    items = tuple(
        Pruned(kind=found.kind, name=found.name, why=found.why, own_bytes=each[index].own_bytes)
        for index, found in enumerate(doomed)
    )
    return Pruning(items=items, freed_bytes=together["all"].own_bytes, notes=notes)
