/* What becomes of an answer, and of content that is sent. */
#include "check.h"
#include "peer.h"

/* One request, one answer: the state it ends in. */
static void expect_one(const step *answer, int state, int status, size_t received)
{
    for (int pooled = 0; pooled < 2; pooled++) {
        char out[5] = {0};
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

OVER_TLS(answers_end_in_the_right_state)
OVER_TLS(an_answer_of_another_length_is_unfit)
OVER_TLS(bodies_arrive_whole_whatever_the_heads)
OVER_TLS(uploads_come_from_the_callers_memory)

const check_test tests_answers[] = {
    TEST(answers_end_in_the_right_state),
    TEST(an_answer_of_another_length_is_unfit),
    TEST(bodies_arrive_whole_whatever_the_heads),
    TEST(uploads_come_from_the_callers_memory),
    TEST(answers_end_in_the_right_state_over_tls),
    TEST(an_answer_of_another_length_is_unfit_over_tls),
    TEST(bodies_arrive_whole_whatever_the_heads_over_tls),
    TEST(uploads_come_from_the_callers_memory_over_tls),
    {NULL, NULL},
};
