// The pager's job in C, for comparison: one region, one file, page first and then its window. No
// removals, no header, no supervision.
//
//   pager_handler SOCKET FILE WINDOW
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PAGE 4096UL

static int uffd;
static const char *file;
static uint64_t base, pages;
static unsigned char *installed;

static void die(const char *what) {
    perror(what);
    exit(3);
}

static void wake(uint64_t page) {
    struct uffdio_range range = {base + page * PAGE, PAGE};
    ioctl(uffd, UFFDIO_WAKE, &range);
}

static void put(uint64_t page, uint64_t count) {
    while (count) {
        struct uffdio_copy copy = {base + page * PAGE, (uint64_t)file + page * PAGE, count * PAGE, 0, 0};
        uint64_t done = count;
        if (ioctl(uffd, UFFDIO_COPY, &copy)) {
            if (errno == ESRCH)
                exit(0);
            done = copy.copy > 0 ? copy.copy / PAGE : 0;
            if (!done) {
                if (errno != EEXIST)
                    die("UFFDIO_COPY");
                wake(page);
                done = 1;
            }
        }
        memset(installed + page, 1, done);
        page += done;
        count -= done;
    }
}

static void fill(uint64_t low, uint64_t high) {
    while (low < high) {
        if (installed[low]) {
            low++;
            continue;
        }
        uint64_t end = low;
        while (end < high && !installed[end])
            end++;
        put(low, end - low);
        low = end;
    }
}

static int greeted(int peer) {
    char text[65536], space[CMSG_SPACE(sizeof(int))];
    struct iovec data = {text, sizeof text - 1};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    ssize_t length = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);
    if (length <= 0)
        die("recvmsg");
    text[length] = 0;
    if (sscanf(text, "[{\"base_host_virt_addr\":%lu,", &base) != 1)
        die("handshake");
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    uint64_t window = strtoul(argv[3], NULL, 10);
    int source = open(argv[2], O_RDONLY), listener = socket(AF_UNIX, SOCK_STREAM, 0);
    struct stat found;
    if (source < 0 || fstat(source, &found))
        die(argv[2]);
    pages = found.st_size / PAGE;
    file = mmap(NULL, found.st_size, PROT_READ, MAP_PRIVATE, source, 0);
    installed = calloc(pages, 1);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, argv[1], sizeof address.sun_path - 1);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1) || chmod(argv[1], 0666))
        die("socket");
    printf("ready\n");
    fflush(stdout);
    int peer = accept(listener, NULL, NULL);
    uffd = greeted(peer);
    struct pollfd ready[2] = {{uffd, POLLIN, 0}, {peer, 0, 0}};
    struct uffd_msg message[64];
    while (poll(ready, 2, -1) > 0 && !ready[1].revents) {
        ssize_t length = read(uffd, message, sizeof message);
        for (int i = 0; i < (int)(length / (ssize_t)sizeof *message); i++)
            put((message[i].arg.pagefault.address - base) / PAGE, 1);
        for (int i = 0; window > 1 && i < (int)(length / (ssize_t)sizeof *message); i++) {
            uint64_t page = (message[i].arg.pagefault.address - base) / PAGE, low = page - page % window;
            fill(low, low + window < pages ? low + window : pages);
        }
    }
    return 0;
}
