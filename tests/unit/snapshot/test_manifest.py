"""Manifests: what is written is read, what is malformed is refused."""

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshot_samples import FACTS
from wrennd.snapshot.manifest import (
    FileFacts,
    Generation,
    Layout,
    Manifest,
    ManifestError,
    NewerFormat,
    _checksum,
)

SHA = "sha256:" + "0" * 64
MANIFEST = Manifest(
    layout=Layout.CHAIN,
    created="2026-01-02T03:04:05+00:00",
    facts=FACTS,
    generations=(
        Generation(build="a" * 32, created="2026-01-02T03:04:05+00:00", data_pages=7, zero_pages=0),
    ),
    files={
        "state": FileFacts(size=3, checksum=SHA),
        f"memfile.{'a' * 32}": FileFacts(size=4096, checksum="pages"),
    },
)


def changed(**fields):
    """The bytes of MANIFEST with other fields and a checksum that is right."""
    value = json.loads(MANIFEST.encode()) | fields
    value.pop("checksum")
    value["checksum"] = _checksum(value)
    return json.dumps(value).encode()


def test_bytes_and_back():
    assert Manifest.decode(MANIFEST.encode()) == MANIFEST
    assert Manifest.decode(changed()) == MANIFEST


def test_what_the_host_adds_is_kept():
    facts = replace(FACTS, extra={"dns": "192.0.2.1", "gruß": "ß"})
    manifest = replace(MANIFEST, facts=facts)
    assert Manifest.decode(manifest.encode()).facts == facts


@given(st.data())
def test_a_flipped_bit_is_noticed(data):
    encoded = bytearray(MANIFEST.encode())
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ManifestError):
        assert Manifest.decode(bytes(encoded)) == MANIFEST  # white space became white space


@given(st.data())
def test_a_truncated_one_is_noticed(data):
    encoded = MANIFEST.encode()
    with pytest.raises(ManifestError):
        Manifest.decode(encoded[: data.draw(st.integers(0, len(encoded) - 3))])


def test_a_newer_format_is_told_from_a_broken_one():
    with pytest.raises(NewerFormat, match="format 2, newer than 1"):
        Manifest.decode(changed(format=2))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a manifest"),
        (b'{"format": "1"}', "not a manifest"),
        (b'{"format": 0}', "no manifest of format 0"),
        (b" " * (1 << 20) + b"{}", "too long"),
        (MANIFEST.encode().replace(b"2026", b"2025", 1), "checksum is wrong"),
        (changed(layout="both"), "both"),
        (changed(layout=None), "list of texts"),
        (changed(created=5), "list of texts"),
        (changed(generations=[]), "at least one"),
        (changed(generations=[{"build": "a" * 32}]), "lacks something"),
        (changed(generations="x"), "lacks something"),
        (changed(files=[]), "lacks something"),
        (changed(files={"state": {"size": "3", "checksum": SHA}}), "lacks something"),
        (changed(files={"state": {"size": True, "checksum": SHA}}), "size of the manifest"),
        (changed(files={"state": {"size": -1, "checksum": SHA}}), "size -1"),
        (changed(files={"state": {"size": 3, "checksum": "md5:00"}}), "md5:00"),
        (changed(files={"../state": {"size": 3, "checksum": SHA}}), "name of a snapshot"),
        (changed(files={"a/b": {"size": 3, "checksum": SHA}}), "name of a snapshot"),
        (changed(facts={}), "lacks something"),
        (changed(facts=None), "lacks something"),
    ],
)
def test_what_is_no_manifest(data, complaint):
    with pytest.raises(ManifestError, match=complaint):
        Manifest.decode(data)


@pytest.mark.parametrize(
    "fact",
    [
        {"vcpus": 0},
        {"vcpus": "1"},
        {"mem_mib": 0},
        {"tier": 3},
        {"surprise": "x"},
        {"vmm": "qemu"},
        {"vmm": {"kind": "qemu"}},
        {"extra": {"a": 1}},
        {"extra": []},
    ],
)
def test_facts_of_the_wrong_kind(fact):
    facts = json.loads(MANIFEST.encode())["facts"] | fact
    with pytest.raises(ManifestError):
        Manifest.decode(changed(facts=facts))
