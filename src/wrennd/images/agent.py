"""envd.pyz: the guest agent as one file, compiled ahead and stored, so that nothing is compiled,
unpacked or looked for when a guest boots.

Its source is the installed package `wrennd.envd`, with whatever else of this package it imports.
Reproducible: same sources and interpreter, same bytes.
"""

import ast
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import wrennd
from wrennd.images.runtime import Runtime

ENTRY_MODULE = "wrennd.envd.__main__"
_MAIN = f"import sys\n\nfrom {ENTRY_MODULE} import main\n\nsys.exit(main(sys.argv[1:]))\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip file can tell


def build(runtime: Runtime, *, work: Path, target: Path, package: Path | None = None) -> None:
    """Write the archive to `target`. `work` is scratch, left behind.

    package: where `wrennd` lies; by default, this very package.
    Errors: CommandFailed when a module can't be compiled; FileNotFoundError without an agent.
    """
    package = package or Path(wrennd.__path__[0])
    main = work / "__main__.py"
    work.mkdir(parents=True, exist_ok=True)
    main.write_text(_MAIN)
    sources = {"__main__.py": main}
    sources |= {f"wrennd/{name}": package / name for name in modules(package)}
    compiled = {name: work / f"{name}c" for name in sources}
    for path in compiled.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    runtime.compile((source, compiled[name], name) for name, source in sources.items())
    _write(target, {f"{name}c": path for name, path in compiled.items()})


def modules(package: Path) -> list[str]:
    """Files of the agent and of what it imports of `wrennd`, relative to the package, sorted."""
    found: set[str] = set()
    todo = [str(path.relative_to(package)) for path in (package / "envd").rglob("*.py")]
    if not todo:
        raise FileNotFoundError(f"{package / 'envd'} holds no guest agent")
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _parents(package, name)
            todo += _imports(package, (package / name).read_text())
    return sorted(found)


def _parents(package: Path, name: str) -> Iterator[str]:
    for parent in Path(name).parents:
        init = parent / "__init__.py"
        if (package / init).is_file():
            yield str(init)


def _imports(package: Path, source: str) -> Iterator[str]:
    """Files of `wrennd` that a module imports, wherever in it. It may import names or modules."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            yield from _files(package, name)


def _files(package: Path, name: str) -> Iterator[str]:
    first, _, rest = name.partition(".")
    if first == wrennd.__name__:
        path = Path(*rest.split("."))
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py") if rest else path):
            if (package / file).is_file():
                yield str(file)


def _write(target: Path, files: dict[str, Path]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, path in sorted(files.items()):
            info = zipfile.ZipInfo(name, _EARLIEST)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, path.read_bytes())
    target.chmod(0o644)
