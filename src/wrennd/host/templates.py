"""Snapshot templates: frozen sandboxes under a name, for others to be made of.

A template is a snapshot directory, `templates/<id>`, and a name is a symlink to it beside the names
of base images, so that a name means one thing. Making and removing hold `templates/.lock`, for as
long as hard links take; a sandbox that is made of one gets links of its own first, so a template
that is removed meanwhile is missed by nobody.
"""

import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.errors import AlreadyExists, NotFound, WrongState
from wrennd.core.ids import check_name, new_sandbox_id
from wrennd.images import recipe
from wrennd.linux import files
from wrennd.snapshot import store
from wrennd.snapshot.manifest import Facts
from wrennd.snapshot.reader import Snapshot, open_snapshot
from wrennd.storage import drivers
from wrennd.storage.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Template:
    """A name and the directory that it means, looked at no further."""

    name: str
    directory: Path


def lock(layout: Layout) -> AbstractContextManager[None]:
    return files.locked(layout.templates / ".lock")


def find(layout: Layout, name: str) -> Template | None:
    """The template of that name; None when there is none, though there may be an image.

    Errors: InvalidInput for what can't be a name.
    """
    check_name(name, "template")
    try:
        target = layout.image_name(name).readlink()
    except FileNotFoundError:
        return None
    if target.parent.name != layout.templates.name:
        return None
    return Template(name=name, directory=layout.templates / target.name)


def get(layout: Layout, name: str) -> Template:
    """Errors: NotFound, InvalidInput."""
    found = find(layout, name)
    if found is None:
        names = ", ".join(template.name for template in every(layout))
        known = f"there are: {names}" if names else "there are none"
        raise NotFound(
            f"there is no snapshot template named {name!r} ({known})",
            hint="wrenn snapshot create ID NAME makes one of a sandbox",
        )
    return found


def every(layout: Layout) -> list[Template]:
    """All of them, by name."""
    names = sorted(link.name for link in layout.names.iterdir() if link.is_symlink())
    found = (find(layout, name) for name in names if not name.endswith(".tmp"))
    return [template for template in found if template is not None]


def check_is_free(layout: Layout, name: str, *, overwrite: bool = False) -> None:
    """overwrite: a snapshot template may have it. Errors: AlreadyExists when the name is taken, or
    kept for an image; InvalidInput."""
    is_taken = layout.image_name(check_name(name, "template")).is_symlink()
    if is_taken and not (overwrite and find(layout, name) is not None):
        raise AlreadyExists(
            f"there is a template or an image named {name!r} already",
            hint="choose another name; wrenn snapshot rm and wrenn image rm free one",
        )
    if name in recipe.image_names():
        raise AlreadyExists(f"{name!r} is the name of a base image", hint="choose another name")


def add(
    layout: Layout, name: str, snapshot: Snapshot, facts: Facts, *, overwrite: bool = False
) -> Snapshot:
    """Give a snapshot a name, under which it stays when its sandbox goes.

    overwrite: take the name from a template that has it, in one step. Errors: AlreadyExists,
    NoCapacity.
    """
    with lock(layout), ExitStack() as undo:
        check_is_free(layout, name, overwrite=overwrite)
        _remove_nameless(layout)
        directory = layout.template(new_sandbox_id())
        shared = share_flat(layout, snapshot, directory, facts)
        undo.callback(store.remove, directory)
        target = Path("..") / layout.templates.name / directory.name
        if overwrite:
            _flip(layout.image_name(name), target)
        else:
            _link(layout, name, target)
        undo.pop_all()
        files.sync_directory(layout.names)
        _remove_nameless(layout)
    return shared


def _link(layout: Layout, name: str, target: Path) -> None:
    try:
        layout.image_name(name).symlink_to(target)
    except FileExistsError:  # an image was published under it just now
        check_is_free(layout, name)
        raise


def _flip(link: Path, target: Path) -> None:
    """Let a name mean something else; at no moment it means nothing."""
    made = link.with_name(f"{link.name}.tmp")
    made.unlink(missing_ok=True)
    made.symlink_to(target)
    made.rename(link)


def share_flat(layout: Layout, snapshot: Snapshot, directory: Path, facts: Facts) -> Snapshot:
    """As `store.share`, but with a disk that is a base of its own: what is made of it begins empty,
    instead of with a copy of what its sandbox had written."""
    if not drivers.is_cow_disk(snapshot.disk):
        return store.share(snapshot, directory, facts)
    with store.draft(directory) as made:
        made.link(snapshot, disk=False)
        drivers.named(layout, "dm").flatten(snapshot.disk, made.disk)
        return made.commit(facts)


def share(layout: Layout, template: Template, directory: Path) -> Snapshot:
    """Links of a template's files for a sandbox.

    Errors: NotFound; WrongState when the name means another one by now; SnapshotBroken, NoCapacity.
    """
    with lock(layout):
        if get(layout, template.name) != template:
            raise WrongState(f"template {template.name!r} was just replaced", hint="try again")
        return store.share(open_snapshot(template.directory), directory)


def remove(layout: Layout, name: str) -> None:
    """Sandboxes made of it go on. Errors: NotFound, InvalidInput."""
    with lock(layout):
        found = get(layout, name)
        layout.image_name(name).unlink()
        files.sync_directory(layout.names)
        store.remove(found.directory)
        _remove_nameless(layout)


def nameless(layout: Layout) -> list[Path]:
    """What a crash left between directory and name, drafts too. For the holder of the lock."""
    named = {template.directory.name for template in every(layout)}
    names = sorted(os.listdir(layout.templates))  # noqa: PTH208 - names
    return [layout.templates / name for name in names if name != ".lock" and name not in named]


def remove_nameless(layout: Layout) -> None:
    """Remove what is `nameless`."""
    with lock(layout):
        _remove_nameless(layout)


def _remove_nameless(layout: Layout) -> None:
    """For the holder of the lock."""
    store.remove_leftovers(layout.templates)
    for path in nameless(layout):
        store.remove(path)
