"""/files and /files/compose, wherever the agent runs."""

import gzip
import json
import os
import zlib

import pytest

from envd_agent import RAW

FORM = "multipart/form-data; boundary=XX"


def form(*parts, boundary="XX"):
    """A body of (headers, content) parts."""
    pieces = [f"--{boundary}\r\n{head}\r\n\r\n".encode() + body + b"\r\n" for head, body in parts]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


def part(filename, body, name="file"):
    head = f'Content-Disposition: form-data; name="{name}"'
    return (head + f'; filename="{filename}"' if filename is not None else head), body


def post(agent, target, body, headers):
    status, _, reply = agent.http("POST", target, body, headers)
    return status, json.loads(reply)


def message(reply):
    return json.loads(reply[2])["message"]


def test_a_file_comes_back_as_it_went(agent, folder):
    path = f"{folder}/deep er/ü/file"
    status, reply = agent.put(path, b"hello")
    assert (status, reply) == (200, [{"path": path, "name": "file", "type": "file"}])
    status, headers, body = agent.get(path)
    assert (status, body) == (200, b"hello")
    assert headers["content-length"] == "5"
    assert headers["content-type"] == "application/octet-stream"


def test_mode_owner_and_parents(agent, folder):
    me = agent.sh("id -un; id -gn").output["stdout"].decode().split()
    path = f"{folder}/a/b/file"

    def of(path):
        entry = agent.fs("Stat", {"path": path})[1]["entry"]
        return entry["permissions"], entry["owner"], entry["group"]

    agent.put(path, b"x")
    assert of(path) == ("-rw-r--r--", *me)
    assert of(f"{folder}/a/b") == of(f"{folder}/a") == ("drwxr-xr-x", *me)
    agent.put(path, b"y", mode="4750")
    assert of(path)[0] == "urwxr-x---"
    agent.put(path, b"")
    assert of(path)[0] in ("-rwxr-x---", "urwxr-x---")
    assert agent.get(path)[2] == b""
    agent.put(path, b"", username="root")
    assert of(path)[1] == "root"


def test_large_files_are_streamed(agent, folder):
    pieces = [bytes([number]) * 100_000 for number in range(100)]
    whole = b"".join(pieces)
    assert agent.put(f"{folder}/large", iter(pieces))[0] == 200
    status, headers, body = agent.get(f"{folder}/large")
    assert (status, headers["content-length"]) == (200, str(len(whole)))
    assert body == whole


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072])
def test_sizes_around_a_piece(agent, folder, size):
    agent.put(f"{folder}/file", b"z" * size)
    assert agent.get(f"{folder}/file")[2] == b"z" * size


def test_an_empty_file_has_a_length(agent, folder):
    agent.put(f"{folder}/empty")
    assert agent.get(f"{folder}/empty")[1]["content-length"] == "0"


def test_files_that_the_kernel_makes_up(agent):
    assert len(agent.get("/proc/sys/kernel/random/boot_id")[2]) == 37
    assert agent.get("/sys/class/net/lo/mtu")[2] == b"65536\n"
    # Longer than a piece, and of no size.
    assert len(agent.get("/proc/kallsyms", username="root")[2]) > 1 << 20


def test_relative_paths_begin_at_home(agent):
    home = agent.sh("echo ~").output["stdout"].decode().strip()
    status, reply = agent.put("envd-test-relative", b"x")
    assert (status, reply[0]["path"]) == (200, f"{home}/envd-test-relative")
    assert agent.get("~/envd-test-relative")[2] == b"x"
    assert agent.get("a/../envd-test-relative")[2] == b"x"
    agent.fs("Remove", {"path": "envd-test-relative"})


def test_refusals(agent, folder):
    assert json.loads(agent.get("/no/such")[2]) == {
        "code": 404,
        "message": "path '/no/such' does not exist",
    }
    assert agent.get(folder)[0] == 400
    assert agent.http("GET", "/files")[0] == 400
    assert agent.get("a\0b")[0] == 400
    assert agent.get("/etc/passwd", username="nobody-of-that-name")[0] == 401
    assert message(agent.get("/etc/passwd", username="nope")) == "invalid username: 'nope'"
    assert agent.put("", b"x")[0] == 400
    assert agent.put(folder, b"x")[0] == 400
    assert agent.put(f"{folder}/x", b"x", mode="9")[0] == 400
    assert agent.put(f"{folder}/x", b"x", mode="77777")[0] == 400
    assert agent.put(f"{folder}/x", b"x", {"Content-Type": "text/plain"})[0] == 415
    assert agent.put(f"{folder}/x", b"x", {"Content-Encoding": "br"})[0] == 415
    assert agent.get(f"{folder}/x")[0] == 404
    agent.put(f"{folder}/file")
    assert agent.put(f"{folder}/file/x", b"x")[0] == 400
    assert agent.get(f"{folder}/{'x' * 300}")[0] == 400
    assert agent.put(f"{folder}/x", b"", {"X-Metadata-A": "v" * 4000})[0] == 400


def test_a_refusal_comes_after_the_body(agent, folder):
    """Whoever sends doesn't listen yet."""
    assert agent.put(folder, iter([bytes(100_000)] * 100))[0] == 400


def test_what_is_no_file_does_not_stop_the_agent(agent, folder):
    agent.sh(f"cd {folder}; mkfifo -m 666 fifo; ln -s /dev/zero zero; ln -s loop loop")
    for path in (f"{folder}/fifo", f"{folder}/zero", "/dev/tty", "/dev/full"):
        assert agent.get(path)[0] == 400, path
        assert agent.put(path, b"x")[0] == 400, path
    assert agent.get(f"{folder}/loop")[0] == 400
    assert agent.put(f"{folder}/loop")[0] == 400
    assert agent.is_alive()


# Forms


def test_a_form_with_one_file(agent, folder):
    path = f"{folder}/a/b.txt"
    for filename in ("ignored.txt", None):
        body = form(part(filename, b"content"))
        found = post(agent, f"/files?path={path}", body, {"Content-Type": FORM})
        assert found == (200, [{"path": path, "name": "b.txt", "type": "file"}])
        assert agent.get(path)[2] == b"content"


def test_a_form_with_several_files(agent, folder):
    names = [f"{folder}/1", f"{folder}/sub/2 ü", f"{folder}/3%41"]
    contents = [b"", b"\r\n--X", b"\r\n\r\n" + b"x" * 100_000]
    body = form(
        *(part(name, content) for name, content in zip(names, contents, strict=True)),
        part(None, b"not a file", name="other"),
    )
    status, reply = post(agent, "/files", body, {"Content-Type": FORM})
    assert (status, [entry["path"] for entry in reply]) == (200, names)
    for name, content in zip(names, contents, strict=True):
        assert agent.get(name)[2] == content


def test_a_form_in_small_pieces(agent, folder):
    body = form(part(f"{folder}/1", b"one"), part(f"{folder}/2", b"\r\n-\r\n--\r\n--X"))
    pieces = iter([body[at : at + 1] for at in range(len(body))])
    status, reply = post(agent, "/files", pieces, {"Content-Type": FORM})
    assert (status, len(reply)) == (200, 2)
    assert agent.get(f"{folder}/1")[2] == b"one"
    assert agent.get(f"{folder}/2")[2] == b"\r\n-\r\n--\r\n--X"


def test_an_empty_form(agent):
    assert post(agent, "/files", form(), {"Content-Type": FORM}) == (200, [])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--XX",
        b"no boundary at all" * 2000,
        form(part("f", b"x"))[:-6],
        b"--XXjunk\r\n\r\n\r\n--XX--",
        b"--XX" + b" " * 100,
        b"--XX\r\n" + b"A: b\r\n" * 5000,
        form(part(None, b"without a path")),
    ],
)
def test_broken_forms(agent, folder, body):
    body = body.replace(b'"f"', f'"{folder}/f"'.encode())
    assert post(agent, "/files", body, {"Content-Type": FORM})[0] == 400
    assert agent.is_alive()


def test_forms_that_mean_one_file_twice(agent, folder):
    twice = form(part(f"{folder}/f", b"1"), part(f"{folder}/x/../f", b"2"))
    status, reply = post(agent, "/files", twice, {"Content-Type": FORM})
    assert (status, "twice" in reply["message"]) == (400, True)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=" + "x" * 80):
        assert post(agent, "/files", twice, {"Content-Type": kind})[0] == 400


# gzip


def packed(data, **options):
    return gzip.compress(data, mtime=0, **options)


def test_packed_uploads(agent, folder):
    data = os.urandom(200_000) + bytes(3_000_000)
    headers = {"Content-Encoding": "gzip"}
    assert agent.put(f"{folder}/f", packed(data), headers)[0] == 200
    assert agent.get(f"{folder}/f")[2] == data
    pieces = packed(b"one") + packed(b"") + packed(b" two")
    assert agent.put(f"{folder}/f", iter([pieces[:5], pieces[5:]]), headers)[0] == 200
    assert agent.get(f"{folder}/f")[2] == b"one two"
    body = packed(form(part(f"{folder}/g", b"in a form")))
    assert post(agent, "/files", body, {"Content-Type": FORM, **headers})[0] == 200
    assert agent.get(f"{folder}/g")[2] == b"in a form"


@pytest.mark.parametrize("body", [b"", b"no gzip", packed(b"cut short")[:-3], packed(b"x") + b"y"])
def test_broken_packed_uploads(agent, folder, body):
    assert agent.put(f"{folder}/f", body, {"Content-Encoding": "gzip"})[0] == 400


def test_packed_downloads(agent, folder):
    data = os.urandom(100_000) + bytes(3_000_000)
    agent.put(f"{folder}/f", data)
    for accepted in ("gzip", "identity;q=0, gzip", "gzip;q=1, identity;q=0.5"):
        status, headers, body = agent.get(f"{folder}/f", {"Accept-Encoding": accepted})
        assert (status, headers["content-encoding"]) == (200, "gzip")
        assert headers["vary"] == "Accept-Encoding"
        assert len(body) < 200_000
        assert gzip.decompress(body) == data
    for accepted in ("gzip, deflate", "gzip;q=0", "br", "identity", "*"):
        status, headers, body = agent.get(f"{folder}/f", {"Accept-Encoding": accepted})
        assert (status, "content-encoding" in headers) == (200, False)
        assert zlib.crc32(body) == zlib.crc32(data)
    assert agent.get(f"{folder}/f", {"Accept-Encoding": "identity;q=0"})[0] == 406
    agent.put(f"{folder}/empty")
    assert gzip.decompress(agent.get(f"{folder}/empty", {"Accept-Encoding": "gzip"})[2]) == b""


# Ranges


@pytest.mark.parametrize("size", [10, 200_000])
def test_ranges(agent, folder, size):
    data = os.urandom(size)
    agent.put(f"{folder}/f", data)
    for text, part in (
        ("0-0", slice(0, 1)),
        ("3-", slice(3, None)),
        ("-4", slice(-4, None)),
        (f"2-{size * 2}", slice(2, None)),
        (f"-{size * 2}", slice(None)),
    ):
        status, headers, body = agent.get(f"{folder}/f", {"Range": f"bytes={text}"})
        assert (status, body) == (206, data[part])
        start = range(size)[part].start
        assert headers["content-range"] == f"bytes {start}-{start + len(body) - 1}/{size}"
    status, headers, _ = agent.get(f"{folder}/f", {"Range": f"bytes={size}-"})
    assert (status, headers["content-range"]) == (416, f"bytes */{size}")
    for ignored in ("bytes=0-1,3-4", "lines=1-2", "bytes=5-2", "bytes=-", "bytes=a-b", "x"):
        status, headers, body = agent.get(f"{folder}/f", {"Range": ignored})
        assert (status, body, headers["accept-ranges"]) == (200, data, "bytes")


def test_a_range_of_a_file_that_has_changed_is_the_whole_file(agent, folder):
    agent.put(f"{folder}/f", b"0123456789")
    known = agent.get(f"{folder}/f")[1]
    for validator in (known["etag"], known["last-modified"]):
        headers = {"Range": "bytes=1-2", "If-Range": validator}
        assert agent.get(f"{folder}/f", headers)[0] == 206
    agent.sh(f"touch -t 202001010000 {folder}/f")
    for validator in (known["etag"], known["last-modified"]):
        headers = {"Range": "bytes=1-2", "If-Range": validator}
        assert agent.get(f"{folder}/f", headers)[::2] == (200, b"0123456789")


def test_a_range_is_never_packed(agent, folder):
    agent.put(f"{folder}/f", b"0123456789")
    status, headers, body = agent.get(
        f"{folder}/f", {"Range": "bytes=1-2", "Accept-Encoding": "gzip"}
    )
    assert (status, body, "content-encoding" in headers) == (206, b"12", False)


def test_names_in_the_reply(agent, folder):
    for name, wanted in (
        ("plain.txt", 'inline; filename="plain.txt"'),
        ('q"uo', "inline; filename=\"q_uo\"; filename*=UTF-8''q%22uo"),
        ("ü", "inline; filename=\"_\"; filename*=UTF-8''%C3%BC"),
        ("a\r\nb", "inline; filename=\"a__b\"; filename*=UTF-8''a%0D%0Ab"),
    ):
        agent.put(f"{folder}/{name}", b"x")
        assert agent.get(f"{folder}/{name}")[1]["content-disposition"] == wanted


# Metadata


def test_metadata(agent, folder):
    path = f"{folder}/f"
    headers = {"X-Metadata-Author": "ann", "X-METADATA-purpose": "a test, and more"}
    noted = {"author": "ann", "purpose": "a test, and more"}
    status, reply = agent.put(path, b"x", headers)
    assert (status, reply[0]["metadata"]) == (200, noted)
    assert agent.fs("Stat", {"path": path})[1]["entry"]["metadata"] == noted
    assert agent.fs("ListDir", {"path": folder})[1]["entries"][0]["metadata"] == noted
    assert agent.get(path)[1]["x-metadata-author"] == "ann"
    moved = agent.fs("Move", {"source": path, "destination": f"{folder}/g"})
    assert moved[1]["entry"]["metadata"] == noted
    agent.put(f"{folder}/g", b"x", {"X-Metadata-Other": "1"})
    assert agent.fs("Stat", {"path": f"{folder}/g"})[1]["entry"]["metadata"] == {"other": "1"}
    agent.put(f"{folder}/g", b"x")
    assert "metadata" not in agent.fs("Stat", {"path": f"{folder}/g"})[1]["entry"]


def test_metadata_of_every_file_of_a_form(agent, folder):
    body = form(part(f"{folder}/1", b""), part(f"{folder}/2", b""))
    status, reply = post(agent, "/files", body, {"Content-Type": FORM, "X-Metadata-K": "v"})
    assert (status, [entry["metadata"] for entry in reply]) == (200, [{"k": "v"}] * 2)


# Composing


def compose(agent, sources, destination, **message):
    body = json.dumps({"source_paths": sources, "destination": destination, **message})
    return post(agent, "/files/compose", body, {"Content-Type": "application/json"})


def test_compose(agent, folder):
    parts = [os.urandom(100_000), b"", b"end"]
    names = [f"{folder}/{number}" for number in range(len(parts))]
    for name, data in zip(names, parts, strict=True):
        agent.put(name, data)
    path = f"{folder}/new/whole"
    assert compose(agent, names, path) == (200, {"path": path, "name": "whole", "type": "file"})
    assert agent.get(path)[2] == b"".join(parts)
    left = agent.fs("ListDir", {"path": folder, "depth": 5})[1]["entries"]
    assert [entry["name"] for entry in left] == ["new", "whole"]
    agent.put(f"{folder}/more", b"!")
    assert compose(agent, [path, f"{folder}/more"], path)[0] == 200
    assert agent.get(path)[2] == b"".join(parts) + b"!"


def test_compose_loses_nothing_when_it_fails(agent, folder):
    agent.put(f"{folder}/1", b"one")
    agent.put(f"{folder}/whole", b"old")
    agent.sh(f"mkdir {folder}/dir")
    whole = f"{folder}/whole"
    assert compose(agent, [f"{folder}/1", f"{folder}/no"], whole)[0] == 404
    assert compose(agent, [f"{folder}/1", f"{folder}/dir"], whole)[0] == 400
    assert compose(agent, [f"{folder}/1"], f"{folder}/dir")[0] == 400
    assert compose(agent, [], whole)[0] == 400
    assert compose(agent, [f"{folder}/1"], whole, username="nope")[0] == 401
    assert compose(agent, "no list", whole)[0] == 400
    assert agent.get(whole)[2] == b"old"
    left = agent.fs("ListDir", {"path": folder})[1]["entries"]
    assert [entry["name"] for entry in left] == ["1", "dir", "whole"]


def test_a_full_disk_is_507(agent, folder):
    """The smallest disk that every target has is a tmpfs of its own."""
    mount = f"mount -t tmpfs -o size=1m,mode=1777 none {folder}"
    assert agent.sh(mount, headers=agent.as_root).end["exitCode"] == 0
    try:
        status, reply = agent.put(f"{folder}/file", iter([bytes(100_000)] * 30))
        assert (status, reply["code"]) == (507, 507)
        agent.put(f"{folder}/file", b"")
        status, reply = agent.put(
            f"{folder}/f", packed(bytes(3_000_000)), {"Content-Encoding": "gzip", **RAW}
        )
        assert (status, reply["code"]) == (507, 507)
    finally:
        agent.sh(f"umount {folder}", headers=agent.as_root)
