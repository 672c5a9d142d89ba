/* The simulator runs in a separate process, so that a design that crashes does not end this process. */
#include "rtl.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FIRST = 10,   /* descriptors from this number on do not collide with those that the simulator expects: 3, 4 and 5 */
    LOOK_MS = 20, /* between two checks whether a run is cancelled */
    GRACE_MS = 2000,  /* time for a cancelled run to end before its process is killed */
    READY_MS = 30000, /* time for a simulator to start and to reset the design */
    MESSAGE = 400,    /* bytes of its output in an error */
};

static int duplicate(int file) { return fcntl(file, F_DUPFD_CLOEXEC, FIRST); }

static int spawn(rtl_process *process, const char *path, const rtl_settings *settings, int socket, int arena, int log)
{
    char *arguments[RTL_OPTIONS + 2] = {"simulator"};
    int count = 1;
    for (int i = 0; i < RTL_OPTIONS; i++)
        if (settings->values[i]) arguments[count++] = settings->values[i];
    char *environment[] = {NULL}; /* a design must not see this process's environment */
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, usual;
    sigemptyset(&none);
    sigfillset(&usual);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, log, 1);
    posix_spawn_file_actions_adddup2(&actions, log, 2);
    posix_spawn_file_actions_adddup2(&actions, socket, 3);
    posix_spawn_file_actions_adddup2(&actions, arena, 4);
    posix_spawn_file_actions_adddup2(&actions, log, 5);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &usual);
    posix_spawnattr_setpgroup(&attributes, 0); /* this process handles the terminal's Ctrl-C */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    pid_t pid;
    const int failure = posix_spawn(&pid, path, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    if (!failure) process->pid = pid;
    return failure;
}

/* The last lines that the simulator printed, for an error. */
static void last_words(const rtl_process *process, char *text, size_t size)
{
    text[0] = '\0';
    const off_t end = lseek(process->log, 0, SEEK_END);
    if (end <= 0) return;
    const off_t from = end > (off_t)size - 1 ? end - (off_t)size + 1 : 0;
    const ssize_t got = pread(process->log, text, size - 1, from);
    text[got > 0 ? got : 0] = '\0';
    for (char *at = text; *at; at++)
        if ((unsigned char)*at < ' ') *at = at[1] ? '|' : '\0';
}

/* The process has ended or does not answer: reap it and report what is known. */
static int died(rtl_process *process, int code, apf_error *err)
{
    char words[MESSAGE], how[64] = "ended";
    int status = 0;
    last_words(process, words, sizeof words);
    if (process->pid && waitpid(process->pid, &status, WNOHANG) == process->pid) {
        process->pid = 0;
        if (WIFSIGNALED(status))
            snprintf(how, sizeof how, "was ended by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else
            snprintf(how, sizeof how, "ended with status %d", WEXITSTATUS(status));
    }
    rtl_process_end(process);
    return apf_fail(err, code, 0, "the simulator %s%s%s", how, words[0] ? "; it printed: " : "", words);
}

static ssize_t receive(rtl_process *process, char *answer, size_t size, int milliseconds)
{
    struct pollfd poller = {.fd = process->socket, .events = POLLIN};
    const int ready = poll(&poller, 1, milliseconds);
    if (ready == 0 || (ready < 0 && errno == EINTR)) return -1;
    const ssize_t got = ready < 0 ? 0 : recv(process->socket, answer, size - 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return -1;
    answer[got > 0 ? got : 0] = '\0';
    return got > 0 ? got : 0;
}

static void close_all(const int *files, int count)
{
    for (int i = 0; i < count; i++)
        if (files[i] >= 0) close(files[i]);
}

int rtl_process_start(rtl_process *process, const char *path, const rtl_settings *settings, const emu_arena *arena,
                      apf_error *err)
{
    *process = (rtl_process){.socket = -1, .log = -1};
    int pair[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return apf_fail(err, APF_NO_MEMORY, errno, "no socket for a simulator");
    process->socket = pair[0];
    process->log = memfd_create("apyfal-rtl-log", MFD_CLOEXEC);
    const int files[] = {duplicate(pair[1]), duplicate(emu_arena_file(arena)),
                         process->log < 0 ? -1 : duplicate(process->log)};
    int failure = files[0] < 0 || files[1] < 0 || files[2] < 0 ? EMFILE : 0;
    if (!failure) failure = spawn(process, path, settings, files[0], files[1], files[2]);
    close_all(files, 3);
    close(pair[1]);
    if (failure) {
        rtl_process_end(process);
        return apf_fail(err, APF_PROGRAM, failure, "the simulator %s cannot be started", path);
    }
    char answer[64];
    for (int waited = 0; waited < READY_MS; waited += LOOK_MS) {
        const ssize_t got = receive(process, answer, sizeof answer, LOOK_MS);
        if (got > 0) return APF_OK;
        if (got == 0) {
            usleep(LOOK_MS * 1000); /* the exit status is available shortly after the socket closes */
            return died(process, APF_PROGRAM, err);
        }
    }
    rtl_process_end(process);
    return apf_fail(err, APF_PROGRAM, 0, "the simulator %s was not ready after %d s", path, READY_MS / 1000);
}

int rtl_process_ask(rtl_process *process, const char *request, char *answer, size_t size, const emu_arena *arena,
                    const volatile int *cancelled, apf_error *err)
{
    uint32_t *stop = (uint32_t *)(void *)emu_arena_data(arena);
    __atomic_store_n(stop, 0, __ATOMIC_RELAXED);
    if (send(process->socket, request, strlen(request), MSG_NOSIGNAL) < 0) {
        usleep(LOOK_MS * 1000);
        return died(process, APF_KERNEL, err);
    }
    int stopping = 0;
    for (;;) {
        const ssize_t got = receive(process, answer, size, LOOK_MS);
        if (got > 0) return APF_OK;
        if (got == 0) {
            usleep(LOOK_MS * 1000);
            return died(process, APF_KERNEL, err);
        }
        if (!__atomic_load_n(cancelled, __ATOMIC_RELAXED)) continue;
        __atomic_store_n(stop, 1, __ATOMIC_RELAXED);
        if ((stopping += LOOK_MS) < GRACE_MS) continue;
        rtl_process_end(process); /* a loop inside one evaluation of the design never checks for cancellation */
        return apf_fail(err, APF_CANCELLED, 0, "the simulator did not end the run, and was killed");
    }
}

void rtl_process_end(rtl_process *process)
{
    if (process->socket >= 0) close(process->socket);
    process->socket = -1;
    if (process->pid) {
        /* An idle process ends when its socket closes, and writes its trace; a busy one is killed. */
        int status;
        for (int waited = 0; waited < GRACE_MS; waited += LOOK_MS) {
            if (waitpid(process->pid, &status, WNOHANG)) {
                process->pid = 0;
                break;
            }
            usleep(waited ? LOOK_MS * 1000 : 1000);
        }
        if (process->pid) {
            kill(process->pid, SIGKILL);
            while (waitpid(process->pid, &status, 0) < 0 && errno == EINTR) continue;
        }
        process->pid = 0;
    }
    if (process->log >= 0) close(process->log);
    process->log = -1;
}
