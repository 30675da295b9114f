"""Netlink messages as bytes."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wrennd.linux import links, routes, rtnetlink


@given(st.dictionaries(st.integers(1, 100), st.binary(max_size=40), max_size=6))
def test_attributes_come_back(wanted: dict[int, bytes]) -> None:
    data = b"".join(rtnetlink.attribute(kind, payload) for kind, payload in wanted.items())
    assert len(data) % 4 == 0
    assert rtnetlink.attributes(data) == wanted


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9), st.binary(max_size=20))))
def test_messages_come_back(wanted: list[tuple[int, int, bytes]]) -> None:
    data = b""
    for kind, sequence, body in wanted:
        made = rtnetlink.message(kind, 5, sequence, body)
        data += made + bytes(-len(made) % 4)
    assert [(k, s, b) for k, _flags, s, b in rtnetlink.messages(data)] == wanted


@pytest.mark.parametrize("size", [0, 3, 9, 65535])
def test_an_attribute_that_does_not_fit(size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        rtnetlink.attributes(struct.pack("=HH", size, 1) + b"1234")


@pytest.mark.parametrize("size", [0, 15, 4096])
def test_a_message_that_does_not_fit(size: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        list(rtnetlink.messages(struct.pack("=IHHII", size, 1, 0, 0, 0)))


def test_nested_attributes_are_marked() -> None:
    inner = rtnetlink.text(1, "veth")
    made = rtnetlink.nested(18, inner)
    assert struct.unpack_from("=HH", made) == (4 + len(inner), 18 | 0x8000)
    assert rtnetlink.attributes(made) == {18: inner}


def test_no_error() -> None:
    rtnetlink.check_error(struct.pack("=i", 0), 0, "nothing")


def test_the_kernels_words_are_told() -> None:
    head = struct.pack("=i", -errno.EINVAL) + bytes(16)
    with pytest.raises(OSError, match="Invalid argument: making x") as plain:
        rtnetlink.check_error(head, 0, "making x")
    assert plain.value.errno == errno.EINVAL
    body = head + rtnetlink.text(rtnetlink.NLMSGERR_ATTR_MSG, "Unknown device type")
    with pytest.raises(OSError, match=r"\(Unknown device type\): making x"):
        rtnetlink.check_error(body, rtnetlink.NLM_F_ACK_TLVS, "making x")


def test_a_link_is_parsed() -> None:
    body = struct.pack("=BxHiII", 0, 1, 7, links.IFF_UP, 0)
    body += rtnetlink.text(links.IFLA_IFNAME, "wabc123v0")
    body += rtnetlink.text(links.IFLA_IFALIAS, "wrenn:abc123:x")
    body += rtnetlink.u32(links.IFLA_MTU, 1400) + rtnetlink.u32(links.IFLA_GROUP, 22354)
    assert links.parse(body) == links.Link(
        index=7, name="wabc123v0", alias="wrenn:abc123:x", mtu=1400, group=22354, is_up=True
    )


def test_a_route_is_parsed() -> None:
    body = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 0, 0, 1, 0)
    body += rtnetlink.attribute(routes.RTA_DST, bytes([10, 0, 0, 0]))
    body += rtnetlink.u32(routes.RTA_OIF, 3) + rtnetlink.u32(routes.RTA_TABLE, 1000)
    found = routes.parse(body)
    assert (str(found.destination), found.link, found.table) == ("10.0.0.0/24", 3, 1000)
    default = routes.parse(struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 0, 0, 1, 0))
    assert (str(default.destination), default.link, default.table) == ("0.0.0.0/0", 0, 254)


def test_the_loopback_link_is_there() -> None:
    with rtnetlink.Rtnetlink() as rt:
        found = links.find(rt, "lo")
        assert found is not None
        assert found in links.links(rt)
        assert links.by_index(rt, found.index) == found
        assert links.find(rt, "no-such-link") is None
        rt.close()
