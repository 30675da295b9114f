"""Archives as busybox writes them, and those that nobody honest would send."""

import io
import tarfile

import pytest

from wrennd.transfer.tar_stream import BLOCK, Kind, TarBroken, TarStream


def archive(*members, form=tarfile.GNU_FORMAT):
    """Each member: name, content, and attributes of its TarInfo."""
    file = io.BytesIO()
    with tarfile.open(mode="w", fileobj=file, format=form) as tar:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def read_all(data, step=1 << 20):
    """(kind, path, target, mode, content) of each member, read in pieces of at most `step`."""
    source = io.BytesIO(data)
    stream = TarStream(lambda count: source.read(min(count, step)))
    return [
        (m.kind, m.path, m.target, m.mode, b"".join(stream.content())) for m in stream.members()
    ]


@pytest.mark.parametrize("step", [1, 7, 512, 1 << 20])
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_files_directories_and_links_in_pieces_of_any_size(step, form):
    data = archive(
        ("d/", b"", {"type": tarfile.DIRTYPE, "mode": 0o750}),
        ("d/f", b"x" * 700, {"mode": 0o4755}),
        ("d/empty", b"", {}),
        ("s", b"", {"type": tarfile.SYMTYPE, "linkname": "../../etc"}),
        ("h", b"", {"type": tarfile.LNKTYPE, "linkname": "d/f"}),
        form=form,
    )
    assert read_all(data, step) == [
        (Kind.DIRECTORY, b"d/", b"", 0o750, b""),
        (Kind.FILE, b"d/f", b"", 0o4755, b"x" * 700),
        (Kind.FILE, b"d/empty", b"", 0o644, b""),
        (Kind.SYMLINK, b"s", b"../../etc", 0o644, b""),
        (Kind.HARD_LINK, b"h", b"d/f", 0o644, b""),
    ]


def test_long_names_and_long_targets():
    name, target = "n" * 300, "t" * 200
    data = archive(
        (name, b"1", {}), ("l", b"", {"type": tarfile.SYMTYPE, "linkname": target}), ("e", b"2", {})
    )
    found = read_all(data)
    assert [path for _, path, *_ in found] == [name.encode(), b"l", b"e"]
    assert found[1][2] == target.encode()


def test_content_that_nobody_asked_for_is_passed_over():
    source = io.BytesIO(archive(("a", b"x" * 1000, {}), ("b", b"", {})))
    assert [m.path for m in TarStream(source.read).members()] == [b"a", b"b"]


def test_other_kinds_are_named_so():
    data = archive(("fifo", b"", {"type": tarfile.FIFOTYPE}))
    assert read_all(data)[0][0] is Kind.OTHER


def spoiled(at, new):
    """One file's archive with bytes replaced and the checksum made right again."""
    data = bytearray(archive(("a", b"x", {})))
    data[at : at + len(new)] = new
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:BLOCK])
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "breaks off"),
        (b"\0" * 100, "breaks off"),
        (archive(("a", b"x" * 2000, {}))[:1000], "breaks off"),
        (b"x" * BLOCK, "no number"),
        (archive(("a", b"x", {})).replace(b"a", b"b", 1), "checksum"),
        (spoiled(124, b"\x80" + b"\xff" * 11), "can't have"),
        (spoiled(124, b"-0000000001\0"), "no number"),
        (spoiled(124, b"99999999999\0"), "no number"),
        (spoiled(124, b"00000177777\0"), "breaks off"),
    ],
)
def test_what_is_no_archive_is_said_to_be_none(data, word):
    with pytest.raises(TarBroken, match=word):
        read_all(data)


def test_a_name_that_is_too_long():
    with pytest.raises(TarBroken, match="name is too long"):
        read_all(archive(("n" * 5000, b"", {})))
