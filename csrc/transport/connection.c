/* Sends a request from the caller's memory, and receives the body of its answer at its final address. */
#include "transport/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    PIECE = 1 << 20,      /* sent or received at once at most, so that a cancellation is prompt */
    CACHED = 128 << 10,   /* received at once if a CRC follows: it is in the cache still */
    WORTH_A_GUESS = 2048, /* bodies from this size on are received together with their head */
    SLOWEST = 512,        /* bytes a second, as in apyfal.storage.http.connection */
    SECOND = 1000000000,
};

void apf_connection_begin(apf_connection *connection, apf_exchange *exchange, int64_t now)
{
    connection->exchange = exchange;
    connection->state = SENDING;
    connection->sent = connection->filled = connection->moved = 0;
    connection->blocked = connection->gone = 0;
    connection->since = connection->moved_at = now;
    exchange->state = APF_EXCHANGE_ACTIVE;
    exchange->status = 0;
    exchange->length = exchange->received = 0;
}

static void note_moved(apf_connection *connection, size_t count, int64_t now)
{
    connection->moved += count;
    connection->moved_at = now;
}

/* Give an exchange its final state; the connection is idle again, or lost. */
static apf_progress end(apf_connection *connection, int state, int usable)
{
    connection->exchange->state = (uint8_t)state;
    connection->exchange = NULL;
    connection->kept = 1;
    connection->state = usable ? IDLE : LOST;
    return APF_PROGRESS_ENDED;
}

/* Keep the head, and `body` bytes of body that are behind it in `scratch`. */
static int keep(apf_connection *connection, size_t head, size_t body)
{
    apf_exchange *exchange = connection->exchange;
    exchange->kept = apf_calloc(1, head + body + 1);
    if (!exchange->kept) return 0;
    memcpy(exchange->kept, connection->scratch, head + body);
    exchange->head_size = head;
    exchange->kept_size = body;
    return 1;
}

/* Whether the body is being received into the caller's memory, or the pool's. */
static int is_in_place(const apf_connection *connection)
{
    return connection->target && connection->target != connection->scratch + connection->head.size;
}

/* The connection is of no use any more, and the answer not complete. */
static apf_progress broken(apf_connection *connection, int state)
{
    apf_exchange *exchange = connection->exchange;
    if (state == APF_EXCHANGE_BROKEN && connection->kept && !connection->filled && !exchange->status &&
        !exchange->repeated) {
        exchange->state = APF_EXCHANGE_WAITING;
        exchange->repeated = 1;
        connection->exchange = NULL;
        connection->state = LOST;
        return APF_PROGRESS_AGAIN;
    }
    const size_t head = exchange->status ? connection->head.size : 0;
    const size_t body = head && !is_in_place(connection) ? exchange->received : 0;
    if (head && !keep(connection, head, body)) state = APF_EXCHANGE_UNFIT;
    return end(connection, state, 0);
}

static size_t whole(const apf_exchange *exchange) { return exchange->request_size + exchange->content_size; }

/* Whether the whole request has been given to the socket. */
static int is_sent(const apf_connection *connection)
{
    return connection->secure ? connection->gone : connection->sent == whole(connection->exchange);
}

/* The same as below, over TLS: head and content are gathered there. */
static void send_secure(apf_connection *connection, int64_t now)
{
    const apf_exchange *exchange = connection->exchange;
    ssize_t sent = 1;
    connection->blocked = 0;
    const size_t held = apf_tls_held(connection->secure);
    if (held && apf_tls_flush(connection->secure) != 1 && apf_tls_held(connection->secure) < held)
        note_moved(connection, 0, now); /* progress only: the bytes were counted when they were taken */
    while (sent > 0 && connection->sent < whole(exchange)) {
        const uint8_t *from = exchange->request + connection->sent;
        size_t left = exchange->request_size - connection->sent;
        const int head = connection->sent < exchange->request_size;
        if (!head) {
            const size_t done = connection->sent - exchange->request_size;
            from = exchange->content + done;
            left = exchange->content_size - done < PIECE ? exchange->content_size - done : PIECE;
        }
        sent = apf_tls_send(connection->secure, from, left, head && exchange->content_size);
        if (sent <= 0) break;
        note_moved(connection, (size_t)sent, now);
        connection->sent += (size_t)sent;
    }
    if (sent > 0) sent = apf_tls_flush(connection->secure);
    connection->gone = sent > 0;
    if (sent == APF_TLS_WAIT)
        connection->blocked = 1;
    else
        connection->state = HEAD; /* all is sent, or sending failed: a response may have arrived that says why */
}

/* Send what is left of the request, until the socket takes no more. */
static void send_request(apf_connection *connection, int64_t now)
{
    if (connection->secure) {
        send_secure(connection, now);
        return;
    }
    const apf_exchange *exchange = connection->exchange;
    const size_t total = whole(exchange);
    connection->blocked = 0;
    while (connection->sent < total) {
        struct iovec pieces[2];
        size_t count = 0;
        if (connection->sent < exchange->request_size)
            pieces[count++] = (struct iovec){(void *)(uintptr_t)(exchange->request + connection->sent),
                                             exchange->request_size - connection->sent};
        const size_t done = connection->sent > exchange->request_size ? connection->sent - exchange->request_size : 0;
        const size_t left = exchange->content_size - done;
        if (left)
            pieces[count++] =
                (struct iovec){(void *)(uintptr_t)(exchange->content + done), left < PIECE ? left : PIECE};
        const struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
        const ssize_t sent = sendmsg(connection->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN || errno == EWOULDBLOCK)
                connection->blocked = 1;
            else
                connection->state = HEAD; /* the answer may be there, and say why */
            return;
        }
        note_moved(connection, (size_t)sent, now);
        connection->sent += (size_t)sent;
    }
    connection->state = HEAD;
}

static ssize_t receive_secure(apf_connection *connection, struct iovec *pieces, size_t count, int64_t now)
{
    size_t done = 0;
    ssize_t got = 0;
    for (size_t i = 0; i < count; i++) {
        got = apf_tls_receive(connection->secure, pieces[i].iov_base, pieces[i].iov_len);
        if (got > 0) done += (size_t)got;
        if (got < (ssize_t)pieces[i].iov_len) break;
    }
    /* While a request is sent, there is more to send than what is held. */
    if (connection->state != SENDING) connection->blocked = apf_tls_held(connection->secure) != 0;
    if (!done) return got;
    note_moved(connection, done, now);
    return (ssize_t)done;
}

/* Receive up to as many bytes as there is room: how many, 0 at the end, -1 on an error, -2 if there is nothing for now.
 */
static ssize_t receive(apf_connection *connection, struct iovec *pieces, size_t count, int64_t now)
{
    if (connection->secure) return receive_secure(connection, pieces, count, now);
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
    for (;;) {
        const ssize_t got = recvmsg(connection->fd, &message, MSG_DONTWAIT);
        if (got > 0) note_moved(connection, (size_t)got, now);
        if (got >= 0) return got;
        if (errno == EINTR) continue;
        return errno == EAGAIN || errno == EWOULDBLOCK ? -2 : -1;
    }
}

/* Whether epoll tells when there is more than what was received just now, into less room than there was. */
static int is_drained(const apf_connection *connection)
{
    return !connection->secure || apf_tls_drained(connection->secure);
}

static void add_to_sum(apf_connection *connection, size_t from, size_t to)
{
    if (connection->sum != APF_SUM_NONE)
        connection->value = apf_sum_update(connection->sum, connection->value, connection->target + from, to - from);
}

static int sum_agrees(const apf_connection *connection)
{
    const apf_head *head = &connection->head;
    switch (connection->sum) {
    case APF_SUM_CRC64NVME:
        return connection->value == head->crc64nvme;
    case APF_SUM_CRC32C:
        return connection->value == head->crc32c;
    case APF_SUM_CRC32:
        return connection->value == head->crc32;
    default:
        return 1;
    }
}

/* The answer is complete, with `extra` bytes behind it that nobody asked for. */
static apf_progress complete(apf_connection *connection, size_t extra)
{
    apf_exchange *exchange = connection->exchange;
    const int sent = is_sent(connection);
    const int usable =
        connection->head.keep && !extra && sent && (!connection->secure || apf_tls_settled(connection->secure));
    const int ordinary =
        exchange->status == 200 && sent &&
        (exchange->discard || exchange->bodiless || (connection->head.plain && sum_agrees(connection)));
    if (ordinary && (!exchange->keep_head || keep(connection, connection->head.size, 0)))
        return end(connection, APF_EXCHANGE_DONE, usable);
    if (ordinary) return end(connection, APF_EXCHANGE_UNFIT, usable);
    const size_t body = is_in_place(connection) ? 0 : exchange->received;
    const int kept = keep(connection, connection->head.size, body);
    return end(connection, kept ? APF_EXCHANGE_ANSWERED : APF_EXCHANGE_UNFIT, usable);
}

static apf_progress unfit(apf_connection *connection) { return end(connection, APF_EXCHANGE_UNFIT, 0); }

/* The head is complete at the front of `scratch`: decide where the body goes. True if it can be received here. */
static int place_body(apf_connection *connection, uint64_t largest)
{
    apf_exchange *exchange = connection->exchange;
    const apf_head *head = &connection->head;
    exchange->status = (uint16_t)head->status;
    exchange->length = head->length;
    connection->sum = APF_SUM_NONE;
    connection->value = 0;
    if (head->status == 200 && !is_sent(connection)) return 0; /* a success before it has everything */
    if (exchange->bodiless) {
        exchange->length = 0;
        connection->target = connection->scratch + head->size;
        return 1;
    }
    if (head->status != 200 || exchange->discard) {
        connection->target = connection->scratch + head->size;
        return head->length <= APF_HEAD_LARGEST - head->size;
    }
    for (unsigned sum = APF_SUM_CRC64NVME; sum <= APF_SUM_CRC32 && connection->sum == APF_SUM_NONE; sum <<= 1)
        if (head->sums & sum) connection->sum = (apf_sum)sum;
    if (exchange->guessed && head->length != exchange->out_size) exchange->out = NULL;
    connection->target = exchange->out;
    if (exchange->out) return head->length == exchange->out_size;
    if (head->length > largest) return 0;
    if (!head->length) return 1;
    if (apf_buffer_new(head->length, &exchange->buffer, NULL) != APF_OK) return 0;
    connection->target = apf_buffer_data(exchange->buffer);
    return 1;
}

/* Receive the body, of which `exchange->received` bytes are in place. */
static apf_progress receive_body(apf_connection *connection, int64_t now)
{
    apf_exchange *exchange = connection->exchange;
    const size_t most = connection->sum == APF_SUM_NONE ? PIECE : CACHED;
    while (exchange->received < exchange->length) {
        const size_t left = exchange->length - exchange->received;
        struct iovec room = {connection->target + exchange->received, left < most ? left : most};
        const ssize_t got = receive(connection, &room, 1, now);
        if (got == -2) return APF_PROGRESS_WAIT;
        if (got <= 0) return broken(connection, APF_EXCHANGE_BROKEN);
        add_to_sum(connection, exchange->received, exchange->received + (size_t)got);
        exchange->received += (size_t)got;
        if ((size_t)got < room.iov_len && is_drained(connection))
            return exchange->received < exchange->length ? APF_PROGRESS_WAIT : complete(connection, 0);
    }
    return complete(connection, 0);
}

/* The head has been read; `there` bytes behind it are in `scratch`, and `beyond` more lie at the front of `out`. `more`
 * may be in the socket already. */
static apf_progress begin_body(apf_connection *connection, size_t there, size_t beyond, int more, uint64_t largest,
                               int64_t now)
{
    apf_exchange *exchange = connection->exchange;
    const uint8_t *early = exchange->out;
    if (!place_body(connection, largest)) return unfit(connection);
    const uint8_t *front = connection->scratch + connection->head.size;
    const size_t length = exchange->length;
    size_t extra = there + beyond > length ? there + beyond - length : 0;
    if (!is_in_place(connection)) {
        /* `beyond` has been copied behind `front`, if there was room for it. */
        exchange->received = there + beyond - extra;
        if (connection->head.size + exchange->received > APF_HEAD_LARGEST) return unfit(connection);
    } else {
        const size_t first = there < length ? there : length;
        const size_t second = there + beyond - extra - first;
        if (second) memmove(connection->target + first, early, second);
        if (first) memcpy(connection->target, front, first);
        exchange->received = first + second;
    }
    connection->state = BODY;
    if (exchange->received) add_to_sum(connection, 0, exchange->received);
    if (exchange->received == length) return complete(connection, extra);
    return more ? receive_body(connection, now) : APF_PROGRESS_WAIT;
}

/* Receive the head, and what comes with it: as heads of one store are mostly of one size, the body that follows is
 * received at its final address in the same call. */
static apf_progress receive_head(apf_connection *connection, uint64_t largest, size_t *likely, int64_t now)
{
    apf_exchange *exchange = connection->exchange;
    uint8_t *scratch = connection->scratch;
    size_t guess = 0;
    struct iovec pieces[2] = {{scratch + connection->filled, APF_HEAD_LARGEST - connection->filled}, {NULL, 0}};
    if (!connection->filled && *likely && exchange->out && exchange->out_size >= WORTH_A_GUESS && !exchange->discard) {
        guess = *likely;
        pieces[0].iov_len = guess;
        pieces[1] = (struct iovec){exchange->out, exchange->out_size < PIECE ? exchange->out_size : PIECE};
    }
    const ssize_t got = receive(connection, pieces, guess ? 2 : 1, now);
    if (got == -2) return APF_PROGRESS_WAIT;
    if (got <= 0) return broken(connection, APF_EXCHANGE_BROKEN);
    const int more = (size_t)got == pieces[0].iov_len + pieces[1].iov_len || !is_drained(connection);
    size_t beyond = guess && (size_t)got > guess ? (size_t)got - guess : 0;
    connection->filled += (size_t)got - beyond;
    int found = apf_head_read(scratch, connection->filled, &connection->head);
    if (beyond && (found != APF_HEAD_READ || connection->head.status != 200)) {
        /* Not as guessed: put the stream together again. */
        const size_t room = APF_HEAD_LARGEST - connection->filled, joined = beyond < room ? beyond : room;
        memcpy(scratch + connection->filled, exchange->out, joined);
        const size_t filled = connection->filled + joined;
        found = apf_head_read(scratch, filled, &connection->head);
        if (found == APF_HEAD_READ && connection->head.size > connection->filled) {
            const size_t more = connection->head.size - connection->filled; /* of the head, at the front of `out` */
            memmove(exchange->out, exchange->out + more, beyond - more);
            connection->filled = connection->head.size;
            beyond -= more;
        } else if (found == APF_HEAD_MORE) {
            if (joined < beyond) return unfit(connection);
            connection->filled = filled;
            beyond = 0;
        }
    }
    if (found == APF_HEAD_MORE)
        return more && connection->secure ? receive_head(connection, largest, likely, now) : APF_PROGRESS_WAIT;
    if (found == APF_HEAD_ODD) return unfit(connection);
    *likely = connection->head.size;
    return begin_body(connection, connection->filled - connection->head.size, beyond, more, largest, now);
}

apf_progress apf_connection_advance(apf_connection *connection, uint64_t largest, size_t *likely, int64_t now)
{
    if (connection->state == SENDING) {
        send_request(connection, now);
        /* No answer is there yet, unless the peer refused what it has not got: it is looked for then. */
        if (connection->state == HEAD) return APF_PROGRESS_WAIT;
        return receive_head(connection, largest, likely, now);
    }
    if (connection->state == HEAD) return receive_head(connection, largest, likely, now);
    if (connection->state == BODY) return receive_body(connection, now);
    return APF_PROGRESS_WAIT;
}

int apf_connection_stalled(apf_connection *connection, int64_t stall, int64_t now)
{
    if (!connection->exchange) return 0;
    const int silent = now - connection->moved_at >= stall;
    if (!silent && now - connection->since < stall) return 0;
    if (silent || (double)connection->moved < (double)SLOWEST * (double)stall / SECOND) {
        broken(connection, APF_EXCHANGE_STALLED);
        return 1;
    }
    connection->since = now;
    connection->moved = 0;
    return 0;
}
