/* Preloaded into QEMU: decides what the guest's memory is, and ends QEMU with its server.
 *
 * QEMU's RAM is always a shared memfd (so that a migration stream leaves it out), but the guest
 * must not live in one: pages of a memfd are never given back and can't be told dirty from clean.
 * So when QEMU has mapped it, private memory is mapped over the same addresses: anonymous, or a
 * file's. QEMU never looks: it only has the address. The memfd stays empty.
 *
 * A userfaultfd covers the process that made it and no other, so it is made here; what is done
 * with it is decided by the server, which gets it before QEMU touches the first page.
 *
 * Told by one variable, WRENN_RAM_SHIM=PARENT:SIZE:SOCKET:FILE:FAULTS
 *   PARENT  the server's pid
 *   SIZE    the RAM's size in bytes
 *   SOCKET  gets two native u64 (address, size), with the userfaultfd if there is one, once the
 *           memory is in place; QEMU goes on when a byte comes back
 *   FILE    descriptor of the file to map privately, -1 for anonymous memory
 *   FAULTS  descriptor of /dev/userfaultfd, -1 to make one by system call, -2 for none
 * Without the variable the library does nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define NEW_USERFAULTFD 0xaa00 /* USERFAULTFD_IOC_NEW, Linux 6.1 */

enum { BY_SYSTEM_CALL = -1, NO_FAULTS = -2 };

static size_t ram_size; /* 0: nothing to do */
static char *ram;       /* NULL until it is mapped */
static int server = -1, backing = -1, faults = NO_FAULTS;

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
    if (sscanf(told, "%ld:%llu:%d:%d:%d", &parent, &size, &server, &backing, &faults) != 5) {
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

/* Ours stays open until QEMU ends: were it the last copy, closing it would turn every page that
 * is still missing into zeros. */
static int make_userfaultfd(void)
{
    int flags = O_CLOEXEC | O_NONBLOCK, fd;

    if (faults == NO_FAULTS)
        return -1;
    if (faults == BY_SYSTEM_CALL)
        fd = (int)syscall(SYS_userfaultfd, flags);
    else
        fd = ioctl(faults, NEW_USERFAULTFD, flags);
    if (fd < 0)
        die("userfaultfd");
    return fd;
}

static void report(int fd)
{
    uint64_t where[2] = {(uintptr_t)ram, ram_size};
    struct iovec data = {where, sizeof where};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } extra = {0};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    char answer;

    if (fd >= 0) {
        extra.header.cmsg_len = CMSG_LEN(sizeof fd);
        extra.header.cmsg_level = SOL_SOCKET;
        extra.header.cmsg_type = SCM_RIGHTS;
        memcpy(CMSG_DATA(&extra.header), &fd, sizeof fd);
        message.msg_control = &extra;
        message.msg_controllen = sizeof extra.space;
    }
    if (sendmsg(server, &message, MSG_NOSIGNAL) != sizeof where)
        die("report");
    if (TEMP_FAILURE_RETRY(read(server, &answer, 1)) != 1)
        die("no answer to the report");
    close(server);
}

static void replace_ram(void *address)
{
    int flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED;

    ram = address;
    if (backing < 0)
        flags |= MAP_ANONYMOUS;
    if (syscall(SYS_mmap, ram, ram_size, PROT_READ | PROT_WRITE, flags, backing, 0) == -1)
        die("mapping the guest's memory");
    /* A huge page is dirty as a whole: with them a snapshot would be many times its size. */
    if (madvise(ram, ram_size, MADV_DONTFORK) != 0)
        die("MADV_DONTFORK");
    if (madvise(ram, ram_size, MADV_NOHUGEPAGE) != 0 && errno != EINVAL) /* a kernel without */
        die("MADV_NOHUGEPAGE");
    if (backing >= 0)
        close(backing);
    report(make_userfaultfd());
    if (faults >= 0)
        close(faults);
}

/* QEMU reserves address space first and then maps the memfd over it: that second call is ours. */
EXPORT void *mmap(void *address, size_t length, int prot, int flags, int fd, off_t offset)
{
    long mapped = syscall(SYS_mmap, address, length, prot, flags, fd, offset);

    if (mapped != -1 && ram_size != 0 && ram == NULL && length == ram_size && fd >= 0 &&
        (flags & MAP_FIXED) && (flags & MAP_TYPE) != MAP_PRIVATE && (prot & PROT_WRITE))
        replace_ram((void *)mapped);
    return (void *)mapped;
}

EXPORT void *mmap64(void *address, size_t length, int prot, int flags, int fd, off64_t offset)
    __attribute__((alias("mmap")));

/* QEMU asks for huge pages for all of its RAM; a balloon gives memory back by MADV_DONTNEED, which
 * is right for what we mapped. */
EXPORT int madvise(void *address, size_t length, int advice)
{
    char *start = address;

    if (advice == MADV_HUGEPAGE && ram != NULL && start >= ram && start < ram + ram_size)
        return 0;
    return (int)syscall(SYS_madvise, address, length, advice);
}
