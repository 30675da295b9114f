"""Which resolvers guests get, from files below a root of the test's own."""

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from wrennd.core.errors import InvalidInput
from wrennd.network.resolvers import PUBLIC, choose, parse_resolv_conf


def addresses(*texts: str) -> tuple[IPv4Address, ...]:
    return tuple(map(IPv4Address, texts))


def host(root: Path, **files: str) -> Path:
    """Write files, called as in NAMES."""
    for name, text in files.items():
        path = root / NAMES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


NAMES = {
    "resolv": "etc/resolv.conf",
    "resolved": "run/systemd/resolve/resolv.conf",
    "manager": "run/NetworkManager/no-stub-resolv.conf",
    "dnsmasq": "run/dnsmasq/resolv.conf",
}


def test_resolv_conf_is_parsed() -> None:
    text = (
        "# nameserver 9.9.9.9\n"
        "; nameserver 9.9.9.8\n"
        "search example.org\n"
        "nameserver\n"
        "nameserver 192.0.2.1 # first\n"
        "nameserver fe80::1%eth0\n"
        "nameserver 2001:db8::1\n"
        "\tnameserver\t192.0.2.2\n"
        "nameserver 192.0.2.1\n"
        "nameserver 1.2.3\n"
        "options edns0"
    )
    assert parse_resolv_conf(text) == addresses("192.0.2.1", "192.0.2.2")


def test_the_hosts_own_resolvers(tmp_path: Path) -> None:
    root = host(tmp_path, resolv="nameserver 10.0.0.53\nnameserver 192.0.2.1\n")
    assert choose([], [], root=root) == addresses("10.0.0.53", "192.0.2.1")


@pytest.mark.parametrize("stub", ["127.0.0.53", "127.0.1.1", "127.0.0.1", "::1"])
@pytest.mark.parametrize("behind", ["resolved", "manager", "dnsmasq"])
def test_what_is_behind_a_stub(tmp_path: Path, stub: str, behind: str) -> None:
    upstream = {behind: "nameserver 10.0.0.1\nnameserver 10.0.0.2\n"}
    root = host(tmp_path, resolv=f"nameserver {stub}\n", **upstream)
    assert choose([], [], root=root) == addresses("10.0.0.1", "10.0.0.2")


def test_a_stub_with_nothing_behind_it(tmp_path: Path) -> None:
    root = host(tmp_path, resolv="nameserver 127.0.0.53\n", resolved="nameserver fd00::1\n")
    assert choose([], [], root=root) == PUBLIC


def test_a_real_one_beside_the_stub_is_enough(tmp_path: Path) -> None:
    both = "nameserver 127.0.0.1\nnameserver 10.0.0.9\n"
    root = host(tmp_path, resolv=both, resolved="nameserver 1.2.3.4")
    assert choose([], [], root=root) == addresses("10.0.0.9")


def test_a_host_without_resolvers(tmp_path: Path) -> None:
    assert choose([], [], root=tmp_path) == PUBLIC


def test_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    assert choose([], [], root=tmp_path) == PUBLIC


def test_the_host_itself_is_never_a_resolver(tmp_path: Path) -> None:
    """A guest can't reach it; what remains is used."""
    own = addresses("192.168.1.5")
    root = host(tmp_path, resolv="nameserver 192.168.1.5\n")
    assert choose([], own, root=root) == PUBLIC
    host(tmp_path, resolv="nameserver 192.168.1.5\nnameserver 192.168.1.1\n")
    assert choose([], own, root=root) == addresses("192.168.1.1")


def test_at_most_three(tmp_path: Path) -> None:
    root = host(tmp_path, resolv="".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 6)))
    assert choose([], [], root=root) == addresses("10.0.0.1", "10.0.0.2", "10.0.0.3")


def test_those_given_win(tmp_path: Path) -> None:
    root = host(tmp_path, resolv="nameserver 10.0.0.53\n")
    given = ["9.9.9.9", "10.1.1.1", "9.9.9.9"]
    assert choose(given, [], root=root) == addresses("9.9.9.9", "10.1.1.1")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["dns.example"], "not an IPv4 address"),
        (["fd00::1"], "not an IPv4 address"),
        ([""], "not an IPv4 address"),
        (["127.0.0.1"], "can't use 127.0.0.1"),
        (["0.0.0.0"], "can't use"),
        (["169.254.1.1"], "can't use"),
        (["224.0.0.251"], "can't use"),
        (["1.1.1.1", "2.2.2.2", "3.3.3.3", "4.4.4.4"], "4 resolvers are given"),
        (["192.168.1.5"], r"192\.168\.1\.5 is an address of this host"),
    ],
)
def test_those_that_cannot_be(given: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        choose(given, addresses("192.168.1.5"), root=tmp_path)
    assert caught.value.hint
