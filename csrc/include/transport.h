/* transport.h - many HTTP/1.1 exchanges over connected sockets in one call, without Python.
 *
 * The caller connects: it resolves names, decides which addresses are allowed, and hands over descriptors. Requests are
 * sent as they are given. Only the ordinary answer is taken (see `apf_head_read`); of every other one the exchange
 * keeps what came, so that the caller can go on from there in its own way. Nothing is repeated here but a request on a
 * kept connection that closed before a byte of its answer.
 */
#ifndef APYFAL_TRANSPORT_H
#define APYFAL_TRANSPORT_H

#include "apyfal.h"
#include "tls.h"

/* What became of an exchange. */
enum {
    APF_EXCHANGE_WAITING = 0,  /* not tried */
    APF_EXCHANGE_ACTIVE = 1,   /* on a connection; only while `run` is under way, or after it was cancelled */
    APF_EXCHANGE_DONE = 2,     /* the ordinary answer: its body is in place, and has the CRC that was stated */
    APF_EXCHANGE_ANSWERED = 3, /* another answer, complete: head and body are kept */
    APF_EXCHANGE_BROKEN = 4,   /* the connection closed or broke: what came of head and body is kept */
    APF_EXCHANGE_STALLED = 5,  /* nothing moved for too long, or next to nothing: the same is kept */
    APF_EXCHANGE_UNFIT = 6,    /* an answer that is not for here (chunked, too large, ...): nothing is kept */
};

/* One request and its answer. */
typedef struct apf_exchange {
    /* given */
    const uint8_t *request; /* the head, with its blank line */
    size_t request_size;
    const uint8_t *content; /* sent behind it, from the caller's memory */
    size_t content_size;
    uint8_t *out;      /* where the body of a 200 goes, of exactly `out_size` bytes; NULL: memory of the pool */
    size_t out_size;   /* with `out` */
    uint8_t guessed;   /* a body of another size than `out_size` goes into memory of the pool; `out` is then NULL */
    uint8_t discard;   /* the body of a 200 is not wanted (an upload) */
    uint8_t keep_head; /* the head of a 200 is kept, too */
    uint8_t bodiless;  /* no body follows the head, whatever that states: the request is a HEAD */
    /* found */
    uint8_t state;
    uint8_t repeated;   /* tried again on another connection */
    uint16_t status;    /* of the answer; 0 before its head is complete */
    apf_buffer *buffer; /* of the pool, with one reference that is the caller's to release; NULL: an empty body */
    size_t length;      /* of the body, as stated */
    size_t received;    /* bytes of the body in place */
    uint8_t *kept;      /* freed by `apf_transport_free`: `head_size` bytes of head, then `kept_size` of body */
    size_t head_size, kept_size;
    uint32_t next; /* internal */
} apf_exchange;

typedef struct apf_transport_options {
    int64_t stall;     /* ns that a connection may wait for anything to move */
    uint64_t largest;  /* bytes of a body in memory of the pool; a larger one is UNFIT */
    uint32_t mistakes; /* answers that are not ordinary, nor 404, after which no exchange is begun any more; half of
                          those that were ordinary are added */
} apf_transport_options;

/* What `run` returns, besides error codes. */
enum {
    APF_TRANSPORT_ENDED = 0,  /* nothing is under way, and no more is begun */
    APF_TRANSPORT_FEWER = -1, /* exchanges wait, and there are fewer connections than asked for */
    APF_TRANSPORT_PAUSED = -2 /* `pause` is over */
};

enum { APF_TRANSPORT_CONNECTIONS = 64 }; /* at most, of one transport */

typedef struct apf_transport apf_transport;

/* The exchanges are the caller's, and stay where they are until `free`. NO_MEMORY, IO. */
int apf_transport_new(apf_exchange *exchanges, size_t count, const apf_transport_options *options,
                      apf_transport **transport, apf_error *err);
/* Be the only one that calls `attach` and `run` and looks at the exchanges, until `unclaim`. BUSY: somebody is. */
int apf_transport_claim(apf_transport *transport);
void apf_transport_unclaim(apf_transport *transport);
/* Use a connected socket and the TLS session on it (NULL: none). The caller owns both, and closes them after `detach`
 * or `free`; until then the session is claimed. `kept`: the connection served a request before. INVALID: too many
 * connections; BUSY: the session is claimed by another. */
int apf_transport_attach(apf_transport *transport, int fd, apf_tls *secure, int kept, uint32_t *slot, apf_error *err);
/* Stop using the connection, and unclaim its TLS session. Returns whether it was usable, as below. */
int apf_transport_detach(apf_transport *transport, uint32_t slot);
/* Exchange until one of the above, or CANCELLED. `pause` in ns; negative: none. One thread at a time. */
int apf_transport_run(apf_transport *transport, uint32_t connections, int64_t pause, apf_error *err);
/* Make `run` return CANCELLED at once, now and from then on. From any thread. */
void apf_transport_cancel(apf_transport *transport);
/* Whether the connection is lost (`run` does not touch it any more). */
int apf_transport_lost(const apf_transport *transport, uint32_t slot);
/* Whether another request can be sent on it: its last answer was received to the end, and allows it. */
int apf_transport_usable(const apf_transport *transport, uint32_t slot);
void apf_transport_free(apf_transport *transport);

#endif
