/* Host files as buffers, and a copy that survives if a mapped file is truncated. */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

/* -- SIGBUS -- */

/* Touching a page of a mapping past the end of its file raises SIGBUS, and any process may truncate a file that we have
 * mapped. Copies that may touch such a page run under a guard: the handler jumps back into apf_copy of the same thread.
 * Without a guard, the previous handler is called. */

static __thread sigjmp_buf *volatile guard;
static struct sigaction previous;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;

static void on_sigbus(int signal_number, siginfo_t *information, void *context)
{
    if (guard) {
        /* Restore the mask as a return from the handler would: a sanitizer's runtime blocks every signal in its
         * handlers. */
        pthread_sigmask(SIG_SETMASK, &((ucontext_t *)context)->uc_sigmask, NULL);
        siglongjmp(*guard, 1);
    }
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal_number, information, context);
    } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
        previous.sa_handler(signal_number);
    } else {
        signal(SIGBUS, SIG_DFL); /* returning repeats the access, which now ends the process as it should */
    }
}

static void install_handler(void)
{
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous);
}

/* Copy, or set to zero if `from` is NULL. */
static int move(void *to, const void *from, size_t size, apf_error *err)
{
    sigjmp_buf here;
    sigjmp_buf *outer = guard;
    /* 0: the mask need not be saved, since the handler restores it. */
    if (sigsetjmp(here, 0)) {
        guard = outer;
        return apf_fail(err, APF_TRUNCATED, 0, "a mapped file became shorter while %zu bytes of it were copied", size);
    }
    guard = &here;
    if (from)
        memcpy(to, from, size);
    else
        memset(to, 0, size);
    guard = outer;
    return APF_OK;
}

int apf_copy(void *to, const void *from, size_t size, apf_error *err) { return move(to, from, size, err); }

int apf_zero(void *to, size_t size, apf_error *err) { return move(to, NULL, size, err); }

/* -- maps -- */

static int check_range(int fd, uint64_t offset, size_t size, apf_error *err)
{
    struct stat status;
    if (fstat(fd, &status)) return apf_fail(err, APF_IO, errno, "cannot inspect the file to map");
    if (!S_ISREG(status.st_mode)) return apf_fail(err, APF_INVALID, 0, "cannot map: not a regular file");
    if (offset % APF_PAGE)
        return apf_fail(err, APF_MISALIGNED, 0, "cannot map at offset %llu: expected a multiple of %u",
                        (unsigned long long)offset, APF_PAGE);
    uint64_t length = (uint64_t)status.st_size;
    if (!size || offset > length || size > length - offset)
        return apf_fail(err, APF_INVALID, 0, "cannot map bytes %llu to %llu of a file of %llu bytes",
                        (unsigned long long)offset, (unsigned long long)(offset + size), (unsigned long long)length);
    return APF_OK;
}

static int map_error(int sys)
{
    return sys == EACCES || sys == EPERM ? APF_PERMISSION : sys == ENOMEM ? APF_NO_MEMORY : APF_IO;
}

int apf_mapped_file_new(int fd, uint64_t offset, size_t size, int mode, int populate, apf_buffer **buffer,
                        apf_error *err)
{
    int code = check_range(fd, offset, size, err);
    if (code != APF_OK) return code;
    pthread_once(&handler_once, install_handler);

    apf_buffer *made = apf_calloc(1, sizeof *made);
    if (!made) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a buffer object");
    const int protection = mode == APF_MAP_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
    void *data = MAP_FAILED;
    errno = ENOMEM;
    if (!apf_allocation_fails())
        data = mmap(NULL, size, protection, MAP_SHARED | (populate ? MAP_POPULATE : 0), fd, (off_t)offset);
    if (data == MAP_FAILED) {
        int sys = errno;
        apf_free(made);
        return apf_fail(err, map_error(sys), sys, "cannot map %zu bytes of a file", size);
    }
    made->data = data;
    made->size = size;
    made->capacity = (size + APF_PAGE - 1) & ~(size_t)(APF_PAGE - 1);
    made->flags = APF_BUFFER_MAPPED | (mode == APF_MAP_WRITE ? 0 : APF_BUFFER_READONLY);
    made->refs = 1;
    if ((code = apf_registry_add(made, err)) != APF_OK) {
        munmap(data, size);
        apf_free(made);
        return code;
    }
    apf_live_add(mappings, 1);
    apf_live_add(buffers, 1);
    *buffer = made;
    return APF_OK;
}

int apf_mapped_file_flush(apf_buffer *buffer, apf_error *err)
{
    if (!(buffer->flags & APF_BUFFER_MAPPED)) return apf_fail(err, APF_INVALID, 0, "not a mapped file");
    if (msync(buffer->data, buffer->size, MS_SYNC))
        return apf_fail(err, APF_IO, errno, "cannot write a mapped file back");
    return APF_OK;
}
