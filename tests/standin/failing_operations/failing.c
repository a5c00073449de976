/* Preloaded: counts the operations that change files in the folder WA_TESTS_FOLDER (with EIO those
 * that read them, too), and lets one of them, or several in a row, fail, or kills the process at it. The file WA_TESTS_OPERATIONS has four
 * numbers: how many there were, the first one that fails, how many fail, and with which errno (-1: a
 * kill). A write that is killed, or that is the first of several to fail, leaves half of its bytes. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static volatile long long *told;
static char folder[PATH_MAX];

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WA_TESTS_OPERATIONS"), *where = getenv("WA_TESTS_FOLDER");
    int file = path && where ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(NULL, 4 * sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (found == MAP_FAILED) return;
    snprintf(folder, sizeof folder, "%s/", where);
    told = found;
}

static int inside_path(const char *path) {
    size_t size = strlen(folder) - 1;
    return !strncmp(path, folder, size) && (!path[size] || path[size] == '/');
}

static int inside(int fd, const char *name) {
    if (!told) return 0;
    if (name && *name == '/') return inside_path(name);
    char link[64], found[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, found, sizeof found - 2);
    if (size < 0) return 0;
    strcpy(found + size, "/");
    return inside_path(found);
}

/* 0: go on; 1: the first that fails; 2: a later one. */
static int fails(void) {
    long long number = told[0]++;
    if (number < told[1] || number >= told[1] + told[2]) return 0;
    return number == told[1] ? 1 : 2;
}

static int stop(void) {
    if (told[3] < 0) kill(getpid(), SIGKILL);
    errno = (int)told[3];
    return -1;
}

static int reads(void) { return told && told[3] == EIO; }

#define READS(name, ...)                                                             \
    if (reads() && inside(fd, NULL) && fails()) return stop();                                  \
    return ((ssize_t (*)())dlsym(RTLD_NEXT, #name))(__VA_ARGS__);

ssize_t read(int fd, void *data, size_t size) { READS(read, fd, data, size) }
ssize_t pread(int fd, void *data, size_t size, off_t at) { READS(pread, fd, data, size, at) }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { READS(pread64, fd, data, size, at) }

DIR *fdopendir(int fd) {
    if (reads() && inside(fd, NULL) && fails()) return stop(), NULL;
    return ((DIR *(*)(int))dlsym(RTLD_NEXT, "fdopendir"))(fd);
}

#define WRITES(name, offset_type)                                                               \
    ssize_t name(int fd, const void *data, size_t size, offset_type at) {                       \
        ssize_t (*real)(int, const void *, size_t, offset_type) = dlsym(RTLD_NEXT, #name);      \
        int how = inside(fd, NULL) ? fails() : 0;                                               \
        if (!how) return real(fd, data, size, at);                                              \
        int half = how == 1 && size > 1 && (told[3] < 0 || told[2] > 1);                        \
        ssize_t done = half ? real(fd, data, size / 2, at) : 0;                                 \
        return half && told[3] > 0 ? done : stop();                                             \
    }
WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    int how = inside(fd, NULL) ? fails() : 0;
    if (!how) return real(fd, data, size);
    int half = how == 1 && size > 1 && (told[3] < 0 || told[2] > 1);
    ssize_t done = half ? real(fd, data, size / 2) : 0;
    return half && told[3] > 0 ? done : stop();
}

#define OF_FD(name, ...)                                                                        \
    if (inside(fd, NULL) && fails()) return stop();                                             \
    return ((int (*)())dlsym(RTLD_NEXT, #name))(__VA_ARGS__);

int fsync(int fd) { OF_FD(fsync, fd) }
int fdatasync(int fd) { OF_FD(fdatasync, fd) }
int ftruncate(int fd, off_t size) { OF_FD(ftruncate, fd, size) }
int ftruncate64(int fd, off64_t size) { OF_FD(ftruncate64, fd, size) }

#define OF_NAME(name, fd, path, ...)                                                            \
    if (inside(fd, path) && fails()) return stop();                                             \
    return ((int (*)())dlsym(RTLD_NEXT, #name))(__VA_ARGS__);

int rename(const char *from, const char *to) { OF_NAME(rename, AT_FDCWD, to, from, to) }
int renameat(int a, const char *from, int b, const char *to) { OF_NAME(renameat, b, to, a, from, b, to) }
int unlink(const char *path) { OF_NAME(unlink, AT_FDCWD, path, path) }
int unlinkat(int fd, const char *path, int flags) { OF_NAME(unlinkat, fd, path, fd, path, flags) }
int linkat(int a, const char *from, int b, const char *to, int flags) { OF_NAME(linkat, b, to, a, from, b, to, flags) }
int mkdir(const char *path, mode_t mode) { OF_NAME(mkdir, AT_FDCWD, path, path, mode) }
int mkdirat(int fd, const char *path, mode_t mode) { OF_NAME(mkdirat, fd, path, fd, path, mode) }
int rmdir(const char *path) { OF_NAME(rmdir, AT_FDCWD, path, path) }

/* A file without a name, as one that asks whether the folder can be written, counts as made. */
static int makes(int flags) { return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE || reads(); }

#define OPENS(name)                                                                             \
    int name(const char *path, int flags, ...) {                                                \
        va_list more;                                                                           \
        va_start(more, flags);                                                                  \
        mode_t mode = va_arg(more, mode_t);                                                     \
        va_end(more);                                                                           \
        if (makes(flags) && inside(AT_FDCWD, path) && fails()) return stop();                   \
        return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode);   \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                          \
    int name(int fd, const char *path, int flags, ...) {                                        \
        va_list more;                                                                           \
        va_start(more, flags);                                                                  \
        mode_t mode = va_arg(more, mode_t);                                                     \
        va_end(more);                                                                           \
        if (makes(flags) && inside(fd, path) && fails()) return stop();                         \
        return ((int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, #name))(fd, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)
