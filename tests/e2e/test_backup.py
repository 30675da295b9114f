"""A backup of an installation whose server works, and the same installation made of it: nothing of
it boots a guest, so the paused sandbox is one that was written as it lies."""

import contextlib
import shutil

import pytest

from real_server import RealServer, wait_until
from snapshot_samples import FACTS, image_of, page_of, pause
from wrenn_command import wrenn
from wrennd.client.blocking import Client
from wrennd.core.ids import new_sandbox_id
from wrennd.core.states import State
from wrennd.host import record, templates
from wrennd.host.record import Owner, Record
from wrennd.snapshot.reader import open_snapshot
from wrennd.storage.layout import Layout

PATIENCE_S = 120


@pytest.fixture
def own(layout, tmp_path):
    """An installation with a kernel, a template and a paused sandbox."""
    made = Layout.prepare(tmp_path / "data")
    kernel = layout.current_kernel.readlink()
    shutil.copytree(layout.kernels / kernel.name, made.kernels / kernel.name)
    made.current_kernel.symlink_to(kernel)
    return made


def keep(layout):
    """A paused sandbox's id."""
    box = new_sandbox_id()
    paths = layout.sandbox(box)
    paths.data.mkdir()
    paths.owner_lock.touch()
    snapshot = pause(paths.generation(1), {3: page_of(3)}, sandbox=box)
    shutil.rmtree(paths.out)
    found = Record(
        id=box,
        owner=Owner.INSTALLATION,
        state=State.PAUSED,
        template="base",
        vcpus=1,
        mem_mib=1,
        generation=1,
        parent=1,
        revision=3,
    )
    paths.record.write_bytes(found.encode())
    templates.add(layout, "frozen", snapshot, FACTS)
    return box


def is_known(client, box):
    return [(each.id, each.state) for each in client.list()] == [(box, "paused")]


def test_an_installation_comes_back_with_its_server(own, tmp_path):
    box, file = keep(own), tmp_path / "backup"
    memory = image_of(open_snapshot(own.sandbox(box).generation(1)))
    with contextlib.ExitStack() as held:
        server = RealServer(own, tmp_path / "log")
        held.callback(shutil.rmtree, server.state_dir, ignore_errors=True)
        held.callback(server.stop)
        server.start()
        with contextlib.closing(server.client()) as client:
            wait_until(lambda: is_known(client, box), "the sandbox", PATIENCE_S)
            kinds = {each.kind for each in client.space().holdings}
            assert {"kernel", "template", "sandbox", "generation"} <= kinds
            assert "frozen" in [
                each.name for each in client.prune(templates=True, dry_run=True).items
            ]
            theirs = client.create_key("kept", project="theirs").key
            done = wrenn(own.data_dir, "backup", file)
            assert done.returncode == 0, done.stderr
            assert "1 sandboxes, 1 templates and 0 images" in done.stderr
        refused = wrenn(own.data_dir, "restore", file)
        assert "is not empty" in refused.stderr
        server.stop()
        assert wrenn(tmp_path / "other", "restore", file).returncode == 125
        assert not (tmp_path / "other").exists()
        shutil.rmtree(own.data_dir)
        shutil.rmtree(server.state_dir)
        done = wrenn(own.data_dir, "restore", file)
        assert done.returncode == 0, done.stderr
        there = Layout.find(own.data_dir)
        assert there == own
        assert image_of(open_snapshot(there.sandbox(box).generation(1))) == memory
        assert record.load(there.sandbox(box)).state is State.PAUSED
        server.start()
        with contextlib.closing(server.client()) as client:
            wait_until(lambda: is_known(client, box), "the sandbox", PATIENCE_S)
            assert "frozen" in [each.name for each in client.templates()]
            client.destroy(box)
        with contextlib.closing(Client(server.url, theirs)) as client:
            assert client.list() == ()
