/* One session. To save system calls, encrypted data is gathered before it is sent, and received in large pieces. */
#include "tls.h"
#include "transport/tickets.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { HELD = 5 * (16 << 10) }; /* four records and a head */

struct apf_tls {
    const apf_ssl_api *api;
    apf_tls_context *context; /* one reference */
    SSL *ssl;
    int fd;
    int use;                 /* CLAIMED and so on; changed atomically */
    int error_in, error_out; /* errno of receiving and sending; after `error_out`, a response may still arrive */
    int ended;               /* the peer closed its side of the socket */
    int drained;
    int sending;       /* the last call waits for room in the socket, whatever has arrived meanwhile */
    int stopped;       /* 0; FAREWELL: the peer sent close_notify; FAILED: nothing can be received any more */
    size_t begin, end; /* of the bytes in `held` that are not sent yet */
    apf_tls_failure failure;
    char key[APF_TLS_KEY];
    uint8_t held[HELD];
};

enum { FAREWELL = 1 };

/* Bits of `use`. */
enum {
    CLAIMED = 1,
    CLOSED = 2,
    WAKING = 4, /* `apf_tls_close` still uses the socket */
    TAKEN = 8,  /* a caller was told to close the socket */
};

/* -- the socket, as the library sees it -- */

/* Send what is held, as far as the socket takes it. Returns whether all was sent. */
static int send_held(apf_tls *tls)
{
    while (tls->begin < tls->end && !tls->error_out) {
        const ssize_t sent = send(tls->fd, tls->held + tls->begin, tls->end - tls->begin, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent >= 0)
            tls->begin += (size_t)sent;
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return 0;
        else if (errno != EINTR)
            tls->error_out = errno;
    }
    if (tls->begin == tls->end) tls->begin = tls->end = 0;
    return tls->begin == tls->end;
}

static int bio_write(BIO *bio, const char *data, int size)
{
    const apf_ssl_api *api;
    if (apf_ssl_library(&api, NULL)) return -1;
    apf_tls *tls = api->BIO_get_data(bio);
    api->BIO_clear_flags(bio, APF_BIO_FLAGS_ALL_RETRY);
    if (size <= 0) return 0;
    if ((size_t)size > HELD - tls->end) send_held(tls);
    if (tls->error_out) return -1;
    if (tls->begin && (size_t)size > HELD - tls->end) {
        memmove(tls->held, tls->held + tls->begin, tls->end - tls->begin);
        tls->end -= tls->begin;
        tls->begin = 0;
    }
    const size_t room = HELD - tls->end, taken = (size_t)size < room ? (size_t)size : room;
    if (!taken) {
        api->BIO_set_flags(bio, APF_BIO_FLAGS_WRITE | APF_BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    memcpy(tls->held + tls->end, data, taken);
    tls->end += taken;
    return (int)taken;
}

static int bio_read(BIO *bio, char *to, int size)
{
    const apf_ssl_api *api;
    if (apf_ssl_library(&api, NULL)) return -1;
    apf_tls *tls = api->BIO_get_data(bio);
    api->BIO_clear_flags(bio, APF_BIO_FLAGS_ALL_RETRY);
    if (size <= 0) return 0;
    ssize_t got;
    do got = recv(tls->fd, to, (size_t)size, MSG_DONTWAIT);
    while (got < 0 && errno == EINTR);
    if (got > 0) return (int)got;
    if (!got)
        tls->ended = 1;
    else if (errno == EAGAIN || errno == EWOULDBLOCK)
        api->BIO_set_flags(bio, APF_BIO_FLAGS_READ | APF_BIO_FLAGS_SHOULD_RETRY);
    else
        tls->error_in = errno;
    return got ? -1 : 0;
}

static long bio_ctrl(BIO *bio, int what, long number, void *argument)
{
    (void)number, (void)argument;
    const apf_ssl_api *api;
    if (apf_ssl_library(&api, NULL)) return 0;
    apf_tls *tls = api->BIO_get_data(bio);
    if (what == APF_BIO_CTRL_EOF) return tls->ended;
    if (what != APF_BIO_CTRL_FLUSH) return 0;
    api->BIO_clear_flags(bio, APF_BIO_FLAGS_ALL_RETRY);
    if (send_held(tls)) return 1;
    if (!tls->error_out) api->BIO_set_flags(bio, APF_BIO_FLAGS_WRITE | APF_BIO_FLAGS_SHOULD_RETRY);
    return -1;
}

static BIO_METHOD *method;

static void make_method(void)
{
    const apf_ssl_api *api;
    if (apf_ssl_library(&api, NULL)) return;
    BIO_METHOD *made = api->BIO_meth_new(api->BIO_get_new_index() | APF_BIO_TYPE_SOURCE_SINK, "apyfal");
    if (!made) return;
    api->BIO_meth_set_write(made, bio_write);
    api->BIO_meth_set_read(made, bio_read);
    api->BIO_meth_set_ctrl(made, bio_ctrl);
    method = made;
}

/* -- life -- */

apf_tls_context *apf_tls_owner(SSL *ssl, const apf_ssl_api *api, const char **key)
{
    BIO *bio = api->SSL_get_rbio(ssl);
    apf_tls *tls = bio ? api->BIO_get_data(bio) : NULL;
    if (!tls) return NULL;
    *key = tls->key;
    return tls->context;
}

/* Set whose certificate is expected. As in Python's ssl, a name is also sent to the peer (RFC 6066), an IP address is
 * not. */
static int expect_host(apf_tls *tls, const char *host)
{
    const apf_ssl_api *api = tls->api;
    ASN1_STRING *address = api->a2i_IPADDRESS(host);
    if (!address) api->ERR_clear_error();
    X509_VERIFY_PARAM *param = tls->context->verify ? api->SSL_get0_param(tls->ssl) : NULL;
    int good = 1;
    if (address) {
        good = !param || api->X509_VERIFY_PARAM_set1_ip(param, api->ASN1_STRING_get0_data(address),
                                                        (size_t)api->ASN1_STRING_length(address));
        api->ASN1_STRING_free(address);
    } else {
        good = api->SSL_ctrl(tls->ssl, APF_SSL_CTRL_SET_TLSEXT_HOSTNAME, 0, (void *)(uintptr_t)host) == 1 &&
               (!param || api->X509_VERIFY_PARAM_set1_host(param, host, strlen(host)));
    }
    return good;
}

int apf_tls_new(apf_tls_context *context, int fd, const char *host, int port, apf_tls **tls, apf_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    *tls = NULL;
    if (!*host || *host == '.' || strlen(host) > APF_TLS_LONGEST)
        return apf_fail(err, APF_INVALID, 0, "'%.80s' is not the name of a host", host);
    pthread_once(&once, make_method);
    apf_tls *made = apf_calloc(1, sizeof *made);
    if (!made || !method) {
        apf_free(made);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a TLS session");
    }
    const apf_ssl_api *api = made->api = context->api;
    apf_tls_context_retain(made->context = context);
    made->fd = fd;
    snprintf(made->key, sizeof made->key, "%s:%d", host, port);
    api->ERR_clear_error();
    made->ssl = api->SSL_new(context->handle);
    BIO *bio = made->ssl ? api->BIO_new(method) : NULL;
    if (!bio || !(api->BIO_set_data(bio, made), api->BIO_set_init(bio, 1), api->SSL_set_bio(made->ssl, bio, bio),
                  expect_host(made, host))) {
        apf_tls_free(made);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a TLS session");
    }
    SSL_SESSION *ticket = apf_tls_ticket_for(context, made->key);
    if (ticket) {
        api->SSL_set_session(made->ssl, ticket);
        api->SSL_SESSION_free(ticket);
    }
    api->SSL_set_connect_state(made->ssl);
    api->ERR_clear_error();
    *tls = made;
    return APF_OK;
}

void apf_tls_free(apf_tls *tls)
{
    if (!tls) return;
    /* As if close_notify had been sent and received; otherwise OpenSSL would not resume the session. */
    if (tls->ssl && tls->stopped != APF_TLS_FAILED)
        tls->api->SSL_set_shutdown(tls->ssl, APF_SSL_SENT_SHUTDOWN | APF_SSL_RECEIVED_SHUTDOWN);
    if (tls->ssl) tls->api->SSL_free(tls->ssl);
    tls->api->ERR_clear_error();
    apf_tls_context_release(tls->context);
    apf_free(tls);
}

/* Change `use` from `before` to `after`. Returns whether it was `before`; else `before` receives what it is. */
static int turn(apf_tls *tls, int *before, int after)
{
    return __atomic_compare_exchange_n(&tls->use, before, after, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

int apf_tls_claim(apf_tls *tls)
{
    int before = 0;
    return turn(tls, &before, CLAIMED) ? APF_OK : APF_BUSY;
}

void apf_tls_unclaim(apf_tls *tls) { __atomic_fetch_and(&tls->use, ~CLAIMED, __ATOMIC_RELEASE); }

void apf_tls_close(apf_tls *tls)
{
    int before = 0;
    while (!turn(tls, &before, before | CLOSED | (before & CLAIMED ? WAKING : 0)))
        if (before & CLOSED) return;
    if (!(before & CLAIMED)) return;
    shutdown(tls->fd, SHUT_RDWR); /* still open: nobody may close it before WAKING is cleared */
    __atomic_fetch_and(&tls->use, ~WAKING, __ATOMIC_RELEASE);
}

int apf_tls_closed(const apf_tls *tls) { return (__atomic_load_n(&tls->use, __ATOMIC_ACQUIRE) & CLOSED) != 0; }

int apf_tls_take_socket(apf_tls *tls)
{
    int before = CLOSED;
    return turn(tls, &before, CLOSED | TAKEN);
}

/* -- exchange -- */

/* As Python writes it: CERTIFICATE_VERIFY_FAILED. */
static void write_reason(char *to, size_t size, const char *reason)
{
    size_t i = 0;
    for (; reason[i] && i + 1 < size; i++)
        to[i] = (char)(reason[i] == ' ' || reason[i] == '/'   ? '_'
                       : reason[i] >= 'a' && reason[i] <= 'z' ? reason[i] - 'a' + 'A'
                                                              : reason[i]);
    to[i] = 0;
}

/* Record the failure that `error`, an errno of the socket, means for the session. */
static int system_failed(apf_tls *tls, int error)
{
    tls->failure = (apf_tls_failure){.kind = APF_TLS_SYSTEM, .code = error};
    return APF_TLS_FAILED;
}

/* Return why a call of the library did not succeed: WAIT, ENDED, or FAILED with the reason recorded. */
static int look_why(apf_tls *tls)
{
    const apf_ssl_api *api = tls->api;
    const int why = api->SSL_get_error(tls->ssl, 0);
    if (why == APF_SSL_ERROR_WANT_READ || why == APF_SSL_ERROR_WANT_WRITE) return APF_TLS_WAIT;
    if (why == APF_SSL_ERROR_ZERO_RETURN) {
        tls->stopped = FAREWELL;
        return APF_TLS_ENDED;
    }
    apf_tls_failure *failure = &tls->failure;
    const unsigned long error = api->ERR_peek_last_error();
    const int three = api->OpenSSL_version_num() >= 0x30000000ul;
    const unsigned library = three ? error >> 23 & 0xff : error >> 24 & 0xff;
    const unsigned reason = three ? error & 0x7fffff : error & 0xfff;
    const char *text = error ? api->ERR_reason_error_string(error) : NULL;
    tls->stopped = APF_TLS_FAILED;
    if (library == APF_ERR_LIB_SSL && reason == APF_SSL_R_CERTIFICATE_VERIFY_FAILED) {
        failure->kind = APF_TLS_CERTIFICATE;
        failure->code = (int)api->SSL_get_verify_result(tls->ssl);
        snprintf(failure->text, sizeof failure->text, "%s", api->X509_verify_cert_error_string(failure->code));
    } else if (tls->error_in || (tls->error_out && why == APF_SSL_ERROR_SYSCALL)) {
        system_failed(tls, tls->error_in ? tls->error_in : tls->error_out);
    } else if ((why == APF_SSL_ERROR_SYSCALL && !error) ||
               (library == APF_ERR_LIB_SSL && reason == APF_SSL_R_UNEXPECTED_EOF)) {
        failure->kind = APF_TLS_CUT;
    } else {
        failure->kind = APF_TLS_PROTOCOL;
        write_reason(failure->text, sizeof failure->text, text ? text : "UNKNOWN_REASON");
    }
    api->ERR_clear_error();
    return APF_TLS_FAILED;
}

static int told_before(const apf_tls *tls) { return tls->stopped == FAREWELL ? APF_TLS_ENDED : APF_TLS_FAILED; }

int apf_tls_handshake(apf_tls *tls)
{
    if (tls->stopped) return APF_TLS_FAILED;
    tls->api->ERR_clear_error();
    const int done = tls->api->SSL_do_handshake(tls->ssl);
    tls->sending = done == 1;
    int found = done == 1 ? 1 : look_why(tls);
    if (found == APF_TLS_ENDED) {
        tls->failure.kind = APF_TLS_CUT;
        found = tls->stopped = APF_TLS_FAILED;
    }
    /* The alert that tells the peer what is wrong is sent, too. */
    if (!send_held(tls) && found == 1) return tls->error_out ? system_failed(tls, tls->error_out) : APF_TLS_WAIT;
    return found;
}

ssize_t apf_tls_receive(apf_tls *tls, void *to, size_t size)
{
    if (tls->stopped) return told_before(tls);
    const apf_ssl_api *api = tls->api;
    api->ERR_clear_error();
    size_t done = 0;
    int why = APF_TLS_WAIT;
    tls->drained = tls->sending = 0;
    while (done < size) {
        size_t got = 0;
        if (!api->SSL_read_ex(tls->ssl, (uint8_t *)to + done, size - done, &got)) {
            why = look_why(tls);
            tls->drained = why == APF_TLS_WAIT;
            break;
        }
        done += got;
    }
    if (tls->end) send_held(tls); /* the answer to a change of keys */
    return done ? (ssize_t)done : why;
}

int apf_tls_drained(const apf_tls *tls) { return tls->drained; }

ssize_t apf_tls_send(apf_tls *tls, const void *from, size_t size, int more)
{
    if (tls->stopped == APF_TLS_FAILED) return APF_TLS_FAILED;
    if (tls->error_out) return system_failed(tls, tls->error_out);
    const apf_ssl_api *api = tls->api;
    api->ERR_clear_error();
    size_t done = 0;
    tls->sending = 1;
    while (done < size) {
        size_t taken = 0;
        if (!api->SSL_write_ex(tls->ssl, (const uint8_t *)from + done, size - done, &taken)) {
            if (tls->error_out) { /* the peer's response may have arrived all the same, and say why */
                api->ERR_clear_error();
                break;
            }
            if (look_why(tls) != APF_TLS_WAIT) return done ? (ssize_t)done : APF_TLS_FAILED;
            break;
        }
        done += taken;
    }
    if (!more || done < size) send_held(tls);
    if (done) return (ssize_t)done;
    return tls->error_out ? system_failed(tls, tls->error_out) : APF_TLS_WAIT;
}

int apf_tls_flush(apf_tls *tls)
{
    tls->sending = 1;
    if (send_held(tls)) return 1;
    return tls->error_out ? system_failed(tls, tls->error_out) : APF_TLS_WAIT;
}

size_t apf_tls_held(const apf_tls *tls) { return tls->error_out ? 0 : tls->end - tls->begin; }

int apf_tls_quiet(apf_tls *tls)
{
    if (tls->stopped || tls->error_out) return 0;
    uint8_t byte;
    size_t got = 0;
    tls->api->ERR_clear_error();
    if (tls->api->SSL_peek_ex(tls->ssl, &byte, 1, &got)) return 0;
    const int why = look_why(tls); /* tickets, if there were any, have been taken */
    if (tls->end) send_held(tls);
    return why == APF_TLS_WAIT && !tls->error_out;
}

int apf_tls_settled(apf_tls *tls)
{
    return !tls->stopped && !tls->error_out && (!tls->api->SSL_has_pending(tls->ssl) || apf_tls_quiet(tls));
}

int apf_tls_poll(const apf_tls *tls, int64_t wait)
{
    /* While sending, received data stays unread, so that POLLIN would return at once. With nothing held, a send waits
     * for the peer's part of a new handshake. */
    const int held = apf_tls_held(tls) != 0;
    struct pollfd waiting = {.fd = tls->fd,
                             .events = (short)((held && tls->sending ? 0 : POLLIN) | (held ? POLLOUT : 0))};
    const struct timespec most = {wait / 1000000000, wait % 1000000000};
    return ppoll(&waiting, 1, wait < 0 ? NULL : &most, NULL) > 0;
}

int apf_tls_resumed(const apf_tls *tls) { return tls->api->SSL_session_reused(tls->ssl); }

const apf_tls_failure *apf_tls_failure_of(const apf_tls *tls) { return &tls->failure; }
