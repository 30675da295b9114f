"""The metadata service's data: what a client stores, patches and reads back.

Guests don't get it: QEMU answers nothing on a tap by itself. So the call that would have it served
(`PUT /mmds/config`) is refused by name once everything in it is right, and as with a Firecracker
that was never told to serve it, nobody reaches the data after the start.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from wrennd.qemu_vmm.faults import Fault, Prefix, TooLarge, unsupported
from wrennd.qemu_vmm.json_reader import Json, Reader
from wrennd.qemu_vmm.json_writer import to_json
from wrennd.qemu_vmm.schema import (
    Field,
    boolean,
    choice,
    listed,
    optional,
    string,
    struct,
)

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}")
_LINK_LOCAL = re.compile(r"169\.254\.(?!0\.|255\.).*")  # RFC 3927 reserves both ends


class Version(StrEnum):
    V1 = "V1"
    V2 = "V2"


@dataclass(frozen=True, kw_only=True)
class MmdsConfig:
    """Which interfaces the metadata is to be served on, and how."""

    version: Version
    network_interfaces: list[str]
    ipv4_address: str | None
    imds_compat: bool


@dataclass(frozen=True, kw_only=True)
class MmdsPut:
    """The metadata, all of it."""

    value: Json


@dataclass(frozen=True, kw_only=True)
class MmdsPatch:
    """What changes in the metadata: a JSON merge patch."""

    value: Json


def _ipv4(reader: Reader) -> str:
    if reader.peek_value() != ord('"'):
        reader.wrong_type("IPv4 address")
    text = reader.string()
    if not _IPV4.fullmatch(text):
        raise reader.error("invalid IPv4 address syntax")
    return text


MMDS_CONFIG = struct(
    "MmdsConfig",
    MmdsConfig,
    (
        Field(key="version", kind=choice(Version), default=Version.V1),
        Field(key="network_interfaces", kind=listed(string), required=True),
        Field(key="ipv4_address", kind=optional(_ipv4)),
        Field(key="imds_compat", kind=boolean, default=False),
    ),
)


def read_put(reader: Reader) -> MmdsPut:
    return MmdsPut(value=reader.value())


def read_patch(reader: Reader) -> MmdsPatch:
    return MmdsPatch(value=reader.value())


class DataStore:
    """One document of at most `limit` bytes, counted as it is written: compact."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._value: Json = None
        self._is_initialized = False

    def get(self) -> Json:
        """The document; an empty object in the place of nothing."""
        return {} if self._value is None else self._value

    def put(self, value: Json) -> None:
        """Errors: TooLarge."""
        if len(to_json(value)) > self._limit:
            raise TooLarge(f"{Prefix.MMDS_LIMIT}The MMDS patch request doesn't fit.")
        self._value, self._is_initialized = value, True

    def patch(self, patch: Json) -> None:
        """Errors: TooLarge, or Fault when nothing was ever put."""
        if not self._is_initialized:
            raise not_initialized()
        self.put(merged(self._value, patch))


def merged(target: Json, patch: Json) -> Json:
    """`target` after a JSON merge patch (RFC 7396); keys stay sorted. Changes neither."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return dict(sorted(result.items()))


def not_initialized() -> Fault:
    return Fault(f"{Prefix.MMDS}The MMDS data store is not initialized.")


def refuse_to_serve(config: MmdsConfig, interfaces: Collection[str]) -> None:
    """Always raises Fault: Firecracker's for a wrong configuration, ours for a right one."""
    address = config.ipv4_address
    if address is not None and not _LINK_LOCAL.fullmatch(address):
        raise Fault(f"{Prefix.MMDS_CONFIG}The MMDS IPv4 address is not link local.")
    if not config.network_interfaces:
        raise Fault(
            f"{Prefix.MMDS_CONFIG}The list of network interface IDs that allow forwarding MMDS "
            "requests is empty."
        )
    if not set(config.network_interfaces) <= set(interfaces):
        raise Fault(
            f"{Prefix.MMDS_CONFIG}The list of network interface IDs provided contains at least "
            "one ID that does not correspond to any existing network interface."
        )
    raise unsupported(Prefix.MMDS_CONFIG, "serving mmds to the guest")
