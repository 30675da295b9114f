/* Preloaded into QEMU: decides what the guest's memory is, and ends QEMU with its server.
 *
 * QEMU's RAM is always a shared memfd (so that a migration stream leaves it out), but the guest
 * must not live in one: pages of a memfd are never given back and can't be told dirty from clean.
 * So when QEMU has mapped it, anonymous private memory is mapped over the same addresses. QEMU
 * never looks: it only has the address. The memfd stays empty.
 *
 * Told by one variable, WRENN_RAM_SHIM=PARENT:SIZE:FD - the server's pid, the RAM's size in bytes,
 * and a descriptor that gets two native u64 (address, size) once the memory is in place and is
 * then closed. Without the variable the library does nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static size_t ram_size; /* 0: nothing to do, or done */
static int report_fd = -1;

static void die(const char *what)
{
    dprintf(STDERR_FILENO, "ram shim: %s: %s\n", what, strerror(errno));
    _exit(1);
}

__attribute__((constructor)) static void start(void)
{
    const char *told = getenv("WRENN_RAM_SHIM");
    long parent;
    unsigned long long size;

    if (!told)
        return;
    if (sscanf(told, "%ld:%llu:%d", &parent, &size, &report_fd) != 3) {
        errno = EINVAL;
        die("WRENN_RAM_SHIM");
    }
    /* Tied to the thread that spawned us, which is the server's only one. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
        die("death signal");
    if (getppid() != (pid_t)parent)
        _exit(1); /* it died before the signal was set */
    ram_size = (size_t)size;
    unsetenv("WRENN_RAM_SHIM");
    unsetenv("LD_PRELOAD");
}

static void replace_ram(void *address)
{
    uint64_t report[2] = {(uintptr_t)address, ram_size};
    size_t size = ram_size;

    ram_size = 0;
    if (syscall(SYS_mmap, address, size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == -1)
        die("mapping the guest's memory");
    if (madvise(address, size, MADV_DONTFORK) != 0)
        die("MADV_DONTFORK");
    if (write(report_fd, report, sizeof report) != sizeof report)
        die("report");
    close(report_fd);
}

/* QEMU reserves address space first and then maps the memfd over it: that second call is ours. */
EXPORT void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
    long mapped = syscall(SYS_mmap, address, length, prot, flags, fd, offset);

    if (mapped != -1 && ram_size != 0 && length == ram_size && fd >= 0 &&
        (flags & MAP_FIXED) && (flags & MAP_TYPE) != MAP_PRIVATE && (prot & PROT_WRITE))
        replace_ram((void *)mapped);
    return (void *)mapped;
}

EXPORT void *mmap64(void *address, size_t length, int prot, int flags, int fd, off64_t offset)
    __attribute__((alias("mmap")));
