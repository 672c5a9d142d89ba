/* tls.h - TLS 1.2 and 1.3 on connected sockets, as a client, with the system's OpenSSL.
 *
 * libssl is loaded on first use, never linked. Only `apf_tls_poll` waits: the other functions return APF_TLS_WAIT if
 * they would have to, and the caller polls. The caller owns the socket, which may be blocking or not.
 */
#ifndef APYFAL_TLS_H
#define APYFAL_TLS_H

#include "apyfal.h"

#include <sys/types.h>

/* Load OpenSSL 1.1.1 or 3 (the environment variable APYFAL_LIBSSL: the path of one, or "none"). `version` and `text`
 * receive what OpenSSL_version_num and OpenSSL_version return. NO_LIBRARY: there is none that can be used. */
int apf_tls_load(unsigned long *version, const char **text, apf_error *err);

typedef struct apf_tls_settings {
    uint64_t options;           /* SSL_OP_..., all of them */
    unsigned long verify_flags; /* X509_V_FLAG_..., all of them */
    int minimum, maximum;       /* versions as on the wire; 0: what the library supports */
    int level;                  /* OpenSSL's security level */
    int verify;                 /* 1: verify the peer's certificate and name; 0: accept any */
    const char *ciphers;        /* of TLS 1.2; NULL: the library's default */
    const char *suites;         /* of TLS 1.3; NULL: the library's default */
} apf_tls_settings;

/* What many sessions share: settings, authorities, and tickets to resume sessions. Reference-counted: the maker and
 * each session hold a reference. */
typedef struct apf_tls_context apf_tls_context;

/* Make a context; the caller owns one reference. NO_LIBRARY, NO_MEMORY; INVALID: the library refuses a setting. */
int apf_tls_context_new(const apf_tls_settings *settings, apf_tls_context **context, apf_error *err);
/* Trust the authorities in a PEM file, or in a folder of files named by hash; the other is NULL. Call it before the
 * first session is made. INVALID: they cannot be read. */
int apf_tls_context_trust(apf_tls_context *context, const char *file, const char *folder, apf_error *err);
void apf_tls_context_release(apf_tls_context *context);

/* What ended a session. */
typedef enum apf_tls_trouble {
    APF_TLS_FINE,
    APF_TLS_SYSTEM,      /* `code` is an errno */
    APF_TLS_CUT,         /* the connection ended without close_notify */
    APF_TLS_PROTOCOL,    /* `text` is the library's reason */
    APF_TLS_CERTIFICATE, /* the certificate is not accepted; `code` is X509_V_ERR_..., `text` its meaning */
} apf_tls_trouble;

typedef struct apf_tls_failure {
    apf_tls_trouble kind;
    int code;
    char text[256];
} apf_tls_failure;

/* What the functions below return instead of a number of bytes. */
enum {
    APF_TLS_ENDED = 0,   /* the peer sent close_notify */
    APF_TLS_FAILED = -1, /* see `apf_tls_failure_of`; if sending failed, a response may still be received */
    APF_TLS_WAIT = -2,   /* call again when the socket is readable, or writable if `apf_tls_held` is not 0 */
};

enum { APF_TLS_LONGEST = 255 }; /* bytes of a host name at most */

/* One session. Used by one thread at a time, except `close`. */
typedef struct apf_tls apf_tls;

/* Make a session on the socket `fd`. `host`: the name or IP address that the certificate must be for. Tickets are kept
 * by host and `port`. NO_MEMORY; INVALID: the name is empty, too long or begins with a dot. */
int apf_tls_new(apf_tls_context *context, int fd, const char *host, int port, apf_tls **tls, apf_error *err);
/* Free it without sending close_notify: the caller closes the socket next. */
void apf_tls_free(apf_tls *tls);
/* Reserve it for the caller until `unclaim`. BUSY: it is reserved already, or closed. */
int apf_tls_claim(apf_tls *tls);
void apf_tls_unclaim(apf_tls *tls);
/* End its use, from any thread: it cannot be reserved any more, and a thread that has reserved it is woken by the end
 * of the connection. */
void apf_tls_close(apf_tls *tls);
int apf_tls_closed(const apf_tls *tls);
/* Whether the caller must close the socket now. Returns 1 once, when the session is closed and no longer reserved. To
 * be called after `close` and after each `unclaim`. */
int apf_tls_take_socket(apf_tls *tls);
/* Continue the handshake. Returns 1 when it is done, else FAILED or WAIT. */
int apf_tls_handshake(apf_tls *tls);
/* Receive up to `size` bytes, as many as are available. Returns their number, ENDED, FAILED or WAIT. */
ssize_t apf_tls_receive(apf_tls *tls, void *to, size_t size);
/* Whether the last `receive` took everything that was available, so that polling the socket reports new data. */
int apf_tls_drained(const apf_tls *tls);
/* Encrypt up to `size` bytes and send them. `more`: the caller sends more at once, so they may be held back. Returns
 * the number of bytes taken, FAILED or WAIT. */
ssize_t apf_tls_send(apf_tls *tls, const void *from, size_t size, int more);
/* Send what is held. Returns 1 if all was sent, else FAILED or WAIT. */
int apf_tls_flush(apf_tls *tls);
/* Bytes that are encrypted but not sent yet. */
size_t apf_tls_held(const apf_tls *tls);
/* Whether the session is open and no data of the peer is waiting. */
int apf_tls_quiet(apf_tls *tls);
/* The same for what has been received so far; does not read the socket. */
int apf_tls_settled(apf_tls *tls);
/* Poll the socket for what the last call waits for, for up to `wait` ns; while it sends, only for room. 1: go on; 0:
 * not yet, or a signal came. */
int apf_tls_poll(const apf_tls *tls, int64_t wait);
/* Whether the session was resumed with a ticket. */
int apf_tls_resumed(const apf_tls *tls);
/* The reason of the last FAILED; owned by the session. */
const apf_tls_failure *apf_tls_failure_of(const apf_tls *tls);

#endif
