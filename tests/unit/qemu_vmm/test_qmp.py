import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.qemu_vmm.qmp import MAX_LINE, Decoder, Event, Greeting, QmpBroken, Reply, encode

TALK = (
    b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""}}}\r\n'
    b'{"return": {}, "id": 1}\r\n'
    b'{"return": {"status": "running"}, "id": 2}\r\n'
    b'{"event": "STOP", "timestamp": {}}\r\n{"event": "SHUTDOWN", "data": {"reason": "x"}}\r\n'
    b'{"error": {"class": "GenericError", "desc": "no"}, "id": 3}\r\n'
)
MESSAGES = [
    Greeting((7, 2, 22)),
    Reply(1, {}),
    Reply(2, {"status": "running"}),
    Event("STOP"),
    Event("SHUTDOWN", {"reason": "x"}),
    Reply(3, error="no"),
]


@given(st.lists(st.integers(min_value=0, max_value=len(TALK)), max_size=10))
def test_how_bytes_are_cut_does_not_matter(cuts):
    decoder, found = Decoder(), []
    bounds = [0, *sorted(cuts), len(TALK)]
    for start, end in pairwise(bounds):
        found += decoder.feed(TALK[start:end])
    assert found == MESSAGES


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b"[]\n",
        b"{}\n",
        b'{"event": 1}\n',
        b'{"return": {}}\n',
        b'{"error": "text"}\n',
        b"[" * 100_000 + b"\n",
        b"x" * (MAX_LINE + 1),
        b" " * (MAX_LINE + 1) + b"\n",
    ],
)
def test_what_is_not_qmp_breaks(line):
    with pytest.raises(QmpBroken):
        Decoder().feed(line)


def test_commands():
    assert json.loads(encode("stop", {}, 7)) == {"execute": "stop", "id": 7}
    assert json.loads(encode("a", {"b": 1}, 8))["arguments"] == {"b": 1}
    assert encode("stop", {}, 9).count(b"\n") == 1
