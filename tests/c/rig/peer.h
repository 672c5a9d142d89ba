/* peer.h - peers that answer from a script, over a pair of sockets for each connection of a transport; also over TLS.
 */
#ifndef PEER_H
#define PEER_H

#include "cover.h"
#include "transport.h"

#include <pthread.h>

#define MS 1000000
#define HEAD_200 "HTTP/1.1 200 OK\r\nETag: \"e\"\r\n"
#define ORDINARY HEAD_200 "Content-Length: 5\r\n\r\nhello"

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
    int fd;
    const step *steps;
    size_t count;
    pthread_t thread;
    size_t requests, content; /* that came; bytes of content of the last */
} peer;

enum { PEERS_MOST = 4 };

/* A transport and its peers, with TLS between them inside of a test that is made by OVER_TLS. */
typedef struct world {
    apf_transport *transport;
    apf_error err;
    size_t peers;
    peer peer[PEERS_MOST];
    cover *cover[PEERS_MOST];
    int fd[PEERS_MOST];
    uint32_t slot[PEERS_MOST];
} world;

void open_world(world *it, apf_exchange *exchanges, size_t count, int64_t stall);
void add_peer(world *it, const step *steps, size_t count, int kept);
void close_world(world *it);

/* A test again, over TLS: where there is a certificate. */
#define OVER_TLS(name)                                                                                                 \
    static void name##_over_tls(void)                                                                                  \
    {                                                                                                                  \
        if (!begin_tls()) return;                                                                                      \
        name();                                                                                                        \
        end_tls();                                                                                                     \
    }
int begin_tls(void);
void end_tls(void);

/* A request for an object, whose body goes to `out`, or to memory of the pool. */
apf_exchange get(void *out, size_t size);
int send_all(int fd, const void *data, size_t size);

#endif
