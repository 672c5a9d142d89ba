/* The loop: connections that are shared, kept, lost, paused and cancelled. */
#include "check.h"
#include "peer.h"

#include <sys/socket.h>
#include <unistd.h>

static void many_requests_share_a_connection(void)
{
    enum { COUNT = 50 };
    static step steps[COUNT];
    apf_exchange exchanges[COUNT];
    char out[COUNT][5];
    for (int i = 0; i < COUNT; i++) {
        steps[i] = (step){.answer = ORDINARY, .split = 1 + (size_t)i, .then = i == COUNT - 1 ? HANG : GO_ON};
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

OVER_TLS(many_requests_share_a_connection)
OVER_TLS(a_kept_connection_that_closed_is_no_failure)
OVER_TLS(it_is_repeated_once_only)
OVER_TLS(a_store_of_odd_answers_is_soon_left_alone)
OVER_TLS(pauses_hide_no_stall)
OVER_TLS(it_ends_at_once_when_cancelled)

const check_test tests_transport[] = {
    TEST(no_memory_leaves_it_to_others),
    TEST(many_requests_share_a_connection),
    TEST(a_kept_connection_that_closed_is_no_failure),
    TEST(it_is_repeated_once_only),
    TEST(a_store_of_odd_answers_is_soon_left_alone),
    TEST(pauses_hide_no_stall),
    TEST(it_ends_at_once_when_cancelled),
    TEST(many_requests_share_a_connection_over_tls),
    TEST(a_kept_connection_that_closed_is_no_failure_over_tls),
    TEST(it_is_repeated_once_only_over_tls),
    TEST(a_store_of_odd_answers_is_soon_left_alone_over_tls),
    TEST(pauses_hide_no_stall_over_tls),
    TEST(it_ends_at_once_when_cancelled_over_tls),
    {NULL, NULL},
};
