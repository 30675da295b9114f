"""Watches of the file tree, in both styles, wherever the agent runs."""

import json
from contextlib import closing

import pytest

MAX_WATCHERS = 100


class Kept:
    """A watch whose events are fetched."""

    def __init__(self, agent, path, **options):
        self.agent = agent
        status, body = agent.fs("CreateWatcher", {"path": path, **options})
        assert status == 200, body
        self.id = body["watcherId"]

    def events(self):
        status, body = self.agent.fs("GetWatcherEvents", {"watcherId": self.id})
        assert status == 200, body
        return body["events"]

    def changes(self):
        return [
            (event["type"].removeprefix("EVENT_TYPE_"), event["name"]) for event in self.events()
        ]

    def close(self):
        assert self.agent.fs("RemoveWatcher", {"watcherId": self.id}) == (200, {})


class Streamed:
    """A watch whose events are sent."""

    def __init__(self, agent, path, headers=None, **options):
        self.agent = agent
        service = "filesystem.Filesystem"
        message = {"path": path, **options}
        self.stream = agent.stream("WatchDir", message, service, **(headers or {}))

    def next(self):
        head = self.stream.response.read(5)
        body = json.loads(self.stream.response.read(int.from_bytes(head[1:], "big")))
        return head[0], body

    def begin(self):
        assert self.next() == (0, {"start": {}})
        return self

    def changes(self, last):
        """Up to this one."""
        found = []
        while not found or found[-1] != last:
            event = self.next()[1]["filesystem"]
            found.append((event["type"].removeprefix("EVENT_TYPE_"), event["name"]))
        return found

    def close(self):
        self.stream.close()


@pytest.fixture(params=["kept", "streamed"])
def changes_of(agent, request):
    """Changes under a path while something is done, in either style."""

    def changes(path, action, last, **options):
        if request.param == "streamed":
            with closing(Streamed(agent, path, **options)) as watch:
                watch.begin()
                action()
                return watch.changes(last)
        with closing(Kept(agent, path, **options)) as watch:
            action()
            return watch.changes()

    return changes


def test_an_upload_of_a_new_small_file_is_three_events(agent, folder, changes_of):
    found = changes_of(folder, lambda: agent.put(f"{folder}/new", b"hello"), ("WRITE", "new"))
    assert found == [("CREATE", "new"), ("CHMOD", "new"), ("WRITE", "new")]


def test_an_upload_over_a_file(agent, folder, changes_of):
    agent.put(f"{folder}/old", b"hello")

    def act():
        agent.put(f"{folder}/old", b"h")
        agent.fs("MakeDir", {"path": f"{folder}/end"})

    found = changes_of(folder, act, ("CREATE", "end"))
    assert found[:3] == [("WRITE", "old"), ("CHMOD", "old"), ("WRITE", "old")]
    assert found[3] == ("CREATE", "end")


def test_what_commands_do(agent, folder, changes_of):
    script = f"cd {folder}; mkdir d; : > f; chmod 600 f; echo x > f; mv f g; rm g; rmdir d"
    found = changes_of(folder, lambda: agent.sh(script), ("REMOVE", "d"))
    assert [change for change in found if change[0] != "WRITE"] == [
        ("CREATE", "d"),
        ("CREATE", "f"),
        ("CHMOD", "f"),
        ("RENAME", "f"),
        ("CREATE", "g"),
        ("REMOVE", "g"),
        ("REMOVE", "d"),
    ]
    assert ("WRITE", "f") in found


def test_a_tree_is_watched_only_when_asked_for(agent, folder, changes_of):
    agent.sh(f"mkdir {folder}/d")

    def act():
        agent.sh(f"cd {folder}; touch d/1; touch 2")

    assert ("CREATE", "2") in changes_of(folder, act, ("CREATE", "2"))
    agent.sh(f"cd {folder}; rm 2 d/1")
    found = changes_of(folder, act, ("CREATE", "2"), recursive=True)
    assert [change for change in found if change[0] == "CREATE"] == [
        ("CREATE", "d/1"),
        ("CREATE", "2"),
    ]


def test_new_directories_join_the_tree(agent, folder):
    with closing(Kept(agent, folder, recursive=True)) as watch:
        agent.sh(f"cd {folder}; mkdir -p a/b/c; touch a/1 a/b/c/2")
        found = watch.changes()
        created = [name for kind, name in found if kind == "CREATE"]
        assert sorted(created) == ["a", "a/1", "a/b", "a/b/c", "a/b/c/2"]
        assert len(set(created)) == len(created)
        agent.sh(f"cd {folder}; touch a/b/c/3; rm -r a/b")
        found = watch.changes()
        assert ("CREATE", "a/b/c/3") in found
        for gone in ("a/b/c/2", "a/b/c/3", "a/b/c", "a/b"):
            assert found.count(("REMOVE", gone)) == 1
        agent.sh(f"cd {folder}; mkdir a/b; touch a/b/again")
        created = [change for change in watch.changes() if change[0] == "CREATE"]
        assert created == [("CREATE", "a/b"), ("CREATE", "a/b/again")]


def test_directories_that_move_take_their_names_along(agent, folder):
    agent.sh(f"cd {folder}; mkdir -p tree/a/sub other; touch tree/a/sub/x")
    with closing(Kept(agent, f"{folder}/tree", recursive=True)) as watch:
        agent.sh(f"cd {folder}/tree; mv a b")
        # What arrives is told with all that is in it.
        below = [("CREATE", "b/sub"), ("CREATE", "b/sub/x")]
        assert watch.changes() == [("RENAME", "a"), ("CREATE", "b"), *below]
        agent.sh(f"cd {folder}/tree; : > b/sub/y")
        assert watch.changes() == [("CREATE", "b/sub/y")]
        agent.sh(f"cd {folder}; mv tree/b other; : > other/b/sub/z")
        assert watch.changes() == [("RENAME", "b")]
        agent.sh(f"cd {folder}; mv other/b tree/c; : > tree/c/sub/w")
        found = watch.changes()
        assert found[:2] == [("CREATE", "c"), ("CREATE", "c/sub")]
        assert sorted(found[2:]) == [("CREATE", f"c/sub/{name}") for name in "wxyz"]


def test_the_directory_itself(agent, folder, changes_of):
    agent.sh(f"mkdir {folder}/d")
    found = changes_of(
        f"{folder}/d", lambda: agent.sh(f"cd {folder}; chmod 700 d; rmdir d"), ("REMOVE", ".")
    )
    assert found[0] == ("CHMOD", ".")
    agent.sh(f"mkdir {folder}/d")
    with closing(Kept(agent, f"{folder}/d", recursive=True)) as watch:
        agent.sh(f"cd {folder}; mv d e; touch e/x")
        assert watch.changes() == [("RENAME", ".")]


def test_entries_come_when_asked_for(agent, folder):
    with closing(Kept(agent, folder, includeEntry=True)) as watch:
        agent.put(f"{folder}/f", b"hello")
        agent.sh(f"mkdir {folder}/d")
        events = watch.events()
        assert [event["type"] for event in events[:3]] == [
            "EVENT_TYPE_CREATE",
            "EVENT_TYPE_CHMOD",
            "EVENT_TYPE_WRITE",
        ]
        assert events[2]["entry"]["path"] == f"{folder}/f"
        assert events[2]["entry"]["size"] == "5"
        assert events[3]["entry"]["type"] == "FILE_TYPE_DIRECTORY"
        agent.sh(f"rm {folder}/f")
        assert [event for event in watch.events() if "entry" in event] == []
    with closing(Kept(agent, folder)) as watch:
        agent.put(f"{folder}/f", b"hello")
        assert [event for event in watch.events() if "entry" in event] == []


def test_events_are_handed_out_once(agent, folder):
    with closing(Kept(agent, folder)) as one, closing(Kept(agent, folder)) as two:
        agent.sh(f": > {folder}/f")
        assert one.changes() == two.changes() == [("CREATE", "f")]
        assert one.changes() == two.changes() == []


def test_a_symlink_to_a_directory_may_be_watched(agent, folder):
    agent.sh(f"cd {folder}; mkdir real; ln -s real link")
    with closing(Kept(agent, f"{folder}/link", includeEntry=True)) as watch:
        agent.sh(f": > {folder}/real/f")
        (event,) = watch.events()
        assert (event["name"], event["entry"]["path"]) == ("f", f"{folder}/link/f")


def test_symlinks_in_a_tree_are_not_followed(agent, folder):
    agent.sh(f"cd {folder}; mkdir tree out; ln -s ../out tree/link; ln -s . tree/self")
    with closing(Kept(agent, f"{folder}/tree", recursive=True)) as watch:
        agent.sh(f": > {folder}/out/f; : > {folder}/tree/g")
        assert watch.changes() == [("CREATE", "g")]


@pytest.mark.parametrize(
    ("path", "code"),
    [("no", "not_found"), ("file", "invalid_argument"), ("file/x", "invalid_argument")],
)
def test_refusals(agent, folder, path, code):
    agent.put(f"{folder}/file")
    status, body = agent.fs("CreateWatcher", {"path": f"{folder}/{path}"})
    assert (body["code"], status) == (code, 404 if code == "not_found" else 400)
    with closing(Streamed(agent, f"{folder}/{path}")) as watch:
        flags, body = watch.next()
        assert (flags, body["error"]["code"]) == (2, code)


def test_watchers_that_are_none(agent, folder):
    watch = Kept(agent, folder)
    watch.close()
    for watcher_id in (watch.id, "", "w1"):
        for method in ("GetWatcherEvents", "RemoveWatcher"):
            status, body = agent.fs(method, {"watcherId": watcher_id})
            assert (status, body["code"]) == (404, "not_found")


def test_a_silent_stream_is_kept_alive(agent, folder):
    with closing(Streamed(agent, folder, {"Keepalive-Ping-Interval": "1"})) as watch:
        watch.begin()
        assert watch.next() == (0, {"keepalive": {}})


def test_ten_thousand_watches_are_refused_in_words(agent, folder):
    ids = []
    for _ in range(10_000):
        status, body = agent.fs("CreateWatcher", {"path": folder})
        if status != 200:
            break
        ids.append(body["watcherId"])
    assert (status, body["code"]) == (429, "resource_exhausted")
    assert 32 <= len(ids) <= MAX_WATCHERS
    with closing(Streamed(agent, folder)) as watch:
        assert watch.next()[1]["error"]["code"] == "resource_exhausted"
    for watcher_id in ids:
        assert agent.fs("RemoveWatcher", {"watcherId": watcher_id})[0] == 200
    Kept(agent, folder).close()
