"""Forms from bytes, however these were split."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.envd.multipart import (
    MAX_PARTS,
    EndOfPart,
    MultipartError,
    MultipartParser,
    Part,
    boundary_of,
    parameters,
)

BOUNDARY = b"X-Y"
# Bytes that look like delimiters are the ones that matter.
CONTENT = st.lists(
    st.sampled_from([b"\r\n", b"--", b"X", b"-Y", b"\r", b"\n", b"a", b"\r\n--X-", b"\0\xff"])
).map(b"".join)


def build(contents):
    head = b'Content-Disposition: form-data; name="file"; filename="%d"'
    parts = [
        b"--" + BOUNDARY + b"\r\n" + head % number + b"\r\n\r\n" + content + b"\r\n"
        for number, content in enumerate(contents)
    ]
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\nepilogue"


def parse(pieces):
    parser = MultipartParser(BOUNDARY)
    files = []
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, Part):
                files.append([event.filename, b"", False])
            elif isinstance(event, EndOfPart):
                files[-1][2] = True
            else:
                assert event
                files[-1][1] += event
    parser.close()
    return files


def split(body, cuts):
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[a:b] for a, b in itertools.pairwise(edges)]


@given(st.lists(CONTENT, max_size=4), st.lists(st.integers(0, 10_000), max_size=20))
def test_any_contents_in_any_pieces(contents, cuts):
    contents = [c for c in contents if b"\r\n--" + BOUNDARY not in b"\r\n" + c + b"\r\n--X"]
    found = parse(split(build(contents), cuts))
    assert found == [[str(number), content, True] for number, content in enumerate(contents)]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_any_bytes_are_a_form_or_an_error(body, cuts):
    results = []
    for pieces in ([body], split(body, cuts)):
        try:
            results.append(parse(pieces))
        except MultipartError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_a_preamble_and_parts_without_headers():
    body = b"preamble\r\n--X-Y  \r\n\r\ncontent\r\n--X-Y--"
    assert parse([body]) == [["", b"content", True]]


def test_limits():
    parser = MultipartParser(BOUNDARY)
    with pytest.raises(MultipartError, match="10000 parts"):
        parser.feed(b"--X-Y\r\n\r\n\r\n" * (MAX_PARTS + 1))
    for endless in (b"x" * 20_000, b"--X-Y\r\nA: " + b"b" * 20_000, b"--X-Y" + b" " * 100):
        with pytest.raises(MultipartError):
            MultipartParser(BOUNDARY).feed(endless)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("form-data", {}),
        ("form-data; name=file", {"name": "file"}),
        ('form-data; name="file"; filename="a/b c"', {"name": "file", "filename": "a/b c"}),
        (r'form-data; filename="a\"b\\c"', {"filename": 'a"b\\c'}),
        ('form-data; filename="a%22b%41%0D%0A"', {"filename": 'a"b%41\r\n'}),
        ('form-data; filename="a;b=c"; name=x', {"filename": "a;b=c", "name": "x"}),
        ("form-data; Name = x ;y", {"name": "x"}),
        ('form-data; filename="open', {"filename": "open"}),
        (r'form-data; filename="C:\dir\f"', {"filename": r"C:\dir\f"}),
    ],
)
def test_parameters(value, wanted):
    assert parameters(value) == wanted


def test_extended_file_names():
    head = b"Content-Disposition: form-data; name=file; filename=x; filename*=UTF-8''%C3%BC%20y"
    parser = MultipartParser(BOUNDARY)
    (part,) = parser.feed(b"--X-Y\r\n" + head + b"\r\n\r\n")
    assert part.filename == "ü y"


def test_boundaries():
    assert boundary_of('multipart/form-data; charset=x; boundary="a b"') == b"a b"
    for value in ("multipart/form-data", "x; boundary=", "x; boundary=" + "a" * 71):
        with pytest.raises(MultipartError):
            boundary_of(value)
