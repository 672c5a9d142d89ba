/* tls.h - TLS 1.2 and 1.3 on connected sockets, as a client, by the system's OpenSSL.
 *
 * libssl is loaded on first use, never linked. Nothing here waits: what would wait says so, and the caller polls the
 * socket. The socket stays the caller's; whether it is blocking does not matter.
 */
#ifndef APYFAL_TLS_H
#define APYFAL_TLS_H

#include "apyfal.h"

#include <sys/types.h>

/* Load OpenSSL 1.1.1 or 3 (APYFAL_LIBSSL: the path of one, or "none"); `version`: its number, as it writes it, and
 * `text`. NO_LIBRARY. */
int apf_tls_load(unsigned long *version, const char **text, apf_error *err);

typedef struct apf_tls_settings {
    uint64_t options;           /* SSL_OP_..., all of them */
    unsigned long verify_flags; /* X509_V_FLAG_..., all of them */
    int minimum, maximum;       /* versions as on the wire; 0: what the library supports */
    int level;                  /* of security */
    int verify;                 /* the peer's certificate and its name; else any is accepted */
    const char *ciphers;        /* of TLS 1.2; NULL: the library's */
    const char *suites;         /* of TLS 1.3; NULL: the library's */
} apf_tls_settings;

/* What many sessions share: settings, authorities, and tickets to resume sessions with. Counted. */
typedef struct apf_tls_context apf_tls_context;

/* NO_LIBRARY, NO_MEMORY; INVALID: the library refuses a setting. */
int apf_tls_context_new(const apf_tls_settings *settings, apf_tls_context **context, apf_error *err);
/* Trust the authorities in a file, or in a folder of files named by hash; the other is NULL. Before the first session.
 * INVALID. */
int apf_tls_context_trust(apf_tls_context *context, const char *file, const char *folder, apf_error *err);
void apf_tls_context_release(apf_tls_context *context);

/* What ended a session. */
typedef enum apf_tls_trouble {
    APF_TLS_FINE,
    APF_TLS_SYSTEM,      /* `code` is an errno */
    APF_TLS_CUT,         /* the connection ended without the farewell of TLS */
    APF_TLS_PROTOCOL,    /* `text` is the library's reason */
    APF_TLS_CERTIFICATE, /* not accepted; `code` is X509_V_ERR_..., `text` its meaning */
} apf_tls_trouble;

typedef struct apf_tls_failure {
    apf_tls_trouble kind;
    int code;
    char text[256];
} apf_tls_failure;

/* What the functions below return instead of a number of bytes. */
enum {
    APF_TLS_ENDED = 0,   /* the peer said farewell */
    APF_TLS_FAILED = -1, /* see `apf_tls_failure_of`; if the socket takes no more, an answer may be there still */
    APF_TLS_WAIT = -2,   /* until the socket is readable; writable, too, while something is held */
};

enum { APF_TLS_LONGEST = 255 }; /* bytes of a host's name */

/* One session. One thread at a time. */
typedef struct apf_tls apf_tls;

/* `host`: a name or an address, which the certificate has to be for. `port` tells apart whose tickets are used.
 * NO_MEMORY; INVALID: the name is empty, too long or begins with a dot. */
int apf_tls_new(apf_tls_context *context, int fd, const char *host, int port, apf_tls **tls, apf_error *err);
/* End it, without a farewell: the socket closes next. */
void apf_tls_free(apf_tls *tls);
/* Be the only one that uses it, until `unclaim`. BUSY: somebody is. */
int apf_tls_claim(apf_tls *tls);
void apf_tls_unclaim(apf_tls *tls);
/* 1: done; FAILED, WAIT. */
int apf_tls_handshake(apf_tls *tls);
/* Receive up to `size` bytes, as many as are there: their number, ENDED, FAILED, WAIT. */
ssize_t apf_tls_receive(apf_tls *tls, void *to, size_t size);
/* Whether the last `receive` took all that was there, so that the socket tells when there is more. */
int apf_tls_drained(const apf_tls *tls);
/* Encrypt up to `size` bytes, and send them; `more`: which follow at once. The bytes taken, FAILED, WAIT. */
ssize_t apf_tls_send(apf_tls *tls, const void *from, size_t size, int more);
/* Send what is held: 1: all went; FAILED, WAIT. */
int apf_tls_flush(apf_tls *tls);
/* Bytes that are encrypted and not sent. */
size_t apf_tls_held(const apf_tls *tls);
/* Whether it is open, and the peer says nothing. */
int apf_tls_quiet(apf_tls *tls);
/* The same of what has been received so far, without a look at the socket. */
int apf_tls_settled(apf_tls *tls);
/* Poll the socket for what is waited for; up to `wait` ns. 1: go on; 0: not yet, or a signal came. */
int apf_tls_poll(const apf_tls *tls, int64_t wait);
/* Whether it was resumed with a ticket. */
int apf_tls_resumed(const apf_tls *tls);
const apf_tls_failure *apf_tls_failure_of(const apf_tls *tls);

#endif
