/* tickets.h - internal to TLS: what contexts and sessions know of each other. */
#ifndef APF_TRANSPORT_TICKETS_H
#define APF_TRANSPORT_TICKETS_H

#include "transport/libssl.h"

#include "tls.h"

enum { APF_TLS_KEY = APF_TLS_LONGEST + 16 }; /* bytes of a ticket's key: host and port */

struct apf_tls_context {
    const apf_ssl_api *api;
    SSL_CTX *handle;
    int verify;
    int64_t refs; /* changed atomically */
    struct apf_tls_ticket {
        SSL_SESSION *session; /* NULL: free */
        int64_t since;
        char key[APF_TLS_KEY];
    } tickets[16];
    unsigned oldest; /* index of the ticket that is replaced next */
};

/* The context and the key that a session's tickets belong to. */
apf_tls_context *apf_tls_owner(SSL *ssl, const apf_ssl_api *api, const char **key);
/* Return a ticket that is not too old, with one reference that the caller releases; NULL: there is none. */
SSL_SESSION *apf_tls_ticket_for(apf_tls_context *context, const char *key);
void apf_tls_context_retain(apf_tls_context *context);

#endif
