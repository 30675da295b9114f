"""Exec wrapper: confine this process as a JSON description says, then become the program.

Run as `python -I -S confine.py DESCRIPTION` by `vmm/launch.py`; a program of its own (standard
library only, imports nothing of ours), since all of this must happen between fork and exec, where
no other thread may exist. It does without pathlib, which would double its start-up time. Order
matters: what needs privilege comes first, then the uid goes, then the death signal is set (a
change of uid clears it), then the filter, then exec.

The description, all paths absolute:
    argv, env          the program, as seen inside the new root
    uid                uid and gid it runs as
    netns              path of a network namespace to join, or null for an empty one
    cgroup_procs       a cgroup.procs file to join, or null
    binds              [source, target, writable] onto the new root, files or directories
    dirs, links        directories (made for the uid) and [target, path] symlinks in the new root
    nodes, block_nodes [path, major, minor] character and block devices owned by the uid
    proc               whether there is a /proc, with the uid's own processes and nothing else
    limits             {RLIMIT name: value}
    parent             pid whose death must end the program, or null to outlive it
    hostname           what the program sees as its host's name

Exits with 126 and one line on stderr when a step fails: nothing half confined is ever executed.
"""

import ctypes
import json
import os
import resource
import signal
import stat
import struct
import sys
from typing import Any, NoReturn

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x20000, 0x4000000, 0x8000000, 0x40000000
CLONE_NEW_ANY = 0x7E020080  # every namespace flag that clone(2) takes, NEWTIME included
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MS_REC, MS_PRIVATE = 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 24, 22, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
SECCOMP_MODE_FILTER = 2
SYS_PIVOT_ROOT = 155
AUDIT_ARCH_X86_64 = 0xC000003E
EPERM, ENOSYS = 1, 38

# What no VMM needs, by x86-64 number (arch/x86/entry/syscalls/syscall_64.tbl): mounting,
# namespaces, tracing, keys, modules, clocks, raw ports, handles, bpf, io_uring. Not 310
# (process_vm_readv): a VMM made of two processes reads its guest's memory by it.
DENIED = (
    101, 153, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179,
    212, 227, 246, 248, 249, 250, 272, 298, 303, 304, 305, 308, 311, 313, 320, 321, 425, 426, 427,
    428, 429, 430, 431, 432, 433, 438, 442,
)  # fmt: skip
SYS_CLONE, SYS_CLONE3 = 56, 435

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
libc.unshare.argtypes = [ctypes.c_int]
libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
libc.sethostname.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
libc.syscall.argtypes = [ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p]
libc.syscall.restype = ctypes.c_long


def main() -> NoReturn:
    want = json.loads(sys.argv[1])
    for step, act in STEPS:
        try:
            act(want)
        except (OSError, ValueError) as error:
            os.write(2, f"confine: {step}: {error}\n".encode())
            os._exit(126)
    raise AssertionError("the last step is exec")


def join_cgroup(want: dict[str, Any]) -> None:
    if want["cgroup_procs"]:
        with open(want["cgroup_procs"], "w") as procs:
            procs.write("0")


def enter_namespaces(want: dict[str, Any]) -> None:
    if want["netns"]:
        fd = os.open(want["netns"], os.O_RDONLY | os.O_CLOEXEC)
        check(libc.setns(fd, CLONE_NEWNET), want["netns"])
        os.close(fd)
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC
    check(libc.unshare(flags if want["netns"] else flags | CLONE_NEWNET), "unshare")
    name = want["hostname"].encode()
    check(libc.sethostname(name, len(name)), "sethostname")


def open_sources(want: dict[str, Any]) -> None:
    """Hold what will be bound: the new root is built over a directory that may hide a source."""
    want["opened"] = [
        (os.open(source, os.O_PATH | os.O_CLOEXEC), target, writable)
        for source, target, writable in want["binds"]
    ]


def build_root(want: dict[str, Any]) -> None:
    """Assemble the new root on a tmpfs over /tmp (any directory that is there would do)."""
    os.umask(0o022)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", "/tmp", kind="tmpfs", flags=MS_NOSUID | MS_NOEXEC, data="mode=0755,size=1m")
    root = "/tmp"
    for target, path in want["links"]:
        os.makedirs(os.path.dirname(root + path), exist_ok=True)
        os.symlink(target, root + path)
    for path in want["dirs"]:
        os.makedirs(root + path, exist_ok=True)
        os.chown(root + path, want["uid"], want["uid"])
    for fd, target, writable in want["opened"]:
        bind(fd, root + target, writable=writable)
        os.close(fd)
    for kind, key in ((stat.S_IFCHR, "nodes"), (stat.S_IFBLK, "block_nodes")):
        for path, major, minor in want.get(key, ()):
            os.makedirs(os.path.dirname(root + path), exist_ok=True)
            os.mknod(root + path, kind | 0o600, os.makedev(major, minor))
            os.chown(root + path, want["uid"], want["uid"])
    if want["proc"]:
        os.mkdir(root + "/proc")
        mount(
            "proc",
            root + "/proc",
            kind="proc",
            flags=MS_NOSUID | MS_NODEV | MS_NOEXEC,
            data="hidepid=invisible,subset=pid",
        )


def bind(fd: int, target: str, *, writable: bool) -> None:
    kind = os.fstat(fd).st_mode
    if stat.S_ISDIR(kind):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    mount(f"/proc/self/fd/{fd}", target, flags=MS_BIND)
    flags = MS_REMOUNT | MS_BIND | MS_NOSUID | MS_NODEV
    mount("none", target, flags=flags if writable else flags | MS_RDONLY)


def enter_root(want: dict[str, Any]) -> None:
    os.chdir("/tmp")
    check(libc.syscall(SYS_PIVOT_ROOT, b".", b"."), "pivot_root")
    # The old root is now stacked on the new one: detach it and stand in what is left.
    check(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")
    mount("none", "/", flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID)


def set_limits(want: dict[str, Any]) -> None:
    """Lower limits only: raising one would need CAP_SYS_RESOURCE, which containers lack."""
    for name, value in want["limits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(kind, (value, value))


def drop_privileges(want: dict[str, Any]) -> None:
    drop_capabilities()
    os.setgroups([])
    os.setresgid(want["uid"], want["uid"], want["uid"])
    os.setresuid(want["uid"], want["uid"], want["uid"])


def drop_capabilities() -> None:
    """For good: what is still held goes with the uid."""
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient capabilities")
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # EINVAL: past the last capability this kernel knows


def bind_to_parent(want: dict[str, Any]) -> None:
    if want["parent"] is None:
        return
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "death signal")
    if os.getppid() != want["parent"]:
        raise ValueError("the parent died before the death signal was set")


def install_filter(want: dict[str, Any]) -> None:
    program = seccomp_filter()

    class SockFprog(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    fprog = SockFprog(len(program) // 8, program)
    address = ctypes.addressof(fprog)
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0), "seccomp")


def seccomp_filter() -> bytes:
    """Classic BPF: kill foreign architectures, refuse DENIED, clone3 and new namespaces."""
    ld_abs, jeq, jset, jge, ret = 0x20, 0x15, 0x45, 0x35, 0x06
    allow, kill, errno = 0x7FFF0000, 0x80000000, 0x00050000
    ops: list[tuple[int, int, int, int]] = [
        (ld_abs, 0, 0, 4),  # seccomp_data.arch
        (jeq, 1, 0, AUDIT_ARCH_X86_64),
        (ret, 0, 0, kill),
        (ld_abs, 0, 0, 0),  # seccomp_data.nr
        (jge, 0, 1, 0x40000000),  # the x32 ABI has other numbers
        (ret, 0, 0, kill),
        (jeq, 0, 1, SYS_CLONE3),  # its flags lie in memory; ENOSYS makes libc use clone
        (ret, 0, 0, errno | ENOSYS),
    ]
    for number in DENIED:
        ops += [(jeq, 0, 1, number), (ret, 0, 0, errno | EPERM)]
    ops += [
        (jeq, 0, 3, SYS_CLONE),
        (ld_abs, 0, 0, 16),  # low half of the first argument: clone's flags
        (jset, 0, 1, CLONE_NEW_ANY),
        (ret, 0, 0, errno | EPERM),
        (ret, 0, 0, allow),
    ]
    return b"".join(struct.pack("=HBBI", *op) for op in ops)


def prepare_process(want: dict[str, Any]) -> None:
    """Close stdin, and undo what Python did to signals: ignored ones would survive exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def execute(want: dict[str, Any]) -> None:
    os.execve(want["argv"][0], want["argv"], want["env"])


def mount(source: str, target: str, *, kind: str = "", flags: int, data: str = "") -> None:
    check(
        libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()),
        f"mount {source} on {target}",
    )


def check(result: int, what: str) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")


STEPS = (
    ("join cgroup", join_cgroup),
    ("process", prepare_process),
    ("namespaces", enter_namespaces),
    ("open sources", open_sources),
    ("root", build_root),
    ("enter root", enter_root),
    ("limits", set_limits),
    ("privileges", drop_privileges),
    ("parent", bind_to_parent),
    ("seccomp", install_filter),
    ("exec", execute),
)

if __name__ == "__main__":
    main()
