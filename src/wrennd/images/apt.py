"""Debian packages for the guests, from the host's own Debian mirrors, without touching the host.

Works in a directory of its own: package lists, downloads and settings. Of the host it takes the
addresses of those sources that say they are Debian's (third-party ones stay out), the keys it
trusts, and how it reaches the network (proxies, certificates); neither its preferences nor what is
installed there has a say. Nothing is ever installed on the host.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wrennd.core.config import host_environment
from wrennd.core.errors import HostUnsuitable
from wrennd.linux.process import CLEAN_ENVIRONMENT, run

UPDATE_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 900.0
QUERY_TIMEOUT_S = 60.0
UNPACK_TIMEOUT_S = 120.0

_ARCHITECTURE = "amd64"
_DEBIAN = "Debian"
_DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_HOST_KEYS = Path("/etc/apt/trusted.gpg.d")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
# How the host reaches its mirrors. Not what it downloads, or how it stores that.
_NETWORK_SETTING = re.compile(
    r"Acquire::(https?|ftp|Check-|Retries|ForceIPv|Max-|Min-|Proxy|Queue)", re.IGNORECASE
)
# Hooks of the host would run on its own files; DEP-11 (from appstream) is for software shops.
_SETTINGS = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Dir::Etc::sourceparts;
Dir::State "{directory}/state";
Dir::State::lists "lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Cache::archives "archives";
Dir::Cache::pkgcache "pkgcache.bin";
Dir::Cache::srcpkgcache "";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::trustedparts "{directory}/keys";
APT::Architecture "amd64";
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
"""
_OWN_SOURCES = """\
Dir::Etc::sourcelist "{directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
"""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A Debian repository as the host's apt knows it, such as bookworm-security."""

    uri: str
    release: str
    codename: str
    components: tuple[str, ...]

    @property
    def line(self) -> str:
        """In the form of sources.list."""
        return f"deb {self.uri} {self.release} {' '.join(self.components)}"


@dataclass(frozen=True, kw_only=True)
class Package:
    """The version of a package that would be installed now. `depends`: first alternatives."""

    name: str
    version: str
    depends: tuple[str, ...]


def tool_environment() -> dict[str, str]:
    """For apt and mmdebstrap: our clean environment, and the host's proxies."""
    host = host_environment()
    proxies = {k: v for k, v in host.items() if k.lower() in _PROXIES}
    return {**CLEAN_ENVIRONMENT, **proxies, "DEBIAN_FRONTEND": "noninteractive"}


class Apt:
    """Package lists in `directory`, brought up to date when this is made.

    Errors: HostUnsuitable when the host has no Debian sources; CommandFailed, TimeoutError.
    Not shared between processes: hold the setup lock.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._settings = directory / "apt.conf"
        self._packages = directory / "packages"
        self._prepare()
        self.sources = self._find_sources()
        lines = [f"{source.line}\n" for source in self.sources]
        (directory / "sources.list").write_text("".join(lines))
        self._write_settings(_SETTINGS + _OWN_SOURCES)
        self._run("apt-get", "update", "--error-on=any", timeout_s=UPDATE_TIMEOUT_S)

    @property
    def keys(self) -> Path:
        """A directory with the keys that the host trusts for packages, and Debian's own."""
        return self._directory / "keys"

    @property
    def codename(self) -> str:
        """The Debian release that the host follows, such as bookworm."""
        return min((source.codename for source in self.sources), key=len).partition("-")[0]

    def network_settings(self) -> str:
        """The host's settings for reaching its mirrors, in the form of apt.conf."""
        dump = self._run("apt-config", "dump", "--format", '%F "%v";%n', timeout_s=QUERY_TIMEOUT_S)
        lines = [line for line in dump.splitlines() if _NETWORK_SETTING.match(line)]
        return "".join(f"{line}\n" for line in lines)

    def package(self, name: str) -> Package:
        """Errors: HostUnsuitable when the sources don't have it."""
        shown = self._run(
            "apt-cache", "show", "--no-all-versions", name, timeout_s=QUERY_TIMEOUT_S, check=False
        )
        fields = dict(line.split(": ", 1) for line in shown.splitlines() if ": " in line)
        if fields.get("Package") != name:
            raise HostUnsuitable(
                f"the host's Debian sources have no package {name}",
                hint="they need the component main of a supported release; see /etc/apt",
            )
        needed = f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"
        depends = tuple(_names(needed))
        return Package(name=name, version=fields["Version"], depends=depends)

    def download(self, packages: Sequence[Package]) -> dict[str, Path]:
        """The package files, by name. What was downloaded before is used again."""
        wanted = [f"{package.name}={package.version}" for package in packages]
        self._run("apt-get", "download", *wanted, timeout_s=DOWNLOAD_TIMEOUT_S, cwd=self._packages)
        return {package.name: self._file(package) for package in packages}

    def forget_older(self, packages: Sequence[Package]) -> None:
        """Remove downloaded files of other versions of these packages."""
        for package in packages:
            kept = self._file(package)
            for path in self._packages.glob(f"{package.name}_*.deb"):
                if path != kept:
                    path.unlink()

    def _file(self, package: Package) -> Path:
        version = package.version.replace(":", "%3a")  # as apt names its files
        found = sorted(self._packages.glob(f"{package.name}_{version}_*.deb"))
        if not found:
            raise FileNotFoundError(f"apt-get download left no file of {package.name} {version}")
        return found[0]

    def _prepare(self) -> None:
        for name in ("state/lists/partial", "cache/archives/partial", "packages", "keys"):
            (self._directory / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        (self._directory / "status").write_text("")
        for key in (_DEBIAN_KEYS, *sorted(_HOST_KEYS.glob("*"))):
            link = self.keys / key.name
            if key.exists() and not link.exists():
                link.unlink(missing_ok=True)
                link.symlink_to(key)

    def _write_settings(self, text: str) -> None:
        self._settings.write_text(text.format(directory=self._directory))

    def _find_sources(self) -> tuple[Source, ...]:
        """From the lists that the host has; where it has none, from lists fetched for this."""
        targets = "indextargets", "Created-By: Packages", "Target-Of: deb"
        found = _sources(run(("apt-get", *targets), timeout_s=QUERY_TIMEOUT_S).stdout)
        if not found:
            self._write_settings(_SETTINGS)
            self._run("apt-get", "update", timeout_s=UPDATE_TIMEOUT_S)
            found = _sources(self._run("apt-get", *targets, timeout_s=QUERY_TIMEOUT_S))
        if not found:
            raise HostUnsuitable(
                "the host's apt has no source of Debian packages (Origin: Debian)",
                hint="add Debian's sources to /etc/apt/sources.list.d and run apt-get update",
            )
        return found

    def _run(
        self,
        program: str,
        *args: str,
        timeout_s: float,
        cwd: Path | None = None,
        check: bool = True,
    ) -> str:
        argv = [program, "-c", os.fspath(self._settings), *args]
        done = run(argv, timeout_s=timeout_s, env=tool_environment(), cwd=cwd, check=check)
        return done.stdout


def unpack(package: Path, into: Path) -> None:
    """Unpack a package's files; nothing of it is run. Errors: CommandFailed."""
    into.mkdir(parents=True, exist_ok=True)
    run(("dpkg-deb", "--extract", package, into), timeout_s=UNPACK_TIMEOUT_S)


def _sources(targets: str) -> tuple[Source, ...]:
    """Debian's own repositories among the paragraphs of `apt-get indextargets`."""
    components: dict[tuple[str, str, str], list[str]] = {}
    for fields in _paragraphs(targets):
        is_ours = fields.get("Architecture") == _ARCHITECTURE
        if fields.get("Origin") == _DEBIAN and is_ours:
            key = fields["Repo-URI"], fields["Release"], fields.get("Codename", fields["Release"])
            components.setdefault(key, []).append(fields["Component"])
    return tuple(
        Source(uri=uri, release=release, codename=codename, components=tuple(names))
        for (uri, release, codename), names in components.items()
    )


def _paragraphs(text: str) -> Iterator[Mapping[str, str]]:
    for paragraph in text.split("\n\n"):
        fields = [line.split(": ", 1) for line in paragraph.splitlines() if ": " in line]
        if fields:
            yield {name: value for name, value in fields}


def _names(depends: str) -> Iterator[str]:
    """Names in a Depends field: the first of each set of alternatives, without its version."""
    for group in depends.split(","):
        first = re.match(r"\s*([a-z0-9][a-z0-9+.-]+)", group)
        if first:
            yield first[1]
