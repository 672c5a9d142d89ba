/* connection.h - one connection of a transport, and the exchange that is on it. */
#ifndef APF_TRANSPORT_CONNECTION_H
#define APF_TRANSPORT_CONNECTION_H

#include "transport/checksum.h"
#include "transport/head.h"

#include "tls.h"
#include "transport.h"

/* Legal states:
 *   IDLE     no exchange; another request may be sent
 *   SENDING  of the request; the answer may come early, if it is a refusal
 *   HEAD     of the answer
 *   BODY     of the answer, received at its final address
 *   LOST     closed, broken, or with an answer that was not received to its end */
typedef enum apf_connection_state { IDLE, SENDING, HEAD, BODY, LOST } apf_connection_state;

typedef struct apf_connection {
    int fd;
    apf_tls *secure; /* on it, claimed; or NULL */
    apf_connection_state state;
    uint8_t kept;           /* it served a request before, so that it may have been closed meanwhile */
    uint8_t blocked;        /* the socket takes no more for now: wait until it does */
    uint8_t watched;        /* whether epoll tells about that */
    apf_exchange *exchange; /* SENDING, HEAD, BODY */
    size_t sent;            /* of head and content of the request; over TLS, encrypted */
    uint8_t gone;           /* over TLS: all of it was sent */
    size_t filled;          /* bytes in `scratch` */
    uint8_t *target;        /* where the body goes: the exchange's memory, or `scratch` */
    apf_head head;
    apf_sum sum; /* which is computed while the body arrives */
    uint64_t value;
    int64_t since, moved_at; /* when a window of time began, and when something moved last; ns */
    size_t moved;            /* bytes, in that window */
    uint8_t scratch[APF_HEAD_LARGEST];
} apf_connection;

/* What `advance` found. */
typedef enum apf_progress { APF_PROGRESS_WAIT, APF_PROGRESS_ENDED, APF_PROGRESS_AGAIN } apf_progress;

/* Begin an exchange on an idle connection. */
void apf_connection_begin(apf_connection *connection, apf_exchange *exchange, int64_t now);
/* Do what is possible without waiting. WAIT; ENDED: the exchange has its final state; AGAIN: nothing came on a kept
 * connection, so that the exchange waits for another one. `likely`: the size of the last head, kept for the next. */
apf_progress apf_connection_advance(apf_connection *connection, uint64_t largest, size_t *likely, int64_t now);
/* End the exchange if nothing, or next to nothing, moved for `stall` ns: true. */
int apf_connection_stalled(apf_connection *connection, int64_t stall, int64_t now);

#endif
