/* Transfers over connections of which one request in five is broken: at any byte of the answer, by silence, by another
 * answer. Reads into given memory and into that of the pool, and uploads, all verified. A second thread cancels one
 * transport in 50. To be run under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.
 *
 *   hammer-transport TRANSFERS [tls]
 *
 * Prints how many ended in the ordinary way, and how many did not.
 */
#include "check.h"
#include "cover.h"
#include "transport.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 100, PEERS = 6, LARGEST = 40000, HEAD = 400, MS = 1000000 };

static uint8_t pattern[LARGEST + 256];

/* The body of object `number`: its size, and where in the pattern it begins. */
static size_t size_of(unsigned number) { return number % 11 == 0 ? 0 : (number * 2654435761u >> 8) % LARGEST; }
static const uint8_t *body_of(unsigned number) { return pattern + number % 256; }

typedef struct peer {
    int fd;
    cover *cover; /* of TLS; or NULL */
    unsigned seed;
    pthread_t thread;
} peer;

static int send_all(int fd, const uint8_t *data, size_t size)
{
    while (size) {
        const ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        data += sent, size -= (size_t)sent;
    }
    return 1;
}

/* Read a request: which object it is for; -1 at the end. */
static long read_request(peer *it)
{
    static __thread char data[LARGEST + HEAD];
    size_t filled = 0;
    char *end = NULL;
    while (!end) {
        const ssize_t got = recv(it->fd, data + filled, sizeof data - 1 - filled, 0);
        if (got <= 0) return -1;
        filled += (size_t)got;
        data[filled] = 0;
        end = memmem(data, filled, "\r\n\r\n", 4);
    }
    const char *length = strstr(data, "Content-Length: ");
    size_t left = length && length < end ? strtoul(length + 16, NULL, 10) : 0;
    const size_t head = (size_t)(end + 4 - data);
    const long number = strtol(strchr(data, '/') + 1, NULL, 10);
    while (filled - head < left) {
        const ssize_t got = recv(it->fd, data + filled, sizeof data - 1 - filled, 0);
        if (got <= 0) return -1;
        filled += (size_t)got;
    }
    if (left) CHECK_EQUAL(memcmp(data + head, body_of((unsigned)number), left), 0);
    return number;
}

static void *serve(void *argument)
{
    peer *it = argument;
    static __thread uint8_t answer[LARGEST + HEAD];
    long number;
    while ((number = read_request(it)) >= 0) {
        const unsigned fault = (unsigned)rand_r(&it->seed) % 20; /* 0 to 3: one in five */
        const size_t size = size_of((unsigned)number);
        const int head =
            snprintf((char *)answer, HEAD, "HTTP/1.1 %s\r\nETag: \"e\"\r\nX-Pad: %0*d\r\nContent-Length: %zu\r\n\r\n",
                     fault == 0 ? "503 Slow" : "200 OK", 1 + rand_r(&it->seed) % 40, 0, size);
        memcpy(answer + head, body_of((unsigned)number), size);
        const size_t whole = (size_t)head + size;
        if (fault == 1 || fault == 2) { /* cut anywhere */
            send_all(it->fd, answer, (size_t)rand_r(&it->seed) % whole);
            break;
        }
        if (fault == 3) {
            static const char *const odd[] = {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                                              "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 1\n\n.",
                                              "\r\n\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"};
            const char *text = odd[rand_r(&it->seed) % 5];
            if (!send_all(it->fd, (const uint8_t *)text, strlen(text))) break;
            continue;
        }
        const size_t first = (size_t)rand_r(&it->seed) % (whole + 1);
        if (!send_all(it->fd, answer, first) || !send_all(it->fd, answer + first, whole - first)) break;
    }
    shutdown(it->fd, SHUT_RDWR);
    return NULL;
}

static void *cancel_soon(void *transport)
{
    usleep(500);
    apf_transport_cancel(transport);
    return NULL;
}

static unsigned seed = 1, served;
static apf_tls_context *secure; /* or NULL */

static uint32_t connect_peer(apf_transport *transport, int *fd, peer *it, apf_error *err)
{
    int pair[2];
    uint32_t slot;
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    *fd = pair[0];
    *it = (peer){.fd = pair[1], .seed = ++served};
    CHECK_EQUAL(pthread_create(&it->thread, NULL, serve, it), 0);
    apf_tls *session = NULL;
    if (secure) {
        it->cover = cover_begin(secure, pair[0], served % 2);
        session = cover_session(it->cover);
        *fd = cover_fd(it->cover);
    }
    CHECK_OK(apf_transport_attach(transport, *fd, session, rand_r(&seed) % 2, &slot, err), *err);
    return slot;
}

static void end_peer(apf_transport *transport, uint32_t slot, int fd, peer *it)
{
    apf_transport_detach(transport, slot);
    shutdown(fd, SHUT_RDWR);
    if (it->cover)
        cover_end(it->cover);
    else
        close(fd);
    pthread_join(it->thread, NULL);
    close(it->fd);
}

/* An exchange that has ended says the truth about what came. */
static void check_exchange(const apf_exchange *exchange, unsigned number, const uint8_t *out)
{
    const size_t size = size_of(number);
    const uint8_t *data = exchange->out ? out : exchange->buffer ? apf_buffer_data(exchange->buffer) : NULL;
    if (exchange->state == APF_EXCHANGE_DONE) {
        CHECK_EQUAL(exchange->length, size);
        if (!exchange->discard && size) CHECK_EQUAL(memcmp(data, body_of(number), size), 0);
    } else if (exchange->state == APF_EXCHANGE_BROKEN && exchange->status == 200 && exchange->received &&
               !exchange->kept_size) {
        CHECK_EQUAL(memcmp(data, body_of(number), exchange->received), 0);
    } else if (exchange->kept_size) {
        CHECK_EQUAL(memcmp(exchange->kept + exchange->head_size, body_of(number), exchange->kept_size), 0);
    }
}

static void run_batch(unsigned first, int cancelled, unsigned long *done, unsigned long *others)
{
    static uint8_t outs[BATCH][LARGEST];
    static char requests[BATCH][HEAD];
    apf_exchange exchanges[BATCH] = {0};
    for (unsigned i = 0; i < BATCH; i++) {
        const unsigned number = first + i;
        const size_t size = size_of(number);
        apf_exchange *one = &exchanges[i];
        one->discard = i % 4 == 3;
        const int length = snprintf(requests[i], HEAD, "%s /%u HTTP/1.1\r\n", one->discard ? "PUT" : "GET", number);
        snprintf(requests[i] + length, HEAD - (size_t)length, one->discard ? "Content-Length: %zu\r\n\r\n" : "\r\n",
                 size);
        one->request = (const uint8_t *)requests[i];
        one->request_size = strlen(requests[i]);
        if (one->discard) {
            one->content = body_of(number);
            one->content_size = size;
        } else if (i % 4 && size) {
            one->out = outs[i];
            one->out_size = size;
        }
    }
    const apf_transport_options options = {.stall = 20000 * (int64_t)MS, .largest = LARGEST, .mistakes = BATCH};
    apf_transport *transport;
    apf_error err;
    CHECK_OK(apf_transport_new(exchanges, BATCH, &options, &transport, &err), err);
    int fds[PEERS];
    peer peers[PEERS];
    uint32_t slots[PEERS];
    for (int i = 0; i < PEERS; i++) slots[i] = connect_peer(transport, &fds[i], &peers[i], &err);
    pthread_t canceller;
    if (cancelled) CHECK_EQUAL(pthread_create(&canceller, NULL, cancel_soon, transport), 0);
    int found;
    while ((found = apf_transport_run(transport, PEERS, rand_r(&seed) % 3 ? -1 : MS, &err)) < 0)
        for (int i = 0; i < PEERS; i++)
            if (apf_transport_lost(transport, slots[i])) {
                end_peer(transport, slots[i], fds[i], &peers[i]);
                slots[i] = connect_peer(transport, &fds[i], &peers[i], &err);
            }
    CHECK(found == APF_TRANSPORT_ENDED || (cancelled && found == APF_CANCELLED));
    if (cancelled) pthread_join(canceller, NULL);
    for (int i = 0; i < PEERS; i++) end_peer(transport, slots[i], fds[i], &peers[i]);
    for (unsigned i = 0; i < BATCH; i++) {
        if (found == APF_TRANSPORT_ENDED)
            CHECK(exchanges[i].state >= APF_EXCHANGE_DONE && exchanges[i].state <= APF_EXCHANGE_UNFIT);
        check_exchange(&exchanges[i], first + i, outs[i]);
        if (exchanges[i].state == APF_EXCHANGE_DONE)
            ++*done;
        else
            ++*others;
    }
    apf_transport_free(transport);
}

int main(int argc, char **argv)
{
    const unsigned transfers = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 10000;
    unsigned long done = 0, others = 0;
    for (size_t i = 0; i < sizeof pattern; i++) pattern[i] = (uint8_t)(i * 31 + (i >> 8));
    if (argc > 2) secure = cover_context();
    for (unsigned first = 0; first < transfers; first += BATCH)
        run_batch(first, first / BATCH % 50 == 49, &done, &others);
    apf_tls_context_release(secure);
    printf("%lu %lu\n", done, others);
    return 0;
}
