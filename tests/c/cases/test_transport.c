/* The transport against a peer that answers from a script, over a pair of sockets for each connection. */
#include "check.h"
#include "transport.h"
#include "transport/checksum.h"
#include "transport/head.h"

#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS 1000000
#define ORDINARY "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e\"\r\n\r\nhello"

/* What a peer does with one request: `answer` (of `size` bytes, or a text) in two parts, the second `later` ms after
 * the first `split` bytes; then goes on, or ends. */
typedef struct step {
    const char *answer;
    size_t size, split;
    int later;
    int unread; /* answer without reading the request */
    enum { GO_ON, CLOSE, HANG } then;
} step;

typedef struct peer {
    int fd, quit;
    const step *steps;
    size_t count;
    pthread_t thread;
    size_t requests, content; /* that came; bytes of content of the last */
} peer;

static int send_all(int fd, const char *data, size_t size)
{
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

typedef struct world {
    apf_transport *transport;
    apf_error err;
    size_t peers;
    peer peer[4];
    int fd[4];
    uint32_t slot[4];
} world;

static void open_world(world *it, apf_exchange *exchanges, size_t count, int64_t stall)
{
    memset(it, 0, sizeof *it);
    const apf_transport_options options = {.stall = stall, .largest = 1 << 20, .mistakes = 100};
    CHECK_OK(apf_transport_new(exchanges, count, &options, &it->transport, &it->err), it->err);
}

static void add_peer(world *it, const step *steps, size_t count, int kept)
{
    int pair[2];
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    const size_t at = it->peers++;
    it->fd[at] = pair[0];
    it->peer[at] = (peer){.fd = pair[1], .steps = steps, .count = count};
    CHECK_EQUAL(pthread_create(&it->peer[at].thread, NULL, answer_all, &it->peer[at]), 0);
    CHECK_OK(apf_transport_attach(it->transport, pair[0], NULL, kept, &it->slot[at], &it->err), it->err);
}

static void close_world(world *it)
{
    apf_transport_free(it->transport);
    for (size_t i = 0; i < it->peers; i++) {
        close(it->fd[i]);
        pthread_join(it->peer[i].thread, NULL);
        close(it->peer[i].fd);
    }
}

static const char request[] = "GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n";

static apf_exchange get(void *out, size_t size)
{
    return (apf_exchange){
        .request = (const uint8_t *)request, .request_size = sizeof request - 1, .out = out, .out_size = size};
}

/* One request, one answer: the state it ends in. */
static void expect_one(const step *answer, int state, int status, size_t received)
{
    for (int pooled = 0; pooled < 2; pooled++) {
        char out[5] = "?????";
        apf_exchange exchange = get(pooled ? NULL : out, pooled ? 0 : sizeof out);
        world it;
        open_world(&it, &exchange, 1, (state == APF_EXCHANGE_STALLED ? 200 : 20000) * (int64_t)MS);
        add_peer(&it, answer, 1, 0);
        CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
        CHECK_EQUAL(exchange.state, state);
        CHECK_EQUAL(exchange.status, status);
        if (received != SIZE_MAX) CHECK_EQUAL(exchange.received, received);
        if (state == APF_EXCHANGE_DONE) {
            const void *data = pooled ? apf_buffer_data(exchange.buffer) : out;
            CHECK_EQUAL(memcmp(data, "hello", 5), 0);
        }
        close_world(&it);
    }
}

#define HEAD_200 "HTTP/1.1 200 OK\r\nETag: \"e\"\r\n"

static void answers_end_in_the_right_state(void)
{
    static const struct {
        step answer;
        int state, status;
        size_t received;
    } table[] = {
        {{.answer = ORDINARY}, APF_EXCHANGE_DONE, 200, 5},
        {{.answer = ORDINARY, .split = 20, .later = 5}, APF_EXCHANGE_DONE, 200, 5},
        {{.answer = ORDINARY, .split = sizeof ORDINARY - 3, .later = 5}, APF_EXCHANGE_DONE, 200, 5},
        {{.answer = ORDINARY, .split = sizeof ORDINARY - 6, .later = 5}, APF_EXCHANGE_DONE, 200, 5},
        {{.answer = ORDINARY "and more"}, APF_EXCHANGE_DONE, 200, 5},
        {{.answer = HEAD_200 "Content-Length: 5\r\nX-Amz-Checksum-CRC32C: mnG7TA==\r\n\r\nhello"},
         APF_EXCHANGE_DONE,
         200,
         5},
        {{.answer = HEAD_200 "Content-Length: 5\r\nx-amz-checksum-crc32: NhCmhg==\r\n\r\nhello"},
         APF_EXCHANGE_DONE,
         200,
         5},
        {{.answer = HEAD_200 "Content-Length: 5\r\nx-amz-checksum-crc32: NhCmhw==\r\n\r\nhello"},
         APF_EXCHANGE_ANSWERED,
         200,
         5},
        {{.answer = HEAD_200 "Content-Length: 5\r\nx-amz-checksum-sha1: abc\r\n\r\nhello"},
         APF_EXCHANGE_ANSWERED,
         200,
         5},
        {{.answer = HEAD_200 "Content-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello"},
         APF_EXCHANGE_ANSWERED,
         200,
         5},
        {{.answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"}, APF_EXCHANGE_ANSWERED, 200, 5},
        {{.answer = "HTTP/1.1 200 OK\r\nETag: W/\"e\"\r\nContent-Length: 5\r\n\r\nhello"},
         APF_EXCHANGE_ANSWERED,
         200,
         5},
        {{.answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n<Error />"}, APF_EXCHANGE_ANSWERED, 404, 9},
        {{.answer = "HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"}, APF_EXCHANGE_ANSWERED, 503, 0},
        {{.answer = "HTTP/1.1 206 Partial\r\nContent-Length: 2\r\n\r\nhe"}, APF_EXCHANGE_ANSWERED, 206, 2},
        {{.answer = HEAD_200 "Content-Length: 5\r\n\r\nhel", .then = CLOSE}, APF_EXCHANGE_BROKEN, 200, 3},
        {{.answer = HEAD_200 "Content-Length: 5\r\n\r\n", .then = CLOSE}, APF_EXCHANGE_BROKEN, 200, 0},
        {{.answer = HEAD_200 "Content-Le", .then = CLOSE}, APF_EXCHANGE_BROKEN, 0, 0},
        {{.answer = NULL, .then = CLOSE}, APF_EXCHANGE_BROKEN, 0, 0},
        {{.answer = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n<Err", .then = CLOSE},
         APF_EXCHANGE_BROKEN,
         404,
         4},
        {{.answer = HEAD_200 "Content-Length: 5\r\n\r\nhel", .then = HANG}, APF_EXCHANGE_STALLED, 200, 3},
        {{.answer = HEAD_200, .then = HANG}, APF_EXCHANGE_STALLED, 0, 0},
        {{.answer = NULL, .then = HANG}, APF_EXCHANGE_STALLED, 0, 0},
        {{.answer = HEAD_200 "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"}, APF_EXCHANGE_UNFIT, 0, 0},
        {{.answer = HEAD_200 "\r\nhello", .then = CLOSE}, APF_EXCHANGE_UNFIT, 0, 0},
        {{.answer = HEAD_200 "Content-Length: 2000000\r\n\r\n"}, APF_EXCHANGE_UNFIT, 200, SIZE_MAX},
        {{.answer = "HTTP/1.1 500 No\r\nContent-Length: 2000000\r\n\r\n"}, APF_EXCHANGE_UNFIT, 500, SIZE_MAX},
        {{.answer = "HTTP/1.0 200 OK\r\nETag: \"e\"\r\nContent-Length: 5\r\n\r\nhello"}, APF_EXCHANGE_UNFIT, 0, 0},
        {{.answer = "HTTP/1.1 100 Continue\r\n\r\n" ORDINARY}, APF_EXCHANGE_UNFIT, 0, 0},
        {{.answer = "hello\r\n\r\n"}, APF_EXCHANGE_UNFIT, 0, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        expect_one(&table[i].answer, table[i].state, table[i].status, table[i].received);
    }
}

static void an_answer_of_another_length_is_unfit(void)
{
    char out[4];
    apf_exchange exchange = get(out, sizeof out);
    world it;
    open_world(&it, &exchange, 1, 20000 * (int64_t)MS);
    add_peer(&it, &(step){.answer = ORDINARY}, 1, 0);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
    CHECK_EQUAL(exchange.state, APF_EXCHANGE_UNFIT);
    CHECK_EQUAL(apf_transport_lost(it.transport, it.slot[0]), 1);
    close_world(&it);
}

static void many_requests_share_a_connection(void)
{
    enum { COUNT = 50 };
    static step steps[COUNT];
    apf_exchange exchanges[COUNT];
    char out[COUNT][5];
    for (int i = 0; i < COUNT; i++) {
        steps[i] = (step){.answer = ORDINARY, .split = 1 + (size_t)i};
        exchanges[i] = get(out[i], 5);
    }
    world it;
    open_world(&it, exchanges, COUNT, 10000 * (int64_t)MS);
    add_peer(&it, steps, COUNT, 0);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
    for (int i = 0; i < COUNT; i++) {
        CHECK_EQUAL(exchanges[i].state, APF_EXCHANGE_DONE);
        CHECK_EQUAL(memcmp(out[i], "hello", 5), 0);
    }
    CHECK_EQUAL(apf_transport_usable(it.transport, it.slot[0]), 1);
    close_world(&it);
    CHECK_EQUAL(it.peer[0].requests, COUNT);
}

/* Heads of one size, then of others: what was guessed wrongly is put right. */
static void bodies_arrive_whole_whatever_the_heads(void)
{
    enum { COUNT = 40, SIZE = 40000, ROOM = SIZE + 4096 };
    static char answers[COUNT][ROOM];
    static uint8_t outs[COUNT][SIZE];
    static step steps[COUNT];
    apf_exchange exchanges[COUNT];
    for (int i = 0; i < COUNT; i++) {
        const int padding = (i * 37) % 300, refused = i % 7 == 6;
        const int size = refused ? 1000 : SIZE;
        const int head =
            snprintf(answers[i], ROOM, "HTTP/1.1 %s\r\nETag: \"e\"\r\nContent-Length: %d\r\nX-P: %0*d\r\n\r\n",
                     refused ? "503 Slow" : "200 OK", size, padding + 1, 0);
        for (int j = 0; j < size; j++) answers[i][head + j] = (char)(i + j * 7 + (j >> 8));
        steps[i] = (step){
            .answer = answers[i], .size = (size_t)(head + size), .split = (size_t)(1 + (i * 997) % (head + size))};
        exchanges[i] = get(outs[i], SIZE);
    }
    world it;
    open_world(&it, exchanges, COUNT, 10000 * (int64_t)MS);
    add_peer(&it, steps, COUNT, 0);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
    for (int i = 0; i < COUNT; i++) {
        const int refused = i % 7 == 6;
        CHECK_EQUAL(exchanges[i].state, refused ? APF_EXCHANGE_ANSWERED : APF_EXCHANGE_DONE);
        const uint8_t *body = refused ? exchanges[i].kept + exchanges[i].head_size : outs[i];
        for (int j = 0; j < (refused ? 1000 : SIZE); j++)
            if (body[j] != (uint8_t)(i + j * 7 + (j >> 8))) CHECK_EQUAL(j, -1);
    }
    close_world(&it);
}

static void a_kept_connection_that_closed_is_no_failure(void)
{
    char out[5];
    apf_exchange exchange = get(out, sizeof out);
    world it;
    open_world(&it, &exchange, 1, 20000 * (int64_t)MS);
    add_peer(&it, NULL, 0, 1);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_FEWER);
    CHECK_EQUAL(exchange.state, APF_EXCHANGE_WAITING);
    CHECK_EQUAL(apf_transport_lost(it.transport, it.slot[0]), 1);
    add_peer(&it, &(step){.answer = ORDINARY}, 1, 0);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
    CHECK_EQUAL(exchange.state, APF_EXCHANGE_DONE);
    close_world(&it);
}

static void it_is_repeated_once_only(void)
{
    char out[5];
    apf_exchange exchange = get(out, sizeof out);
    world it;
    open_world(&it, &exchange, 1, 20000 * (int64_t)MS);
    add_peer(&it, NULL, 0, 1);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_FEWER);
    add_peer(&it, NULL, 0, 1);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
    CHECK_EQUAL(exchange.state, APF_EXCHANGE_BROKEN);
    close_world(&it);
}

static void a_store_of_odd_answers_is_soon_left_alone(void)
{
    enum { COUNT = 20 };
    static step steps[COUNT];
    apf_exchange exchanges[COUNT];
    for (int i = 0; i < COUNT; i++) {
        steps[i] = (step){.answer = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"};
        exchanges[i] = get(NULL, 0);
    }
    world it;
    open_world(&it, exchanges, COUNT, 20000 * (int64_t)MS);
    apf_transport_free(it.transport);
    const apf_transport_options options = {.stall = 20000 * (int64_t)MS, .largest = 100, .mistakes = 4};
    CHECK_OK(apf_transport_new(exchanges, COUNT, &options, &it.transport, &it.err), it.err);
    add_peer(&it, steps, COUNT, 0);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
    for (int i = 0; i < COUNT; i++)
        CHECK_EQUAL(exchanges[i].state, i < 5 ? APF_EXCHANGE_ANSWERED : APF_EXCHANGE_WAITING);
    close_world(&it);
}

static const uint8_t *content_of(size_t size)
{
    static uint8_t content[3 << 20];
    for (size_t i = 0; i < size; i++) content[i] = (uint8_t)i;
    return content;
}

static void uploads_come_from_the_callers_memory(void)
{
    enum { SIZE = 3 << 20 };
    static const char put[] = "PUT /b/k HTTP/1.1\r\nContent-Length: 3145728\r\n\r\n";
    static const struct {
        step answer;
        int state, status;
    } table[] = {
        {{.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, APF_EXCHANGE_DONE, 200},
        {{.answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell"}, APF_EXCHANGE_DONE, 200},
        {{.answer = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"}, APF_EXCHANGE_ANSWERED, 403},
        {{.answer = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", .unread = 1, .then = HANG},
         APF_EXCHANGE_ANSWERED,
         403},
        {{.answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", .unread = 1, .then = HANG},
         APF_EXCHANGE_UNFIT,
         200},
        {{.answer = NULL, .unread = 1, .then = CLOSE}, APF_EXCHANGE_BROKEN, 0},
        {{.answer = NULL, .unread = 1, .then = HANG}, APF_EXCHANGE_STALLED, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        apf_exchange exchange = {.request = (const uint8_t *)put,
                                 .request_size = sizeof put - 1,
                                 .content = content_of(SIZE),
                                 .content_size = SIZE,
                                 .discard = 1};
        world it;
        open_world(&it, &exchange, 1, (table[i].state == APF_EXCHANGE_STALLED ? 200 : 20000) * (int64_t)MS);
        add_peer(&it, &table[i].answer, 1, 0);
        CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
        CHECK_EQUAL(exchange.state, table[i].state);
        CHECK_EQUAL(exchange.status, table[i].status);
        if (exchange.state == APF_EXCHANGE_DONE) CHECK_EQUAL(it.peer[0].content, SIZE);
        close_world(&it);
    }
}

static void pauses_hide_no_stall(void)
{
    char out[5];
    apf_exchange exchange = get(out, sizeof out);
    world it;
    open_world(&it, &exchange, 1, 100 * MS);
    add_peer(&it, &(step){.answer = "HTTP/1.1 200 OK\r\n", .then = HANG}, 1, 0);
    int found, pauses = 0;
    while ((found = apf_transport_run(it.transport, 1, 5 * MS, &it.err)) == APF_TRANSPORT_PAUSED) pauses++;
    CHECK_EQUAL(found, APF_TRANSPORT_ENDED);
    CHECK(pauses > 1);
    CHECK_EQUAL(exchange.state, APF_EXCHANGE_STALLED);
    close_world(&it);
}

static void *cancel_soon(void *transport)
{
    usleep(20000);
    apf_transport_cancel(transport);
    return NULL;
}

static void it_ends_at_once_when_cancelled(void)
{
    char out[5];
    apf_exchange exchange = get(out, sizeof out);
    world it;
    open_world(&it, &exchange, 1, 100000 * (int64_t)MS);
    add_peer(&it, &(step){.answer = "HTTP/1.1 200 OK\r\n", .then = HANG}, 1, 0);
    CHECK_EQUAL(apf_transport_run(it.transport, 1, 1 * MS, &it.err), APF_TRANSPORT_PAUSED);
    pthread_t thread;
    CHECK_EQUAL(pthread_create(&thread, NULL, cancel_soon, it.transport), 0);
    CHECK_CODE(apf_transport_run(it.transport, 1, -1, &it.err), APF_CANCELLED, it.err);
    pthread_join(thread, NULL);
    CHECK_CODE(apf_transport_run(it.transport, 1, -1, &it.err), APF_CANCELLED, it.err);
    CHECK_EQUAL(apf_transport_usable(it.transport, it.slot[0]), 0);
    close_world(&it);
}

static void no_memory_leaves_it_to_others(void)
{
    for (int n = 0;; n++) {
        apf_exchange exchange = get(NULL, 0);
        world it = {0};
        const apf_transport_options options = {.stall = 20000 * (int64_t)MS, .largest = 100, .mistakes = 4};
        const uint64_t before = apf_fail_allocation(n);
        const int made = apf_transport_new(&exchange, 1, &options, &it.transport, &it.err);
        if (made == APF_OK) {
            int pair[2];
            CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
            CHECK_EQUAL(send_all(pair[1], ORDINARY, sizeof ORDINARY - 1), 1);
            uint32_t slot;
            if (apf_transport_attach(it.transport, pair[0], NULL, 0, &slot, &it.err) == APF_OK) {
                CHECK_EQUAL(apf_transport_run(it.transport, 1, -1, &it.err), APF_TRANSPORT_ENDED);
                CHECK_EQUAL(exchange.state == APF_EXCHANGE_DONE || exchange.state == APF_EXCHANGE_UNFIT, 1);
            }
            apf_transport_free(it.transport);
            close(pair[0]);
            close(pair[1]);
        } else {
            CHECK_EQUAL(made, APF_NO_MEMORY);
        }
        if (apf_fail_allocation(-1) - before < (uint64_t)n + 1) break;
    }
}

static void heads_are_read_strictly(void)
{
    static const struct {
        const char *text;
        int found;
    } table[] = {
        {"", APF_HEAD_MORE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", APF_HEAD_MORE},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_READ},
        {"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", APF_HEAD_READ},
        {"HTTP/1.1 200 \r\ncontent-length:0\t \r\n\r\n", APF_HEAD_READ},
        {"HTTP/1.1 200 OK\nContent-Length: 0\n\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\rb\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 204 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 01\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1234567890123456\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\n Content-Length: 1\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n folded\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"a\"\r\nETag: \"b\"\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n: x\r\n\r\n", APF_HEAD_ODD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX\r\n\r\n", APF_HEAD_ODD},
    };
    apf_head head;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const size_t size = strlen(table[i].text);
        uint8_t *copy = malloc(size + 1); /* the sanitizer sees a byte too many */
        CHECK(copy);
        memcpy(copy, table[i].text, size);
        if (apf_head_read(copy, size, &head) != table[i].found) {
            fprintf(stderr, "%s\n", table[i].text);
            CHECK_EQUAL(apf_head_read(copy, size, &head), table[i].found);
        }
        free(copy);
    }
    static uint8_t endless[APF_HEAD_LARGEST + 100];
    memset(endless, 'a', sizeof endless);
    memcpy(endless, "HTTP/1.1 200 ", 13);
    CHECK_EQUAL(apf_head_read(endless, 1000, &head), APF_HEAD_MORE);
    CHECK_EQUAL(apf_head_read(endless, sizeof endless, &head), APF_HEAD_ODD);
    static const char closing[] = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\nETag: \"\"\r\n\r\n";
    CHECK_EQUAL(apf_head_read((const uint8_t *)closing, sizeof closing - 1, &head), APF_HEAD_READ);
    CHECK_EQUAL(head.keep, 0);
    CHECK_EQUAL(head.plain, 1);
    CHECK_EQUAL(head.length, 7);
    static const char parts[] = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nx-amz-checksum-crc32: NhCmhg==\r\n"
                                "x-amz-checksum-type: COMPOSITE\r\n\r\n";
    CHECK_EQUAL(apf_head_read((const uint8_t *)parts, sizeof parts - 1, &head), APF_HEAD_READ);
    CHECK_EQUAL(head.sums, 0);
}

/* The check values of the catalogue of parametrised CRC algorithms, also in pieces. */
static void checksums_are_the_known_ones(void)
{
    static const struct {
        apf_sum kind;
        uint64_t value;
    } table[] = {{APF_SUM_CRC64NVME, 0xae8b14860a799888u}, {APF_SUM_CRC32C, 0xe3069283u}, {APF_SUM_CRC32, 0xcbf43926u}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        for (size_t split = 0; split <= 9; split++) {
            const uint64_t first = apf_sum_update(table[i].kind, 0, "123456789", split);
            CHECK(apf_sum_update(table[i].kind, first, "123456789" + split, 9 - split) == table[i].value);
        }
}

const check_test tests_transport[] = {
    TEST(answers_end_in_the_right_state),
    TEST(an_answer_of_another_length_is_unfit),
    TEST(many_requests_share_a_connection),
    TEST(bodies_arrive_whole_whatever_the_heads),
    TEST(a_kept_connection_that_closed_is_no_failure),
    TEST(it_is_repeated_once_only),
    TEST(a_store_of_odd_answers_is_soon_left_alone),
    TEST(uploads_come_from_the_callers_memory),
    TEST(pauses_hide_no_stall),
    TEST(it_ends_at_once_when_cancelled),
    TEST(no_memory_leaves_it_to_others),
    TEST(heads_are_read_strictly),
    TEST(checksums_are_the_known_ones),
    {NULL, NULL},
};
