/* Preloaded into a process under test: keeps what a power loss would leave of the files below $UNSYNCED_OF, in $UNSYNCED_IN.
 * Only what was synced is left: the content of a file as of its last fsync, the names in a folder as of the folder's.
 * `f<inode>` holds a file's content, `d<inode>` a folder's names: a line for each of inode, kind and name.
 * $UNSYNCED_FAIL, "sync N" or "read N", lets the Nth call of that kind fail as a bad disk does. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void fail(const char *what) { perror(what); abort(); }

/* True, with its path, if the file is one of those that are watched. */
static int is_watched(int fd, char *path, size_t size)
{
    const char *of = getenv("UNSYNCED_OF");
    char link[64];
    ssize_t length;

    if (!of) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, size - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return !strncmp(path, of, strlen(of));
}

static void keep(int fd)
{
    const char *in = getenv("UNSYNCED_IN");
    struct stat facts;
    char link[64], path[4096], draft[4200], final[4200], buffer[65536];
    ssize_t length;

    if (!in || !is_watched(fd, path, sizeof path)) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fstat(fd, &facts)) fail(path);
    pthread_mutex_lock(&lock);
    snprintf(final, sizeof final, "%s/%c%lu", in, S_ISDIR(facts.st_mode) ? 'd' : 'f', (unsigned long)facts.st_ino);
    snprintf(draft, sizeof draft, "%s/draft", in);
    FILE *out = fopen(draft, "w");
    if (!out) fail(draft);
    if (S_ISDIR(facts.st_mode)) {
        DIR *folder = opendir(path);
        struct dirent *item;
        if (!folder) fail(path);
        while ((item = readdir(folder)))
            if (item->d_name[0] != '.')
                fprintf(out, "%lu %c %s\n", (unsigned long)item->d_ino, item->d_type == DT_DIR ? 'd' : 'f', item->d_name);
        closedir(folder);
    } else {
        int from = open(link, O_RDONLY);
        if (from < 0) fail(path);
        while ((length = read(from, buffer, sizeof buffer)) > 0)
            if (fwrite(buffer, 1, length, out) != (size_t)length) fail(draft);
        close(from);
    }
    if (fclose(out) || rename(draft, final)) fail(final);
    pthread_mutex_unlock(&lock);
}

/* Counts a call; true if it is the one that is to fail. */
static int is_bad(const char *kind, int fd)
{
    static long syncs, reads;
    const char *wish = getenv("UNSYNCED_FAIL");
    char path[4096];
    long nth;

    if (!wish || !is_watched(fd, path, sizeof path)) return 0;
    nth = __atomic_add_fetch(*kind == 's' ? &syncs : &reads, 1, __ATOMIC_SEQ_CST);
    return !strncmp(wish, kind, 4) && atol(wish + 5) == nth;
}

static int synced(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result;
    if (is_bad("sync", fd)) { errno = EIO; return -1; }
    result = real(fd);
    if (!result) keep(fd);
    return result;
}

int fsync(int fd) { return synced("fsync", fd); }
int fdatasync(int fd) { return synced("fdatasync", fd); }

ssize_t pread64(int fd, void *to, size_t count, off64_t at)
{
    static ssize_t (*real)(int, void *, size_t, off64_t);
    if (!real) real = (ssize_t (*)(int, void *, size_t, off64_t))dlsym(RTLD_NEXT, "pread64");
    if (is_bad("read", fd)) { errno = EIO; return -1; }
    return real(fd, to, count, at);
}
ssize_t pread(int fd, void *to, size_t count, off_t at) { return pread64(fd, to, count, at); }
