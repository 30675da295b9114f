"""Network interfaces of a guest that runs: who carries the frames of limited ones, other limits."""

from contextlib import ExitStack
from dataclasses import replace

from wrennd.qemu_vmm import throttle
from wrennd.qemu_vmm.configuration import OpenInterface
from wrennd.qemu_vmm.faults import Fault, Prefix, unsupported
from wrennd.qemu_vmm.resources import NetworkInterfacePatch
from wrennd.qemu_vmm.shaper import Shaper


class Interfaces:
    """Those of one guest; `opened` is the configuration's own list, and its descriptors' owner.

    Must be closed before them.
    """

    def __init__(self, opened: list[OpenInterface]) -> None:
        self._opened = opened
        self._shapers: dict[str, Shaper] = {}
        with ExitStack() as held:
            for found in opened:
                if found.link is None:
                    continue
                interface = found.interface
                limits = (interface.rx_rate_limiter, interface.tx_rate_limiter)
                shaper = Shaper(found.fd, found.link[0], *limits)
                held.callback(shaper.close)
                self._shapers[interface.iface_id] = shaper
            self._held = held.pop_all()

    def patch(self, wanted: NetworkInterfacePatch) -> None:
        """Other limits. Errors: Fault."""
        ids = [found.interface.iface_id for found in self._opened]
        if wanted.iface_id not in ids:
            raise Fault(
                f"{Prefix.NETWORK}Unable to update the net device: Failed perform action on "
                "device: Device not found"
            )
        index = ids.index(wanted.iface_id)
        old = self._opened[index].interface
        new = replace(
            old,
            rx_rate_limiter=throttle.updated(old.rx_rate_limiter, wanted.rx_rate_limiter),
            tx_rate_limiter=throttle.updated(old.tx_rate_limiter, wanted.tx_rate_limiter),
        )
        shaper = self._shapers.get(wanted.iface_id)
        if shaper is not None:
            shaper.update(
                (wanted.rx_rate_limiter, new.rx_rate_limiter),
                (wanted.tx_rate_limiter, new.tx_rate_limiter),
            )
        elif throttle.shown(new.rx_rate_limiter) or throttle.shown(new.tx_rate_limiter):
            feature = "a rate limiter on a network interface that was started without one"
            raise unsupported(Prefix.NETWORK, feature)
        self._opened[index] = replace(self._opened[index], interface=new)

    def close(self) -> None:
        """May be called twice."""
        self._held.close()
