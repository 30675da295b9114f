"""Recipes: what is in a kernel, an image, the guest runtime. Small TOML files beside this package.

They are read, never written; each kind has one class, whose constructor refuses nonsense.
"""

import re
import tomllib
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from wrennd.core.errors import NotFound

DIRECTORY = Path(__file__).parent / "recipes"
MIN_DISK_MIB = 64
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+.-]+")
_USER_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_NOT_IMAGES = ("kernel", "runtime")

_T = TypeVar("_T")


class Builder(StrEnum):
    """How the tree of an image is made."""

    DEBIAN = "debian"
    BUSYBOX = "busybox"


@dataclass(frozen=True, kw_only=True)
class User:
    """An account in an image, with a group of the same name and number. sudo: without password."""

    name: str
    uid: int
    home: str
    shell: str
    sudo: bool

    def __post_init__(self) -> None:
        if not _USER_NAME.fullmatch(self.name) or not 0 < self.uid < 60000:
            raise ValueError(f"a user can't be named {self.name!r} or have the id {self.uid}")
        if not self.home.startswith("/") or not self.shell.startswith("/"):
            raise ValueError(f"home and shell of {self.name!r} must be absolute")


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """An image. packages: Debian's, on top of the essential ones; only for the builder debian.

    file: where it was read from.
    """

    file: Path
    name: str
    builder: Builder
    disk_mib: int
    users: tuple[User, ...]
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.disk_mib, int):
            raise ValueError(f"disk_mib must be a number, not {self.disk_mib!r}")
        if self.disk_mib < MIN_DISK_MIB:
            raise ValueError(f"a disk of {self.disk_mib} MiB is too small: {MIN_DISK_MIB} is least")
        _check_packages(self.packages)


@dataclass(frozen=True, kw_only=True)
class KernelRecipe:
    """package: a metapackage whose dependency is the kernel. modules: what the initrd loads."""

    package: str
    modules: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_packages((self.package,))


@dataclass(frozen=True, kw_only=True)
class RuntimeRecipe:
    """See images/runtime.toml, which explains each field."""

    packages: tuple[str, ...]
    loader: str
    libraries: tuple[str, ...]
    modules: tuple[str, ...]
    extensions: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_packages(self.packages)


def image(name: str) -> ImageRecipe:
    """Errors: NotFound when there is no such recipe; ValueError when it is wrong."""
    if name not in image_names():
        raise NotFound(
            f"there is no recipe for an image named {name!r}",
            hint=f"there are: {', '.join(image_names())}",
        )
    return image_in(DIRECTORY / f"{name}.toml", name)


def image_in(file: Path, name: str) -> ImageRecipe:
    """The recipe in any file, for an image of that name.

    Errors: OSError; ValueError when it is wrong (also when it is no TOML, or no UTF-8).
    """
    value = tomllib.loads(file.read_text())
    users = value.pop("users", [])
    if not isinstance(users, list) or not all(isinstance(user, dict) for user in users):
        raise ValueError("users must be tables: [[users]]")
    made = tuple(_make(User, user) for user in users)
    builder = Builder(value.pop("builder", "nothing"))
    ours = {"file": file, "name": name, "builder": builder, "users": made}
    return _make(ImageRecipe, {**value, **ours})


def image_names() -> list[str]:
    names = sorted(path.stem for path in DIRECTORY.glob("*.toml"))
    return [name for name in names if name not in _NOT_IMAGES]


def kernel() -> KernelRecipe:
    return _make(KernelRecipe, _read("kernel"))


def runtime() -> RuntimeRecipe:
    return _make(RuntimeRecipe, _read("runtime"))


def text(name: str) -> str:
    """A file beside the recipes, such as wrenn-init.sh."""
    return (DIRECTORY / name).read_text()


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(text(f"{name}.toml"))


def _make(kind: type[_T], value: dict[str, Any]) -> _T:
    """A dataclass of a TOML table: lists become tuples; a wrong or missing key is a ValueError."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := set(value) - known:
        raise ValueError(f"a recipe says {', '.join(sorted(unknown))}, which means nothing")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
    try:
        return kind(**plain)
    except TypeError as error:
        raise ValueError(f"a recipe is incomplete: {error}") from error


def _check_packages(names: tuple[str, ...]) -> None:
    if not isinstance(names, tuple):
        raise ValueError(f"packages must be a list, not {names!r}")
    for name in names:
        if not isinstance(name, str) or not _PACKAGE.fullmatch(name):
            raise ValueError(f"{name!r} can't be the name of a package")
