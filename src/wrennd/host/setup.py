"""What `wrenn setup` does: builds the kernel and the base images that are missing, and no others.

One at a time on a host: everything is done under the installation's setup lock. Each thing is
published as soon as it is done, so a setup that was stopped goes on where it was. Halves of things
lie in directories whose names end in .tmp; the next setup removes them. What is slow and depends
on Debian only (packages, an image's tree, the guests' interpreter) is kept in the cache.
"""

import errno
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path

from wrennd.core.errors import DeadlineExceeded, HostUnsuitable, ImageBroken, NoCapacity, NotFound
from wrennd.core.sizes import MIB, format_bytes
from wrennd.host import pruning, warm
from wrennd.images import agent, busybox, debian, ext4, intake, kernel, origin, recipe, runtime
from wrennd.images.apt import Apt
from wrennd.images.inject import Payload, inject
from wrennd.images.recipe import Builder, ImageRecipe
from wrennd.images.runtime import Runtime
from wrennd.linux.files import locked, try_lock
from wrennd.linux.process import CLEAN_ENVIRONMENT, CommandFailed
from wrennd.storage.images import INITRD, ROOTFS, VMLINUX, Image, ImageStore, Kernel
from wrennd.storage.layout import Layout

Report = Callable[[str], None]

ORIGIN = "made_from"  # the fact in a manifest that images/origin.py can tell anew
# What images are built with: program to the Debian package that has it.
TOOLS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "mke2fs": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
# At most in use while it is made, downloads and scratch included; measured, then rounded up.
_NEEDED_BYTES = {
    "kernel": 320 * MIB,
    Builder.DEBIAN: 1000 * MIB,
    Builder.BUSYBOX: 200 * MIB,
    "import": 200 * MIB,
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ALMOST_FULL_BYTES = 8 * MIB


def setup(
    layout: Layout, names: Sequence[str] | None = None, *, force: bool = False, report: Report
) -> None:
    """Build the kernel and the named images (default: every recipe), where they are missing,
    broken or made from something else than what is installed now; with `force`, all of them.

    `report` gets a line for each step. Blocks while another setup works on this installation.
    Errors: HostUnsuitable (not root, tools missing, package sources), NotFound (no such recipe),
    NoCapacity (disk full), DeadlineExceeded, ImageBroken. What was published before stays as it is.
    """
    wanted = [recipe.image(name) for name in names or recipe.image_names()]
    _build(layout, wanted, force=force, report=report)


def ensure(layout: Layout, image: str, report: Report) -> bool:
    """Return at once when the kernel and `image` are there; else do that part of `setup`.

    Whether anything had to be built.

    Errors: as for `setup`; ImageBroken, which this does not repair, so that nobody loses the
    evidence of a failing disk to a command that only wanted to run something.
    """
    store = ImageStore(layout)
    if image not in recipe.image_names():
        store.find(image)
        ensure_kernel(layout, report)
    elif not (_is_kernel_current(store) and _is_image_current(store, image)):
        _build(layout, [recipe.image(image)], report=report)
        return True
    return False


def ensure_kernel(layout: Layout, report: Report) -> None:
    """As `ensure`, for the kernel alone."""
    if not _is_kernel_current(ImageStore(layout)):
        _build(layout, [], report=report)


def _is_kernel_current(store: ImageStore) -> bool:
    return _is_current(store.kernel, origin.of_kernel())


def _is_image_current(store: ImageStore, name: str) -> bool:
    return _is_current(lambda: store.find(name), origin.of_image(recipe.image(name)))


def _is_current(find: Callable[[], Image | Kernel], made_from: str) -> bool:
    """Errors: ImageBroken."""
    try:
        return find().manifest.facts.get(ORIGIN) == made_from
    except NotFound:
        return False


def _build(
    layout: Layout, images: Sequence[ImageRecipe], *, force: bool = False, report: Report
) -> None:
    check_host(images)
    with workshop(layout, force=force, report=report) as shop:
        shop.build(images)


@contextmanager
def workshop(layout: Layout, *, force: bool = False, report: Report) -> Iterator["Workshop"]:
    """The setup lock held, and a place to work in that is empty before and gone after."""
    with alone(layout, report), ExitStack() as held:
        _remove_leftovers(layout)
        prune(layout)
        held.callback(_remove_leftovers, layout)
        work = layout.cache / "work.tmp"
        work.mkdir(mode=0o755)
        yield Workshop(layout, work, force=force, report=report)


def _remove_leftovers(layout: Layout) -> None:
    """What killed or failed builds left, and scratch."""
    ImageStore(layout).remove_leftovers()
    for path in layout.cache.glob("*.tmp"):
        shutil.rmtree(path)


def prune(layout: Layout) -> None:
    """Remove images and kernels that earlier setups replaced, unless a sandbox is made of them.

    Done before building, not after: whoever looked an image up a moment ago finds its files.
    """
    used = pruning.digests_in_use(layout)
    if used is not None:
        ImageStore(layout).prune(used)
        warm.prune(layout)


@contextmanager
def alone(layout: Layout, report: Report) -> Iterator[None]:
    """Hold the setup lock."""
    fd = os.open(layout.setup_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    is_free = try_lock(fd)
    os.close(fd)
    if not is_free:
        report("waiting for another setup to end")
    with locked(layout.setup_lock):
        yield


class Workshop:
    """One setup at work: what is made on the way for one image is there for the next.

    Made and used by the holder of the setup lock. `work` is scratch, removed by its owner. With
    `force` everything is made anew, but for downloaded packages.
    """

    def __init__(self, layout: Layout, work: Path, *, force: bool, report: Report) -> None:
        self._layout = layout
        self._store = ImageStore(layout)
        self._work = work
        self._force = force
        self._report = report

    def build(self, images: Sequence[ImageRecipe]) -> None:
        if self._is_wanted("kernel", partial(_is_kernel_current, self._store)):
            self._make("kernel", _NEEDED_BYTES["kernel"], self._make_kernel)
        for image in images:
            if self._is_wanted(image.name, partial(_is_image_current, self._store, image.name)):
                self.build_image(image)

    def build_image(self, image: ImageRecipe) -> None:
        """Build one image, whether it is there already or not."""
        needed = _NEEDED_BYTES[image.builder]
        self._make(image.name, needed, partial(self._make_image, image))

    def import_image(self, name: str, source: Path, disk_mib: int) -> None:
        """Make an image of a tree that is not trusted. Errors: as `intake.take`."""
        self._make(name, _NEEDED_BYTES["import"], partial(self._take, name, source, disk_mib))

    def _is_wanted(self, what: str, is_current: Callable[[], bool]) -> bool:
        if self._force:
            return True
        try:
            return not is_current()
        except ImageBroken as error:
            self._report(f"{what}: {error}; building it again")
            return True

    def _make(self, what: str, needed: int, make: Callable[[], str]) -> None:
        start = time.monotonic()
        with _explained(what, self._layout):
            _check_space(what, self._layout, needed)
            result = make()
        self._report(f"{what}: ready, {result} ({time.monotonic() - start:.1f} s)")

    def _make_kernel(self) -> str:
        made = recipe.kernel()
        staging = _fresh(self._store.kernel_staging())
        self._report(f"kernel: downloading and unpacking {made.package}")
        built = kernel.build(
            made,
            self._apt,
            work=self._work / "kernel",
            vmlinux=staging / VMLINUX,
            initrd=staging / INITRD,
        )
        facts = {"version": built.release, "package": built.package_version}
        self._store.publish_kernel(staging, {**facts, ORIGIN: origin.of_kernel()})
        return built.release

    def _make_image(self, image: ImageRecipe) -> str:
        tree, facts = self._tree(image)
        self._report(f"{image.name}: writing the disk image")
        inject(self._payload, tree)
        staging = _fresh(self._store.image_staging(image.name))
        ext4.make(tree, staging / ROOTFS, size_mib=image.disk_mib, label=image.name)
        facts |= {"recipe": image.name, "interpreter": self._payload.runtime.version}
        made = self._store.publish_image(
            image.name, staging, {**facts, ORIGIN: origin.of_image(image)}
        )
        return _said(made)

    def _take(self, name: str, source: Path, disk_mib: int) -> str:
        payload = self._payload
        self._report(f"{name}: unpacking {source} and writing the disk image")
        work = self._work / "intake"
        taken = intake.take(source, payload, work=work, disk_mib=disk_mib, label=name)
        for note in taken.notes:
            self._report(f"{name}: {note}")
        staging = _fresh(self._store.image_staging(name))
        taken.disk.rename(staging / ROOTFS)
        facts = {"imported": str(taken.entries), "interpreter": payload.runtime.version}
        return _said(self._store.publish_image(name, staging, facts))

    def _tree(self, image: ImageRecipe) -> tuple[Path, dict[str, str]]:
        """The image's files without ours; what was built from the same recipe before is kept."""
        wanted = f"tree-{image.name}-{origin.of_tree(image)}"

        def make(tree: Path) -> None:
            if image.builder is Builder.BUSYBOX:
                busybox.build(image, self._payload.busybox, tree=tree)
            else:
                count = len(image.packages)
                release = f"Debian {self._apt.codename} with {count} packages"
                self._report(f"{image.name}: installing {release} and what they need")
                debian.build(image, self._apt, tree=tree, work=self._work / image.name)

        tree = self._cached(f"tree-{image.name}-", wanted, make)
        return tree, _tree_facts(tree)

    @cached_property
    def _apt(self) -> Apt:
        self._report("reading Debian's package lists")
        directory = self._layout.cache / "apt"
        directory.mkdir(mode=0o755, exist_ok=True)
        return Apt(directory)

    @cached_property
    def _payload(self) -> Payload:
        made = self._cached("runtime-", f"runtime-{origin.of_runtime()}", self._make_runtime)
        interpreter = Runtime.load(made / "python")
        agent.build(interpreter, work=self._work / "agent", target=self._work / "envd.pyz")
        return Payload(runtime=interpreter, agent=self._work / "envd.pyz", busybox=made / "busybox")

    def _make_runtime(self, target: Path) -> None:
        self._report("guest agent: making the interpreter that it brings along")
        target.mkdir()
        work = self._work / "runtime"
        runtime.build(recipe.runtime(), self._apt, work=work, target=target / "python")
        shutil.copy(busybox.fetch(self._apt, work / "busybox"), target / "busybox")

    def _cached(self, prefix: str, name: str, make: Callable[[Path], None]) -> Path:
        """`<cache>/<name>`, made if it is not there (or forced); others with the prefix go."""
        cache = self._layout.cache
        wanted = cache / name
        if self._force or not wanted.exists():
            _forget(cache, prefix)
            staging = cache / f"{name}.tmp"
            make(staging)
            staging.rename(wanted)
        return wanted


def forget_tree(layout: Layout, name: str) -> None:
    """Remove the cached tree of an image that has a recipe of somebody's own; not of ours."""
    if name not in recipe.image_names():
        _forget(layout.cache, f"tree-{name}-")


def _forget(cache: Path, prefix: str) -> None:
    for old in cache.glob(prefix + "[0-9a-f]" * 16):
        shutil.rmtree(old)


def _said(made: Image) -> str:
    size, used = format_bytes(made.size_bytes), format_bytes(made.used_bytes)
    return f"a disk of {size} that takes {used}"


def _tree_facts(tree: Path) -> dict[str, str]:
    version = tree / "etc/debian_version"
    return {"debian": version.read_text().strip()} if version.is_file() else {}


def _fresh(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(mode=0o755)
    return directory


def check_host(images: Sequence[ImageRecipe]) -> None:
    if os.geteuid() != 0:
        raise HostUnsuitable(
            "only root can build images: their files belong to many users",
            hint="run it with sudo",
        )
    if platform.machine() != "x86_64":
        raise HostUnsuitable(f"guests are x86-64, this host is {platform.machine()}")
    path = CLEAN_ENVIRONMENT["PATH"]
    needed = dict(TOOLS)
    if all(image.builder is not Builder.DEBIAN for image in images):
        del needed["mmdebstrap"]
    missing = sorted({needed[tool] for tool in needed if shutil.which(tool, path=path) is None})
    if missing:
        raise HostUnsuitable(
            f"the host lacks what images are built with: {', '.join(missing)}",
            hint=f"apt-get install --no-install-recommends {' '.join(missing)}",
        )


def _check_space(what: str, layout: Layout, needed: int) -> None:
    free = shutil.disk_usage(layout.data_dir).free
    if free < needed:
        raise NoCapacity(
            f"making {what} needs {format_bytes(needed)} in {layout.data_dir}, "
            f"where {format_bytes(free)} are free",
            hint="make room, or choose another disk with --data-dir",
        )


@contextmanager
def _explained(what: str, layout: Layout) -> Iterator[None]:
    """Failures of tools and of the disk as errors that say what could not be made, and why."""
    again = "run wrenn setup again: it goes on where it stopped"
    try:
        yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"making {what} took too long: {error}", hint=again) from error
    except CommandFailed as error:
        if _is_full(layout, error.completed.stderr):
            raise _disk_full(what, layout) from error
        hint = f"if a mirror could not be reached, see to the network or to /etc/apt; then {again}"
        raise HostUnsuitable(f"making {what} failed: {error}", hint=hint) from error
    except OSError as error:  # shutil.Error has no errno, only the text of those it collected
        if error.errno in _FULL or _is_full(layout, str(error)):
            raise _disk_full(what, layout) from error
        raise


def _is_full(layout: Layout, said: str) -> bool:
    """Tools tell of a full disk in words only; free space may be back when they have ended."""
    free = shutil.disk_usage(layout.data_dir).free
    return os.strerror(errno.ENOSPC) in said or free < _ALMOST_FULL_BYTES


def _disk_full(what: str, layout: Layout) -> NoCapacity:
    return NoCapacity(
        f"the disk of {layout.data_dir} became full while {what} was made",
        hint="make room, or choose another disk with --data-dir; nothing half-made was kept",
    )
