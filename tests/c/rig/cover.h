/* cover.h - TLS put over one end of a pair of sockets: a server of it, in a thread that passes bytes on, and a session.
 *
 * Its certificate is in the folder APYFAL_TEST_TLS: server.pem, server.key and ca.pem, for 127.0.0.1.
 */
#ifndef COVER_H
#define COVER_H

#include "tls.h"

typedef struct cover cover;

/* Whether there is a certificate. */
int cover_possible(void);
/* A context that trusts the authority; released by the caller. */
apf_tls_context *cover_context(void);
/* Put TLS over `fd`, which belongs to it from now on. `ragged`: end without a farewell. */
cover *cover_begin(apf_tls_context *context, int fd, int ragged);
/* The session, after its handshake, and its socket. */
apf_tls *cover_session(cover *it);
int cover_fd(const cover *it);
void cover_end(cover *it);

#endif
