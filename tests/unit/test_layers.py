"""Who may import whom: the table of docs/architecture.md, held."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import wrennd

SOURCE = Path(wrennd.__path__[0])
ALLOWED = {
    "core": set(),
    "linux": {"core"},
    "gen": set(),
    "vmm": {"linux", "core"},
    "qemu_vmm": {"linux", "core"},
    "network": {"linux", "core"},
    "storage": {"linux", "core"},
    "snapshot": {"linux", "core"},
    "images": {"linux", "core"},
    "archive": {"linux", "core"},
    "envd": set(),
    "pager": {"snapshot"},
    "transfer": {"linux", "core"},
    "host": {
        *("vmm", "network", "storage", "snapshot", "images", "pager", "archive"),
        *("transfer", "linux", "gen", "core"),
    },
    "server": {"storage", "linux", "core"},
    "control": {"gen", "core"},
    "client": {"transfer", "core"},
    "cli": {"client", "core"},
}
# The doors from the command to this machine, and to the server that it may run.
EXTRA = {"cli/standalone.py": {"host"}, "cli/serving.py": {"server", "storage", "linux"}}
# Too heavy for a guest that may be emulated; it has a loop and an HTTP of its own.
NOT_IN_ENVD = {"asyncio", "http", "ssl", "socketserver", "subprocess", "multiprocessing"}
STANDARD_LIBRARY_ONLY = ("core", "linux", "snapshot", "qemu_vmm", "envd")


def modules() -> list[Path]:
    return [p for p in sorted(SOURCE.rglob("*.py")) if "gen" not in p.relative_to(SOURCE).parts]


def imports(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wrong_imports(relative: Path, source: str) -> list[str]:
    if len(relative.parts) == 1:
        return []
    package = relative.parts[0]
    allowed = ALLOWED[package] | EXTRA.get(str(relative), set()) | {package}
    found = []
    for name in imports(source):
        parts = name.split(".")
        is_ours = parts[0] == "wrennd" and len(parts) > 1 and (SOURCE / parts[1]).is_dir()
        if is_ours and parts[1] not in allowed:
            found.append(name)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_only(path):
    assert wrong_imports(path.relative_to(SOURCE), path.read_text()) == []


def test_a_wrong_import_is_found():
    wrong = "from wrennd.storage import layout"
    assert wrong_imports(Path("network/slot.py"), wrong) == [
        "wrennd.storage",
        "wrennd.storage.layout",
    ]


def test_every_package_has_its_rule():
    packages = {p.name for p in SOURCE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert packages == set(ALLOWED)


def test_the_pager_reads_headers_and_nothing_else_of_ours():
    found = {
        name
        for path in (SOURCE / "pager").rglob("*.py")
        for name in imports(path.read_text())
        if name.startswith("wrennd.") and not name.startswith("wrennd.pager")
    }
    assert {name for name in found if not name.startswith("wrennd.snapshot.header")} == set()


@pytest.mark.parametrize("package", STANDARD_LIBRARY_ONLY)
def test_standard_library_only(package):
    foreign = {
        f"{path.name}: {name}"
        for path in (SOURCE / package).rglob("*.py")
        for name in imports(path.read_text())
        if name.split(".")[0] not in sys.stdlib_module_names | {"wrennd"}
    }
    assert foreign == set()


def test_the_guest_agent_has_a_loop_and_http_of_its_own():
    found = {
        f"{path.name}: {name}"
        for path in (SOURCE / "envd").rglob("*.py")
        for name in imports(path.read_text())
        if name.split(".")[0] in NOT_IN_ENVD
    }
    assert found == set()
