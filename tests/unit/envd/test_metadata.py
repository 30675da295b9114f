"""Metadata from headers and back."""

import pytest

from wrennd.envd.metadata import as_headers, from_headers


def test_headers():
    headers = {"x-metadata-author": "ann", "x-metadata-": "no", "x-other": "no"}
    assert from_headers(headers) == {"author": "ann"}
    assert from_headers({"x-metadata-k": "ü".encode().decode("latin-1")}) == {"k": "ü"}
    assert as_headers({"k": "ü", "bad key": "x", "line": "a\nb"}) == [
        ("X-Metadata-k", "ü".encode().decode("latin-1"))
    ]


@pytest.mark.parametrize("headers", [{"x-metadata-k": "v" * 4000}, {"x-metadata-" + "k" * 250: ""}])
def test_too_much(headers):
    with pytest.raises(ValueError, match="exceeds"):
        from_headers(headers)
