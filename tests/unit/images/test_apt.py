from wrennd.images import apt
from wrennd.images.apt import Source

PARAGRAPH = """\
MetaKey: main/binary-amd64/Packages
Description: http://mirror.example/debian {release}/{component} amd64 Packages
Codename: {release}
Origin: {origin}
Architecture: {architecture}
Component: {component}
Release: {release}
Repo-URI: http://mirror.example/debian/
"""


def target(release, *, origin="Debian", component="main", architecture="amd64"):
    return PARAGRAPH.format(
        release=release, origin=origin, component=component, architecture=architecture
    )


def sources(*targets):
    return apt._sources("\n".join(targets))


def test_components_of_one_repository_are_one_source():
    (found,) = sources(target("bookworm"), target("bookworm", component="contrib"))
    assert found == Source(
        uri="http://mirror.example/debian/",
        release="bookworm",
        codename="bookworm",
        components=("main", "contrib"),
    )
    assert found.line == "deb http://mirror.example/debian/ bookworm main contrib"


def test_third_party_sources_and_other_architectures_stay_out():
    assert sources(target("nodistro", origin="Node Source"), target("x", architecture="i386")) == ()


def test_a_host_without_lists_has_no_sources():
    assert sources("") == ()


def test_depends_are_names_of_first_alternatives():
    depends = "libc6 (>= 2.36), kmod, initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool,"
    assert [*apt._names(depends)] == ["libc6", "kmod", "initramfs-tools"]
    assert [*apt._names("")] == []


def test_only_how_to_reach_mirrors_is_taken_from_the_host():
    taken = ['Acquire::http::Proxy "http://p:1/";', 'Acquire::Check-Valid-Until "false";']
    left = [
        'Acquire::IndexTargets::x "y";',
        'Acquire::GzipIndexes "true";',
        'DPkg::Post-Invoke "z";',
    ]
    assert [x for x in taken + left if apt._NETWORK_SETTING.match(x)] == taken


def test_of_the_environment_only_proxies_pass():
    found = apt.tool_environment()
    assert found["PATH"].startswith("/usr/local/sbin:")
    allowed = {*apt._PROXIES, "path", "lang", "debian_frontend"}
    assert {name.lower() for name in found} <= allowed
