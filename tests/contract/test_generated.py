"""What is committed in src/wrennd/gen is what buf makes of proto/."""

import os
import sys
from pathlib import Path

import wrennd
from wrennd.linux.process import run

GEN = Path(wrennd.__path__[0]) / "gen"
REPO = GEN.parents[2]


def contents(folder: Path) -> dict[str, str]:
    return {os.fspath(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.py")}


def buf(*arguments: str, home: Path) -> str:
    """Run buf with the plugins of this interpreter's environment, and without the network."""
    tools = Path(sys.prefix) / "bin"
    env = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": os.fspath(home)}
    return run([tools / "buf", *arguments], timeout_s=60, env=env, cwd=REPO).stdout


def test_generated_code_is_not_stale(tmp_path):
    how = ("--template", "proto/buf.gen.yaml", "--output", os.fspath(tmp_path))
    buf("generate", "proto", *how, home=tmp_path)
    fresh = contents(tmp_path / "src/wrennd/gen")
    assert fresh
    assert fresh == contents(GEN), "run `make proto` and commit what it changes"


def test_the_protocols_are_well_formed(tmp_path):
    assert buf("lint", "proto", home=tmp_path) == ""
    buf("format", "proto", "--diff", "--exit-code", home=tmp_path)
