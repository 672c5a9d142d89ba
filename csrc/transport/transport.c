/* The loop: one epoll over all connections of a transport. */
#include "transport.h"
#include "runtime/clock.h"
#include "transport/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    MILLISECOND = 1000000,
    NONE = UINT32_MAX, /* the end of a list of exchanges */
    NOT_FOUND = 404,
};

struct apf_transport {
    apf_exchange *exchanges;
    size_t count;
    size_t next;    /* the first that has not been begun */
    uint32_t again; /* list of those that wait for another connection */
    apf_transport_options options;
    int poll, wake; /* descriptors of epoll and of the event that cancels */
    int claimed;    /* changed atomically */
    int cancelled;  /* changed atomically */
    uint64_t done, mistakes;
    size_t likely;         /* bytes of the last head */
    uint32_t used, active; /* slots that have a connection; those with an exchange */
    int64_t left;          /* when `run` returned last */
    int64_t looked;        /* when stalls were looked for last */
    apf_connection *connections[APF_TRANSPORT_CONNECTIONS];
};

int apf_transport_new(apf_exchange *exchanges, size_t count, const apf_transport_options *options,
                      apf_transport **transport, apf_error *err)
{
    *transport = NULL;
    if (count >= NONE) return apf_fail(err, APF_INVALID, 0, "%zu exchanges at once; expected fewer", count);
    apf_transport *made = apf_calloc(1, sizeof *made);
    if (!made) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a transport");
    made->exchanges = exchanges;
    made->count = count;
    made->again = NONE;
    made->options = *options;
    made->left = made->looked = apf_now();
    made->poll = epoll_create1(EPOLL_CLOEXEC);
    made->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (made->poll < 0 || made->wake < 0 || epoll_ctl(made->poll, EPOLL_CTL_ADD, made->wake, &event)) {
        const int why = errno;
        apf_transport_free(made);
        return apf_fail(err, APF_IO, why, "cannot wait for sockets");
    }
    *transport = made;
    return APF_OK;
}

/* The connection is no longer used: give its TLS session free. */
static void let_go(apf_connection *connection)
{
    if (connection && connection->secure) apf_tls_unclaim(connection->secure);
    if (connection) connection->secure = NULL;
}

void apf_transport_free(apf_transport *transport)
{
    if (!transport) return;
    if (transport->poll >= 0) close(transport->poll);
    if (transport->wake >= 0) close(transport->wake);
    for (uint32_t slot = 0; slot < APF_TRANSPORT_CONNECTIONS; slot++) {
        let_go(transport->connections[slot]);
        apf_free(transport->connections[slot]);
    }
    for (size_t i = 0; i < transport->count; i++) {
        apf_free(transport->exchanges[i].kept);
        transport->exchanges[i].kept = NULL;
        apf_buffer_release(transport->exchanges[i].buffer);
        transport->exchanges[i].buffer = NULL;
    }
    apf_free(transport);
}

int apf_transport_claim(apf_transport *transport)
{
    return __atomic_exchange_n(&transport->claimed, 1, __ATOMIC_ACQUIRE) ? APF_BUSY : APF_OK;
}

void apf_transport_unclaim(apf_transport *transport) { __atomic_store_n(&transport->claimed, 0, __ATOMIC_RELEASE); }

int apf_transport_attach(apf_transport *transport, int fd, apf_tls *secure, int kept, uint32_t *slot, apf_error *err)
{
    uint32_t free = 0;
    while (free < APF_TRANSPORT_CONNECTIONS && transport->connections[free] &&
           transport->connections[free]->state != LOST)
        free++;
    if (free == APF_TRANSPORT_CONNECTIONS)
        return apf_fail(err, APF_INVALID, 0, "more than %d connections", APF_TRANSPORT_CONNECTIONS);
    apf_connection *connection = transport->connections[free];
    if (!connection) {
        connection = transport->connections[free] = apf_calloc(1, sizeof *connection);
        if (!connection) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a connection");
    }
    if (secure && apf_tls_claim(secure)) return apf_fail(err, APF_BUSY, 0, "the TLS session is in use");
    *connection = (apf_connection){.fd = fd, .secure = secure, .state = LOST, .kept = kept != 0};
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(transport->poll, EPOLL_CTL_ADD, fd, &event)) {
        const int why = errno;
        let_go(connection);
        return apf_fail(err, APF_IO, why, "cannot wait for a socket");
    }
    connection->state = IDLE;
    transport->used++;
    *slot = free;
    return APF_OK;
}

void apf_transport_cancel(apf_transport *transport)
{
    const uint64_t one = 1;
    __atomic_store_n(&transport->cancelled, 1, __ATOMIC_RELEASE);
    if (write(transport->wake, &one, sizeof one) < 0) return; /* full: it is awake */
}

int apf_transport_lost(const apf_transport *transport, uint32_t slot)
{
    return slot >= APF_TRANSPORT_CONNECTIONS || !transport->connections[slot] ||
           transport->connections[slot]->state == LOST;
}

int apf_transport_usable(const apf_transport *transport, uint32_t slot)
{
    return !apf_transport_lost(transport, slot) && transport->connections[slot]->state == IDLE;
}

int apf_transport_detach(apf_transport *transport, uint32_t slot)
{
    if (slot >= APF_TRANSPORT_CONNECTIONS || !transport->connections[slot]) return 0;
    apf_connection *connection = transport->connections[slot];
    const int usable = connection->state == IDLE;
    if (connection->state != LOST) {
        epoll_ctl(transport->poll, EPOLL_CTL_DEL, connection->fd, NULL);
        transport->used--;
        if (connection->exchange) transport->active--;
    }
    connection->state = LOST;
    connection->exchange = NULL;
    let_go(connection);
    return usable;
}

/* Whether there is an exchange that may be begun. */
static int has_waiting(const apf_transport *transport)
{
    if (transport->mistakes > transport->options.mistakes + transport->done / 2) return 0;
    return transport->again != NONE || transport->next < transport->count;
}

static apf_exchange *take_waiting(apf_transport *transport)
{
    if (transport->again == NONE) return &transport->exchanges[transport->next++];
    apf_exchange *exchange = &transport->exchanges[transport->again];
    transport->again = exchange->next;
    return exchange;
}

static void watch(apf_transport *transport, apf_connection *connection)
{
    if (connection->state == LOST) {
        epoll_ctl(transport->poll, EPOLL_CTL_DEL, connection->fd, NULL);
        transport->used--;
        let_go(connection);
    } else if (connection->blocked != connection->watched) {
        struct epoll_event event = {.events = EPOLLIN | (connection->blocked ? EPOLLOUT : 0u), .data.ptr = connection};
        epoll_ctl(transport->poll, EPOLL_CTL_MOD, connection->fd, &event);
        connection->watched = connection->blocked;
    }
}

static void count_end(apf_transport *transport, const apf_exchange *exchange)
{
    transport->active--;
    if (exchange->state == APF_EXCHANGE_DONE)
        transport->done++;
    else if (exchange->state != APF_EXCHANGE_ANSWERED || exchange->status != NOT_FOUND)
        transport->mistakes++;
}

/* Go on with a connection as far as possible: exchange after exchange. */
static void serve(apf_transport *transport, apf_connection *connection, int64_t now)
{
    for (;;) {
        if (connection->state == IDLE) {
            if (!has_waiting(transport)) break;
            apf_connection_begin(connection, take_waiting(transport), now);
            transport->active++;
        }
        apf_exchange *exchange = connection->exchange;
        const apf_progress found =
            apf_connection_advance(connection, transport->options.largest, &transport->likely, now);
        if (found == APF_PROGRESS_WAIT) break;
        if (found == APF_PROGRESS_AGAIN) {
            transport->active--;
            exchange->next = transport->again;
            transport->again = (uint32_t)(exchange - transport->exchanges);
        } else {
            count_end(transport, exchange);
        }
        if (connection->state == LOST) break;
    }
    watch(transport, connection);
}

/* Nobody asked an idle connection: it was closed, or says something that belongs to no request. */
static void lose(apf_transport *transport, apf_connection *connection)
{
    if (connection->secure && apf_tls_quiet(connection->secure)) return; /* it was TLS itself: a ticket, other keys */
    connection->state = LOST;
    watch(transport, connection);
}

static void look_for_stalls(apf_transport *transport, int64_t now)
{
    transport->looked = now;
    for (uint32_t slot = 0; slot < APF_TRANSPORT_CONNECTIONS; slot++) {
        apf_connection *connection = transport->connections[slot];
        if (!connection || !connection->exchange) continue;
        const apf_exchange *exchange = connection->exchange;
        if (!apf_connection_stalled(connection, transport->options.stall, now)) continue;
        count_end(transport, exchange);
        watch(transport, connection);
    }
}

/* Begin on all idle connections. The time that passed outside of `run` is not counted as a stall of the others; that
 * inside is, over any number of calls, however short each is. */
static void resume(apf_transport *transport, int64_t now)
{
    const int64_t outside = now - transport->left;
    for (uint32_t slot = 0; slot < APF_TRANSPORT_CONNECTIONS; slot++) {
        apf_connection *connection = transport->connections[slot];
        if (!connection) continue;
        if (connection->exchange) {
            connection->since += outside;
            connection->moved_at += outside;
        } else if (connection->state == IDLE) {
            serve(transport, connection, now);
        }
    }
    transport->looked += outside;
}

static int run(apf_transport *transport, uint32_t connections, int64_t pause, apf_error *err)
{
    enum { EVENTS = 32 };
    struct epoll_event events[EVENTS];
    int64_t now = apf_now();
    const int64_t until = pause < 0 ? INT64_MAX : now + pause;
    int64_t step = transport->options.stall / 8;
    if (step > 1000 * (int64_t)MILLISECOND) step = 1000 * (int64_t)MILLISECOND;
    if (!__atomic_load_n(&transport->cancelled, __ATOMIC_ACQUIRE)) resume(transport, now);
    for (;;) {
        if (__atomic_load_n(&transport->cancelled, __ATOMIC_ACQUIRE))
            return apf_fail(err, APF_CANCELLED, 0, "the transfer was cancelled");
        const int waiting = has_waiting(transport);
        if (waiting && transport->used < connections) return APF_TRANSPORT_FEWER;
        if (!transport->active) return APF_TRANSPORT_ENDED;
        if (now >= until) return APF_TRANSPORT_PAUSED;
        int64_t wait = transport->looked + step - now;
        if (wait > until - now) wait = until - now;
        const int found =
            epoll_wait(transport->poll, events, EVENTS, wait <= 0 ? 0 : (int)((wait + MILLISECOND - 1) / MILLISECOND));
        if (found < 0 && errno != EINTR) return apf_fail(err, APF_IO, errno, "cannot wait for sockets");
        now = apf_now();
        if (found < 0 && pause >= 0) return APF_TRANSPORT_PAUSED; /* a signal, which the caller may want to see */
        for (int i = 0; i < found; i++) {
            apf_connection *connection = events[i].data.ptr;
            if (!connection || connection->state == LOST) continue;
            if (connection->state == IDLE)
                lose(transport, connection);
            else
                serve(transport, connection, now);
        }
        if (now - transport->looked >= step) look_for_stalls(transport, now);
    }
}

int apf_transport_run(apf_transport *transport, uint32_t connections, int64_t pause, apf_error *err)
{
    const int found = run(transport, connections, pause, err);
    transport->left = apf_now();
    return found;
}
