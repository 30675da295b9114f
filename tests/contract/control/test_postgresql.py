"""The control plane over a PostgreSQL that is locked, gone, silent, full: 503, and nothing lost."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import postgresql
from control_plane import control_plane
from small_filesystem import tmpfs
from wrennd.control.settings import Bounds
from wrennd.control.store.engines import WRITERS_LOCK
from wrennd.core.deadline import Deadline

pytestmark = pytest.mark.long
# Ten times what a transaction takes on a busy machine.
BOUNDS = Bounds(answer_s=60, body_s=60, auth_frame_s=60, database_s=8)


@pytest.fixture(scope="module")
def database():
    with postgresql.serving() as database:
        yield database


@pytest.fixture
def own(database, tmp_path, request):
    url = database.new_database(request.node.name)
    with control_plane(tmp_path, database=url, bounds=BOUNDS) as server:
        server.wait_until_ready()
        yield server


def until(look, what):
    deadline = Deadline.after(120)
    while not look():
        deadline.check(what)


def is_unavailable(answer):
    return answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"


def is_whole(own):
    """Every sandbox of the host has a row, and the other way round."""
    rows = own.api.get("/v1/sandboxes", params={"limit": 1000})
    return rows.status_code == 200 and {box["id"] for box in rows.json()["sandboxes"]} == set(
        own.agent.boxes
    )


def test_locked(own, database, request):
    box = own.create()
    with database.connected(request.node.name) as other:
        other.execute(f"SELECT pg_advisory_lock({WRITERS_LOCK})".encode())
        # Readers go on; a writer waits, and is told.
        assert own.state(box) == "running"
        assert is_unavailable(own.api.post(f"/v1/sandboxes/{box}/pause"))
        assert own.state(box) == "running"
    assert own.api.post(f"/v1/sandboxes/{box}/pause").status_code == 200


def test_gone_and_back(own, database):
    box = own.create()
    try:
        database.stop()
        assert is_unavailable(own.api.get(f"/v1/sandboxes/{box}"))
        assert is_unavailable(own.api.post("/v1/sandboxes"))
        assert own.anonymous.get("/health").json()["database"] == "unavailable"
    finally:
        database.start()
    assert own.state(box) == "running"
    own.wait_until_ready()
    assert own.create()
    assert is_whole(own)


def test_it_goes_in_the_middle_of_an_operation(own, database):
    """What was done on the host while nobody could write it down is found again."""
    box = own.create()
    try:
        with own.agent.hold("pause_sandbox") as held, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(own.api.post, f"/v1/sandboxes/{box}/pause")
            assert held.reached.wait(60)
            database.stop()
            held.released.set()
            assert is_unavailable(answer.result())
    finally:
        database.start()
    until(lambda: own.state(box) == "paused", "the pause that was not written down")


def test_silent(own, database):
    box = own.create()
    with database.frozen():
        assert is_unavailable(own.api.get(f"/v1/sandboxes/{box}"))
        assert own.anonymous.get("/health").status_code == 503
    assert own.state(box) == "running"
    own.wait_until_ready()
    assert own.create()


def fill(path):
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass


def opened(directory):
    directory.chmod(0o755)
    return directory


@pytest.mark.root
def test_full(tmp_path):
    """PostgreSQL's own disk: it may refuse, or end itself; both are survived."""
    with tempfile.TemporaryDirectory(prefix="pg-full-") as home:
        Path(home).chmod(0o755)  # where others than root get to
        with (
            tmpfs(Path(home) / "disk", 160 << 10) as disk,
            postgresql.serving(opened(disk)) as database,
            control_plane(
                tmp_path, database=database.new_database("full"), bounds=BOUNDS
            ) as server,
        ):
            server.wait_until_ready()
            box = server.create()
            filler = disk / "filler"
            fill(filler)
            labels = {f"k{n}": "x" * 64 for n in range(20)}
            until(
                lambda: is_unavailable(server.api.post("/v1/sandboxes", json={"metadata": labels})),
                "a database that is full",
            )
            filler.unlink()
            assert database.running is not None
            database.stop()  # in whatever state it is
            database.start()
            server.wait_until_ready()
            assert server.state(box) == "running"
            until(lambda: is_whole(server), "all that was made meanwhile")
