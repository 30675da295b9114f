"""Snapshots as they were once written, of each layout: kept in tests/artifacts, read today."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from snapshot_samples import image_of, page_of, pause
from wrennd.snapshot.collapse import collapse
from wrennd.snapshot.header import Header
from wrennd.snapshot.reader import exists, open_snapshot
from wrennd.snapshot.store import share
from wrennd.snapshot.verify import verify

KEPT = Path(__file__).parents[2] / "artifacts/snapshots"
LAYOUTS = pytest.mark.parametrize(("layout", "pauses"), [("chain", 2), ("single", 1)])


def load_maker():
    spec = importlib.util.spec_from_file_location("make_snapshots", KEPT / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def maker():
    return load_maker()


@LAYOUTS
def test_it_is_opened_looked_up_and_verified(maker, layout, pauses):
    directory = KEPT / "format-1" / layout
    assert exists(directory)
    snapshot = open_snapshot(directory)
    assert snapshot.manifest.layout == layout
    assert snapshot.manifest.facts == maker.FACTS
    assert snapshot.read_token() == "a token"
    assert image_of(snapshot) == maker.memory(pauses)
    assert verify(directory) == ()


@LAYOUTS
def test_it_can_be_gone_on_from(tmp_path, maker, layout, pauses):
    shutil.copytree(KEPT / "format-1" / layout, tmp_path / "kept")
    shared = share(open_snapshot(tmp_path / "kept"), tmp_path / "gen-0")
    child = pause(tmp_path / "gen-1", {7: page_of(7)}, parent=shared)
    wanted = maker.memory(pauses)
    wanted[7] = page_of(7)
    assert image_of(child) == wanted
    merged = collapse(child, tmp_path / "gen-2")
    assert image_of(merged) == wanted
    assert verify(merged.directory) == ()


def test_they_are_made_again_byte_for_byte(tmp_path, maker):
    """While the format is this one. Packed tables may differ with the version of zlib."""
    maker.write(tmp_path / "chain", maker.Layout.CHAIN, maker.chain_files(), 2)
    single = {"memfile": b"".join(maker.memory(1))}
    maker.write(tmp_path / "single", maker.Layout.SINGLE, single, 1)
    for made in (path for path in tmp_path.rglob("*") if path.is_file()):
        kept = KEPT / "format-1" / made.relative_to(tmp_path)
        if made.name == "header":
            assert Header.decode(made.read_bytes()) == Header.decode(kept.read_bytes())
        elif made.name != "manifest.json":
            assert made.read_bytes() == kept.read_bytes()
