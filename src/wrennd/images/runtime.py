"""The interpreter that guests carry in /usr/lib/wrenn/python/: own loader, libraries, modules.

Made of Debian's packages, so that the guest agent runs in any root filesystem, also one without
Python or with another C library. Sourceless: every module is compiled here, by this very
interpreter.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from wrennd.core.errors import ImageBroken
from wrennd.images import compile_sources
from wrennd.images.apt import Apt, Package, unpack
from wrennd.images.recipe import RuntimeRecipe
from wrennd.linux.process import run

COMPILE_TIMEOUT_S = 120.0
CHECK_TIMEOUT_S = 60.0
# Where the runtime lies in a guest; tracebacks name files by it.
GUEST_PATH = "/usr/lib/wrenn/python"
VERSION_FILE = "VERSION"


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A finished runtime: the directory that becomes /usr/lib/wrenn/python in a guest.

    version: of the interpreter's Debian package.
    """

    path: Path
    version: str

    @classmethod
    def load(cls, path: Path) -> Self:
        """The one that `build` left at `path`. Errors: FileNotFoundError."""
        return cls(path=path, version=(path / VERSION_FILE).read_text().strip())

    @property
    def command(self) -> list[str]:
        """How to start the interpreter; the same below GUEST_PATH in a guest. Isolated: it reads
        neither environment nor site directories, and writes no files."""
        return _command(self.path, self.path / "bin/python3")

    def compile(self, files: Iterable[tuple[Path, Path, str]]) -> None:
        """Compile (source, target, name in tracebacks) for a place without sources.

        Errors: CommandFailed names the file that can't be compiled.
        """
        _compile(_command(self.path, self.path / "bin/python3"), files)


def build(recipe: RuntimeRecipe, apt: Apt, *, work: Path, target: Path) -> Runtime:
    """Make the runtime in `target`, which must not be there. `work` is scratch, left behind.

    Errors: HostUnsuitable (packages missing), ImageBroken (they don't hold what the recipe names).
    """
    python = _python_name(apt)
    packages = [apt.package(name.replace("PYTHON", python)) for name in recipe.packages]
    root = work / "root"
    for path in apt.download(packages).values():
        unpack(path, root)
    apt.forget_older(packages)
    _copy_programs(recipe, root, python, target)
    _compile_library(recipe, root, python, target)
    (target / VERSION_FILE).write_text(f"{_version(packages, python)}\n")
    made = Runtime.load(target)
    _check_imports(recipe, made)
    return made


def _python_name(apt: Apt) -> str:
    """The current interpreter's package, such as python3.11, from what python3-minimal needs."""
    for name in apt.package("python3-minimal").depends:
        found = re.fullmatch(r"(python3\.\d+)-minimal", name)
        if found:
            return found[1]
    raise ImageBroken("Debian's python3-minimal depends on no python3.N-minimal")


def _version(packages: Sequence[Package], python: str) -> str:
    return next(p.version for p in packages if p.name == f"{python}-minimal")


def _copy_programs(recipe: RuntimeRecipe, root: Path, python: str, target: Path) -> None:
    _copy(_find(root, python, "bin"), target / "bin/python3", 0o755)
    _copy(_find(root, recipe.loader), target / "ld.so", 0o755)
    for name in recipe.libraries:
        _copy(_find(root, name), target / "lib" / name, 0o644)
    for name in recipe.extensions:
        found = next(_stdlib(root, python).glob(f"lib-dynload/{name}.*.so"), None)
        if found is None:
            raise ImageBroken(f"{python} has no extension module {name}")
        _copy(found, target / "lib" / python / "lib-dynload" / found.name, 0o644)


def _compile_library(recipe: RuntimeRecipe, root: Path, python: str, target: Path) -> None:
    library = _stdlib(root, python)
    made = target / "lib" / python
    sources = list(_sources(library, recipe.modules))
    for source in sources:
        (made / source).parent.mkdir(parents=True, exist_ok=True)
    # The compiler itself needs a library: that of the unpacked packages, with sources.
    command = _command(target, root / "usr/bin" / python)
    names = f"{GUEST_PATH}/lib/{python}"
    _compile(
        command, [(library / s, (made / s).with_suffix(".pyc"), f"{names}/{s}") for s in sources]
    )


def _sources(library: Path, modules: Sequence[str]) -> Iterator[Path]:
    """Files of the modules and packages, relative to the library. Packages come whole."""
    for name in modules:
        path = library / name
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py").relative_to(library)
        elif path.is_dir():
            found = [p.relative_to(library) for p in sorted(path.rglob("*.py"))]
            yield from (p for p in found if not {"test", "tests"} & set(p.parts))
        else:
            raise ImageBroken(f"{library.name} has no module {name}")


def _check_imports(recipe: RuntimeRecipe, runtime: Runtime) -> None:
    """Import everything with the finished runtime: what the recipe forgot shows up here."""
    program = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    names = [name for name in (*recipe.modules, *recipe.extensions) if name != "site"]
    run([*runtime.command, "-c", program, *names], timeout_s=CHECK_TIMEOUT_S)


def _compile(command: Sequence[str], files: Iterable[tuple[Path, Path, str]]) -> None:
    todo = [(os.fspath(source), os.fspath(target), name) for source, target, name in files]
    program = compile_sources.__file__
    run([*command, program], timeout_s=COMPILE_TIMEOUT_S, stdin=json.dumps(todo))


def _command(runtime: Path, interpreter: Path) -> list[str]:
    loader = [os.fspath(runtime / "ld.so"), "--library-path", os.fspath(runtime / "lib")]
    return [*loader, os.fspath(interpreter), "-I", "-S", "-B", "-X", "utf8"]


def _stdlib(root: Path, python: str) -> Path:
    return root / "usr/lib" / python


def _find(root: Path, name: str, parent: str | None = None) -> Path:
    """A file somewhere in unpacked packages. Absolute links would lead to the host's files."""
    for path in sorted(root.rglob(name)):
        is_elsewhere = path.is_symlink() and path.readlink().is_absolute()
        if not is_elsewhere and path.is_file() and parent in (None, path.parent.name):
            return path
    raise ImageBroken(f"the downloaded packages hold no {name}")


def _copy(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)
