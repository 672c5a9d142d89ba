/* Peers that answer from a script, each in a thread. */
#include "peer.h"
#include "check.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

int send_all(int fd, const void *from, size_t size)
{
    const char *data = from;
    while (size) {
        const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        data += sent, size -= (size_t)sent;
    }
    return 1;
}

/* Read one request: its head, and as much content as it states. */
static int read_request(peer *it)
{
    char data[4096];
    size_t filled = 0;
    const char *end = NULL;
    while (!end) {
        const ssize_t got = recv(it->fd, data + filled, sizeof data - 1 - filled, 0);
        if (got <= 0) return 0;
        filled += (size_t)got;
        data[filled] = 0;
        end = strstr(data, "\r\n\r\n");
    }
    const char *length = strstr(data, "Content-Length: ");
    size_t left = length ? strtoul(length + 16, NULL, 10) : 0;
    it->content = left;
    const size_t there = filled - (size_t)(end + 4 - data);
    for (left -= there < left ? there : left; left;) {
        const ssize_t got = recv(it->fd, data, left < sizeof data ? left : sizeof data, 0);
        if (got <= 0) return 0;
        left -= (size_t)got;
    }
    it->requests++;
    return 1;
}

static void *answer_all(void *argument)
{
    peer *it = argument;
    for (size_t i = 0; i < it->count; i++) {
        const step *one = &it->steps[i];
        if (!one->unread && !read_request(it)) break;
        const char *text = one->answer ? one->answer : "";
        const size_t size = one->size ? one->size : strlen(text), first = one->split ? one->split : size;
        if (!send_all(it->fd, text, first)) break;
        if (one->later) usleep((useconds_t)one->later * 1000);
        if (first < size && !send_all(it->fd, text + first, size - first)) break;
        if (one->then == CLOSE) break;
        if (one->then == HANG) {
            struct pollfd waiting = {.fd = it->fd, .events = 0};
            poll(&waiting, 1, 60000);
            break;
        }
    }
    shutdown(it->fd, SHUT_RDWR);
    return NULL;
}

static apf_tls_context *secure; /* NULL: no TLS */

int begin_tls(void)
{
    if (cover_possible()) secure = cover_context();
    return secure != NULL;
}

void end_tls(void)
{
    apf_tls_context_release(secure);
    secure = NULL;
}

void open_world(world *it, apf_exchange *exchanges, size_t count, int64_t stall)
{
    memset(it, 0, sizeof *it);
    const apf_transport_options options = {.stall = stall, .largest = 1 << 20, .mistakes = 100};
    CHECK_OK(apf_transport_new(exchanges, count, &options, &it->transport, &it->err), it->err);
}

void add_peer(world *it, const step *steps, size_t count, int kept)
{
    int pair[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    const size_t at = it->peers++;
    it->fd[at] = pair[0];
    it->cover[at] = secure ? cover_begin(secure, pair[0], at % 2) : NULL;
    it->peer[at] = (peer){.fd = pair[1], .steps = steps, .count = count};
    CHECK_EQUAL(pthread_create(&it->peer[at].thread, NULL, answer_all, &it->peer[at]), 0);
    apf_tls *session = it->cover[at] ? cover_session(it->cover[at]) : NULL;
    const int fd = session ? cover_fd(it->cover[at]) : pair[0];
    CHECK_OK(apf_transport_attach(it->transport, fd, session, kept, &it->slot[at], &it->err), it->err);
}

void close_world(world *it)
{
    apf_transport_free(it->transport);
    for (size_t i = 0; i < it->peers; i++) {
        if (it->cover[i])
            cover_end(it->cover[i]);
        else
            close(it->fd[i]);
        pthread_join(it->peer[i].thread, NULL);
        close(it->peer[i].fd);
    }
}

static const char request[] = "GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n";

apf_exchange get(void *out, size_t size)
{
    return (apf_exchange){
        .request = (const uint8_t *)request, .request_size = sizeof request - 1, .out = out, .out_size = size};
}
