/* XRT reports the reason for a failed call only in its log. The log goes to a file in memory, which is read after a
 * failure.
 *
 * Format of a line in XRT's log files: "[date] [tag] Tid: <pthread_self()>,  LEVEL: text".
 */
#include "api.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAIL (16u << 10) /* bytes at the log's end that are searched */
#define KEPT (1u << 20)  /* the memory of older parts is freed */

static int log_fd = -1; /* set once, under the lock of xrt_load */
static _Thread_local off_t taken;

static off_t log_size(void)
{
    struct stat status;
    return fstat(log_fd, &status) == 0 ? status.st_size : 0;
}

void xrt_log_capture(xrt_api *api)
{
    int fd = memfd_create("apyfal-xrt-log", MFD_CLOEXEC);
    if (fd < 0) return;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (api->IniStringSet("Runtime.runtime_log", path) != 0) { /* XRT was in use before: keep its log unchanged */
        close(fd);
        return;
    }
    /* XRT opens its log at the first message. Provoke one now, while the path is certainly this driver's. */
    api->BOFree(NULL);
    log_fd = fd;
    char head[256];
    ssize_t size = pread(fd, head, sizeof head - 1, 0);
    head[size > 0 ? size : 0] = '\0';
    const char *version = strstr(head, "XRT build version: ");
    if (version) sscanf(version + strlen("XRT build version: "), "%31[^\n]", api->version);
    taken = log_size();
}

/* Append the message in [line, end) to the text. */
static size_t append(char *text, size_t used, size_t size, const char *line, const char *end)
{
    if (used && used + 2 < size) {
        memcpy(text + used, "; ", 2);
        used += 2;
    }
    for (; line < end && used + 1 < size; line++) text[used++] = *line;
    text[used] = '\0';
    return used;
}

int xrt_log_take(char *text, size_t size)
{
    char tail[TAIL + 1];
    if (log_fd < 0) return 0;
    const off_t end = log_size();
    const off_t from = taken > end - (off_t)TAIL ? taken : end - (off_t)TAIL;
    const ssize_t length = pread(log_fd, tail, TAIL, from > 0 ? from : 0);
    taken = end;
    if (end > (off_t)KEPT)
        (void)fallocate(log_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (end - (off_t)TAIL) & ~(off_t)4095);
    if (length <= 0) return 0;
    tail[length] = '\0';
    char mine[48];
    snprintf(mine, sizeof mine, "Tid: %lu,", (unsigned long)pthread_self());
    size_t used = 0;
    for (char *line = tail; *line;) {
        char *next = strchr(line, '\n');
        if (!next) next = line + strlen(line);
        const char saved = *next;
        *next = '\0';
        const char *message = strstr(line, mine) ? strstr(line, "ERROR: ") : NULL;
        if (message) used = append(text, used, size, message + strlen("ERROR: "), next);
        if (!saved) break;
        line = next + 1;
    }
    return used > 0;
}
