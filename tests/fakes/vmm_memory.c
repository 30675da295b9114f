// The memory half of a VMM: guest memory registered with userfaultfd, Firecracker's handshake, and
// threads that touch, write and give up pages, and compare every page with what it should hold.
//
//   vmm_memory UID SOCKET IMAGE WP(0|1) PAGES...      one region for each PAGES
//
// Then one command a line on stdin, one answer a line on stdout:
//   read|write|remove FIRST COUNT     pages, checked where they are read
//   start FIRST COUNT, join           the same read, in a thread of its own
//   stress THREADS OPS SEED REMOVE%   each thread owns every THREADS-th page
//   time seq|rand COUNT SEED          touch pages that are new; "total_ns faults p50_ns p99_ns"
//   dirty                             pages that count as written (PAGEMAP_SCAN, needs WP=1)
//   check                             all pages
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define FEATURE_WP_UNPOPULATED (1ULL << 13)
#define FEATURE_WP_ASYNC (1ULL << 15)
#define MAX_REGIONS 64
#define MAX_THREADS 64

enum { FROM_IMAGE, ZERO, WRITTEN };

static struct { char *base; uint64_t first, pages; } region[MAX_REGIONS];
static int regions;
static uint64_t pages;
static const char *image;
static unsigned char *kind;
static uint64_t *value;

static void die(const char *what) {
    perror(what);
    exit(3);
}

static char *at(uint64_t page) {
    for (int i = 0; i < regions; i++)
        if (page < region[i].first + region[i].pages)
            return region[i].base + (page - region[i].first) * PAGE;
    fprintf(stderr, "no page %lu\n", page);
    exit(3);
}

// NULL, or what is wrong with the page.
static const char *compare(uint64_t page) {
    static __thread char text[120];
    static const char zeros[PAGE];
    const uint64_t *found = (const uint64_t *)at(page);
    if (kind[page] == WRITTEN) {
        for (unsigned i = 0; i < PAGE / 8; i++)
            if (found[i] != value[page]) {
                snprintf(text, sizeof text, "wrong page %lu: written %lx, found %lx", page, value[page], found[i]);
                return text;
            }
        return NULL;
    }
    const void *want = kind[page] == ZERO ? zeros : image + page * PAGE;
    if (memcmp(found, want, PAGE) == 0)
        return NULL;
    snprintf(text, sizeof text, "wrong page %lu: kind %d, begins with %lx", page, kind[page], found[0]);
    return text;
}

static void write_page(uint64_t page, uint64_t word) {
    uint64_t *to = (uint64_t *)at(page);
    for (unsigned i = 0; i < PAGE / 8; i++)
        to[i] = word;
    kind[page] = WRITTEN;
    value[page] = word;
}

static void remove_page(uint64_t page) {
    if (madvise(at(page), PAGE, MADV_DONTNEED))
        die("madvise");
    kind[page] = ZERO;
}

static uint64_t next(uint64_t *state) {  // xorshift64
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

struct work { int threads, number, removals; uint64_t ops, seed; const char *wrong; };

static void *stress(void *argument) {
    struct work *work = argument;
    uint64_t state = work->seed * 2654435761 + work->number * 40503 + 1, mine = pages / work->threads;
    for (uint64_t op = 0; op < work->ops; op++) {
        uint64_t page = next(&state) % mine * work->threads + work->number;
        unsigned dice = next(&state) % 100;
        if (dice < (unsigned)work->removals)
            remove_page(page);
        else if (dice % 3 == 0)
            write_page(page, next(&state));
        else if ((work->wrong = compare(page)) && (work->wrong = strdup(work->wrong)))
            return NULL;
    }
    return NULL;
}

static void run_stress(int threads, uint64_t ops, uint64_t seed, int removals) {
    static pthread_t thread[MAX_THREADS];
    static struct work work[MAX_THREADS];
    const char *wrong = NULL;
    for (int i = 0; i < threads; i++) {
        work[i] = (struct work){threads, i, removals, ops, seed, NULL};
        if (pthread_create(&thread[i], NULL, stress, &work[i]))
            die("pthread_create");
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(thread[i], NULL);
        wrong = wrong ? wrong : work[i].wrong;
    }
    printf("%s\n", wrong ? wrong : "ok");
}

static uint64_t range[2];

static void *read_range(void *unused) {
    (void)unused;
    for (uint64_t page = range[0]; page < range[0] + range[1]; page++) {
        const char *wrong = compare(page);
        if (wrong)
            return strdup(wrong);
    }
    return NULL;
}

static int compare_ns(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000000UL + time.tv_nsec;
}

// Touches below 1.5 us were no faults: a window had brought the page.
static void run_time(int random, uint64_t count, uint64_t seed) {
    uint64_t *order = malloc(pages * 8), *took = malloc(count * 8), state = seed * 2654435761 + 1, faults = 0;
    for (uint64_t i = 0; i < pages; i++)
        order[i] = i;
    for (uint64_t i = 0; random && i < count; i++) {
        uint64_t j = i + next(&state) % (pages - i), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
    uint64_t start = now(), before = start;
    for (uint64_t i = 0; i < count; i++) {
        *(volatile char *)at(order[i]);
        uint64_t after = now();
        if (after - before > 1500)
            took[faults++] = after - before;
        before = after;
    }
    uint64_t total = now() - start;
    qsort(took, faults, 8, compare_ns);
    printf("%lu %lu %lu %lu\n", total, faults, faults ? took[faults / 2] : 0, faults ? took[faults * 99 / 100] : 0);
    free(order);
    free(took);
}

// PAGEMAP_SCAN (linux/fs.h, Linux 6.7): written, and not the zero page, and there or swapped out.
static void run_dirty(void) {
    struct { uint64_t start, end, categories; } found[256];
    uint64_t argument[12];
    int file = open("/proc/self/pagemap", O_RDONLY);
    if (file < 0)
        die("pagemap");
    printf("dirty");
    for (int i = 0; i < regions; i++) {
        uint64_t from = (uint64_t)region[i].base, end = from + region[i].pages * PAGE;
        while (from < end) {
            uint64_t wanted[12] = {96, 0, from, end, 0, (uint64_t)found, 256, 0, 32, 34, 24, 34};
            memcpy(argument, wanted, sizeof wanted);
            int count = ioctl(file, 0xc0606610, argument);
            if (count < 0)
                die("PAGEMAP_SCAN");
            for (int j = 0; j < count; j++)
                for (uint64_t a = found[j].start; a < found[j].end; a += PAGE)
                    printf(" %lu", region[i].first + (a - (uint64_t)region[i].base) / PAGE);
            from = argument[4];
        }
    }
    printf("\n");
    close(file);
}

static int register_memory(int device, int wp) {
    int uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    if (wp)
        api.features |= UFFD_FEATURE_PAGEFAULT_FLAG_WP | FEATURE_WP_UNPOPULATED | FEATURE_WP_ASYNC;
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
        die("userfaultfd");
    for (int i = 0; i < regions; i++) {
        struct uffdio_register want = {
            .range = {.start = (uint64_t)region[i].base, .len = region[i].pages * PAGE},
            .mode = UFFDIO_REGISTER_MODE_MISSING | (wp ? UFFDIO_REGISTER_MODE_WP : 0),
        };
        if (ioctl(uffd, UFFDIO_REGISTER, &want))
            die("UFFDIO_REGISTER");
    }
    return uffd;
}

static void greet(const char *path, int uffd, int wp) {
    static char text[16384];
    int length = 0, peer = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < regions; i++)
        length += sprintf(text + length,
                          "%c{\"base_host_virt_addr\":%lu,\"size\":%lu,\"offset\":%lu,\"page_size\":4096,\"page_size_kib\":4096%s}",
                          i ? ',' : '[', (uint64_t)region[i].base, region[i].pages * PAGE, region[i].first * PAGE,
                          wp ? ",\"wp_async\":true" : "");
    text[length++] = ']';
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    if (connect(peer, (struct sockaddr *)&address, sizeof address))
        die("connect");
    char space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec data = {text, length};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &uffd, sizeof(int));
    if (sendmsg(peer, &message, MSG_NOSIGNAL) != length)
        die("sendmsg");
}

static void obey(const char *line) {
    static pthread_t reader;
    uint64_t first, count, seed;
    int threads, removals;
    char order[8];
    void *wrong = NULL;
    if (sscanf(line, "read %lu %lu", &range[0], &range[1]) == 2)
        printf("%s\n", (wrong = read_range(NULL)) ? (char *)wrong : "ok");
    else if (sscanf(line, "write %lu %lu", &first, &count) == 2) {
        for (uint64_t page = first; page < first + count; page++)
            write_page(page, page * 3 + 1);
        printf("ok\n");
    } else if (sscanf(line, "remove %lu %lu", &first, &count) == 2) {
        for (uint64_t page = first; page < first + count; page++)
            remove_page(page);
        printf("ok\n");
    } else if (sscanf(line, "start %lu %lu", &range[0], &range[1]) == 2) {
        if (pthread_create(&reader, NULL, read_range, NULL))
            die("pthread_create");
        printf("ok\n");
    } else if (strcmp(line, "join\n") == 0) {
        pthread_join(reader, &wrong);
        printf("%s\n", wrong ? (char *)wrong : "ok");
    } else if (sscanf(line, "stress %d %lu %lu %d", &threads, &count, &seed, &removals) == 4)
        run_stress(threads, count, seed, removals);
    else if (sscanf(line, "time %7s %lu %lu", order, &count, &seed) == 3)
        run_time(strcmp(order, "rand") == 0, count, seed);
    else if (strcmp(line, "dirty\n") == 0)
        run_dirty();
    else if (strcmp(line, "check\n") == 0) {
        range[0] = 0;
        range[1] = pages;
        printf("%s\n", (wrong = read_range(NULL)) ? (char *)wrong : "ok");
    } else
        die("unknown command");
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 6)
        return 2;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC), file = open(argv[3], O_RDONLY | O_CLOEXEC);
    if (device < 0 || file < 0)
        die("open");
    for (; regions < argc - 5 && regions < MAX_REGIONS; regions++) {
        region[regions].first = pages;
        region[regions].pages = strtoul(argv[5 + regions], NULL, 10);
        region[regions].base = mmap(NULL, region[regions].pages * PAGE, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        pages += region[regions].pages;
    }
    image = mmap(NULL, pages * PAGE, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, file, 0);
    kind = calloc(pages, 1);
    value = calloc(pages, 8);
    int wp = atoi(argv[4]), uffd = register_memory(device, wp), uid = atoi(argv[1]);
    if (setresgid(uid, uid, uid) || setresuid(uid, uid, uid) || prctl(PR_SET_DUMPABLE, 1))
        die("setresuid");
    greet(argv[2], uffd, wp);
    printf("greeted\n");
    fflush(stdout);
    char line[256];
    while (fgets(line, sizeof line, stdin))
        obey(line);
    return 0;
}
