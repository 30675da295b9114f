"""Images that are an administrator's own: built from a recipe, imported from a tree; and removal.

How they are made is `host/setup.py`'s workshop; here is what may be asked of it.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from wrennd.core.errors import AlreadyExists, InvalidInput
from wrennd.core.ids import check_name
from wrennd.host import setup
from wrennd.images import recipe
from wrennd.images.recipe import ImageRecipe
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout

Report = Callable[[str], None]
MAX_DISK_MIB = 1 << 20  # 1 TiB; the file is sparse, but its tables grow with it


def build(layout: Layout, file: Path, name: str, *, force: bool, report: Report) -> None:
    """Build the image of a recipe file, also where it is there already.

    Errors: InvalidInput (the recipe, or a name that belongs to Wrenn), and those of a setup.
    """
    wanted = _recipe(file, name)
    setup.check_host([wanted])
    with setup.workshop(layout, force=force, report=report) as shop:
        shop.build_image(wanted)


def take(layout: Layout, name: str, source: Path, disk_mib: int, *, report: Report) -> None:
    """Import a root filesystem, a directory or a tar archive of it, under a new name.

    Errors: InvalidInput (values, or what is wrong with the tree), AlreadyExists, and those of a
    setup.
    """
    check_name(name, "image")
    if name in recipe.image_names():
        raise InvalidInput(
            f"{name!r} is an image that Wrenn builds itself", hint="choose another name"
        )
    if not recipe.MIN_DISK_MIB <= disk_mib <= MAX_DISK_MIB:
        raise InvalidInput(
            f"a disk of {disk_mib} MiB can't be made",
            hint=f"--disk is between {recipe.MIN_DISK_MIB} and {MAX_DISK_MIB} MiB",
        )
    if layout.data_dir.resolve().is_relative_to(source.resolve()):
        raise InvalidInput(
            f"{source} can't be imported: Wrenn's own data directory {layout.data_dir} is in it",
            hint="copy the tree somewhere else, or mount it",
        )
    setup.check_host([])
    with setup.workshop(layout, report=report) as shop:
        if ImageStore(layout).has(name):
            raise AlreadyExists(
                f"there is an image named {name!r} already",
                hint=f"choose another name, or remove that one: wrenn image rm {name}",
            )
        shop.import_image(name, source, disk_mib)


def remove(layout: Layout, name: str, report: Report) -> None:
    """Take the name away at once; the files too, unless a sandbox's record names them.

    A sandbox's disk is its own, so one that runs does not notice. Errors: InvalidInput, NotFound.
    """
    with setup.alone(layout, report), ExitStack() as held:
        held.callback(setup.prune, layout)
        ImageStore(layout).unname(name)
        setup.forget_tree(layout, name)


def _recipe(file: Path, name: str) -> ImageRecipe:
    check_name(name, "image")
    is_ours = name in recipe.image_names() and not _is_same(file, recipe.image(name).file)
    if is_ours:
        raise InvalidInput(
            f"{name!r} is an image that Wrenn builds itself, of another recipe than {file}",
            hint="choose another name for yours with --name",
        )
    with _explained(file):
        return recipe.image_in(file, name)


def _is_same(file: Path, other: Path) -> bool:
    return file.exists() and file.samefile(other)


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    hint = "docs/images.md says what a recipe may say; images/base.toml is one"
    try:
        yield
    except OSError as error:
        text = f"the recipe {file} can't be read: {error.strerror}"
        raise InvalidInput(text, hint=hint) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidInput(f"the recipe {file} is wrong: {error}", hint=hint) from error
