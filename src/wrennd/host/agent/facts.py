"""What this host is: found out once, since probing a VMM may take a boot."""

import threading
from dataclasses import dataclass

import wrennd
from wrennd.core.config import Config
from wrennd.core.errors import HostUnsuitable, NotFound
from wrennd.host import choice, vmm_facts
from wrennd.host.agent.activity import now_ms
from wrennd.storage.images import ImageStore
from wrennd.storage.layout import Layout
from wrennd.vmm import probe

# What the images that this version builds have inside; a test holds it to the agent's own.
ENVD_VERSION = "0.6.13"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """tier, vmm, kernel: "" while there is no kernel to try a VMM with, or none works."""

    installation: str
    version: str
    tier: str
    vmm: str
    vmm_version: str
    kernel: str
    envd_version: str
    started_ms: int


class HostFacts:
    """The facts of one host. From any thread; the first that asks may wait for a probe."""

    def __init__(self, config: Config, layout: Layout) -> None:
        self._config = config
        self._layout = layout
        self._started_ms = now_ms()
        self._lock = threading.Lock()
        self._found: Facts | None = None

    @property
    def installation(self) -> str:
        return self._layout.installation

    def get(self) -> Facts:
        with self._lock:
            if self._found is None or not self._found.vmm:
                self._found = self._look()
            return self._found

    def _look(self) -> Facts:
        tier = vmm = version = release = ""
        try:
            kernel = ImageStore(self._layout).kernel()
            release = kernel.version
            program, _ = probe.choose(
                self._config.vmm,
                choice.candidates(self._layout),
                choice.probe_guest(self._layout, kernel),
            )
            tier, vmm = program.tier, program.name
            version = vmm_facts.of_program(program, self._layout.vmm).version
        except (NotFound, HostUnsuitable):
            pass  # wrenn setup, or wrenn doctor, says what to do
        return Facts(
            installation=self._layout.installation,
            version=wrennd.__version__,
            tier=tier,
            vmm=vmm,
            vmm_version=version,
            kernel=release,
            envd_version=ENVD_VERSION,
            started_ms=self._started_ms,
        )
