"""The recipes, and what guests run first, are in the package that pip installs."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from wrennd.images import recipe
from wrennd.linux.process import run

pytestmark = pytest.mark.root
REPOSITORY = Path(__file__).parents[3]
INPUTS = ("src", "images", "pyproject.toml", "README.md")


def test_an_installed_package_has_every_recipe(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in INPUTS:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(path, source / name)
    wheels = tmp_path / "wheels"
    run(
        (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, source),
        timeout_s=240,
    )
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            Path(name).name: archive.read(name)
            for name in archive.namelist()
            if name.startswith("wrennd/images/recipes/")
        }
    assert packed == {path.name: path.read_bytes() for path in recipe.DIRECTORY.iterdir()}
