/* Sessions of TLS: what a send waits for, and who closes the socket. */
#include "check.h"
#include "cover.h"

#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MS = 1000 * 1000 };

/* Receive bytes at the session, waiting for them. */
static void receive_all(apf_tls *session, size_t size)
{
    uint8_t data[16];
    while (size) {
        const ssize_t got = apf_tls_receive(session, data, size);
        CHECK(got > 0 || got == APF_TLS_WAIT);
        if (got > 0)
            size -= (size_t)got;
        else
            apf_tls_poll(session, 20000 * (int64_t)MS);
    }
}

/* Whatever came meanwhile; also after a change of keys that has to be answered. */
static void a_send_waits_for_room_alone(void)
{
    if (!cover_possible()) return;
    static uint8_t data[30000];
    static char behind[60000];
    for (int changes = 0; changes < 2; changes++) {
        int pair[2];
        CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        apf_tls_context *context = cover_context();
        cover *it = cover_begin(context, pair[0], 0);
        apf_tls *session = cover_session(it);
        for (int i = 0; changes && i < 3; i++) { /* the cover asks for other keys with the third */
            CHECK_EQUAL(write(pair[1], "x", 1), 1);
            receive_all(session, 1);
        }
        CHECK_EQUAL(write(pair[1], "early", 5), 5);
        size_t sent = 0, arrived = 0;
        for (int turns = 0;; turns++) {
            CHECK(turns < 1000); /* it is ready again and again, and takes nothing */
            const ssize_t taken = apf_tls_held(session) ? 0 : apf_tls_send(session, data, sizeof data, 0);
            CHECK(taken >= 0 || taken == APF_TLS_WAIT);
            if (taken > 0) sent += (size_t)taken;
            if (apf_tls_flush(session) == APF_TLS_WAIT && !apf_tls_poll(session, 200 * (int64_t)MS)) break;
        }
        CHECK(apf_tls_held(session));
        while (arrived < sent) {
            const ssize_t got = recv(pair[1], behind, sizeof behind, MSG_DONTWAIT);
            CHECK(got);
            if (got > 0) arrived += (size_t)got;
            const int flushed = apf_tls_flush(session);
            CHECK(flushed == 1 || flushed == APF_TLS_WAIT);
            if (got < 0 && flushed != 1)
                CHECK_EQUAL(apf_tls_poll(session, 20000 * (int64_t)MS), 1);
            else if (got < 0)
                usleep(1000);
        }
        CHECK_EQUAL(arrived, sent);
        receive_all(session, 5);
        close(pair[1]);
        cover_end(it);
        apf_tls_context_release(context);
    }
}

static apf_tls *plain_session(apf_tls_context *context, int pair[2])
{
    apf_tls *made;
    apf_error err;
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    CHECK_OK(apf_tls_new(context, pair[0], "127.0.0.1", 443, &made, &err), err);
    return made;
}

static void end_session(apf_tls *session, const int pair[2])
{
    apf_tls_free(session);
    close(pair[0]);
    close(pair[1]);
}

static void the_last_one_at_a_session_closes_its_socket(void)
{
    if (!cover_possible()) return;
    apf_tls_context *context = cover_context();
    for (int held = 0; held < 2; held++) {
        int pair[2];
        char byte;
        apf_tls *session = plain_session(context, pair);
        CHECK_EQUAL(apf_tls_take_socket(session), 0);
        CHECK_EQUAL(apf_tls_claim(session), APF_OK);
        CHECK_EQUAL(apf_tls_claim(session), APF_BUSY);
        if (!held) apf_tls_unclaim(session);
        CHECK_EQUAL(apf_tls_take_socket(session), 0);
        CHECK_EQUAL(apf_tls_closed(session), 0);
        apf_tls_close(session);
        CHECK_EQUAL(apf_tls_closed(session), 1);
        if (held) {
            CHECK_EQUAL(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0); /* it is cut */
            CHECK_EQUAL(apf_tls_take_socket(session), 0);
            apf_tls_unclaim(session);
        }
        CHECK_EQUAL(apf_tls_take_socket(session), 1);
        CHECK_EQUAL(apf_tls_take_socket(session), 0);
        apf_tls_close(session);
        CHECK_EQUAL(apf_tls_take_socket(session), 0);
        CHECK_EQUAL(apf_tls_claim(session), APF_BUSY);
        end_session(session, pair);
    }
    apf_tls_context_release(context);
}

static int taken; /* changed atomically */

static void *use_it(void *session)
{
    while (!apf_tls_closed(session)) {
        if (apf_tls_claim(session)) continue;
        apf_tls_unclaim(session);
        __atomic_fetch_add(&taken, apf_tls_take_socket(session), __ATOMIC_RELAXED);
    }
    return NULL;
}

static void *close_it(void *session)
{
    apf_tls_close(session);
    __atomic_fetch_add(&taken, apf_tls_take_socket(session), __ATOMIC_RELAXED);
    return NULL;
}

static void one_of_many_threads_closes_the_socket(void)
{
    if (!cover_possible()) return;
    apf_tls_context *context = cover_context();
    for (int round = 0; round < 200; round++) {
        int pair[2];
        apf_tls *session = plain_session(context, pair);
        pthread_t threads[4];
        taken = 0;
        for (int i = 0; i < 4; i++)
            CHECK_EQUAL(pthread_create(&threads[i], NULL, i < 2 ? use_it : close_it, session), 0);
        for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
        CHECK_EQUAL(taken, 1);
        end_session(session, pair);
    }
    apf_tls_context_release(context);
}

const check_test tests_tls[] = {
    TEST(a_send_waits_for_room_alone),
    TEST(the_last_one_at_a_session_closes_its_socket),
    TEST(one_of_many_threads_closes_the_socket),
    {NULL, NULL},
};
