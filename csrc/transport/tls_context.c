/* Settings, authorities and tickets that sessions share. What is set is decided by apyfal.storage.http.tls. */
#include "runtime/clock.h"
#include "transport/tickets.h"

#include <stdio.h>
#include <string.h>

enum {
    READ_AHEAD = 66 << 10, /* bytes received at once: four records */
    TICKETS_AGE = 10 * 60, /* seconds; older tickets are not used, so that the certificate is verified again */
    TICKETS = sizeof((apf_tls_context *)0)->tickets / sizeof *((apf_tls_context *)0)->tickets,
};

/* Guards the tickets of all contexts; held for a few instructions. */
static pthread_mutex_t tickets_lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void guard(void) { apf_fork_guard(&tickets_lock); }

static const unsigned char http[] = "\x08http/1.1";

static int refused(const apf_ssl_api *api, const char *what, apf_error *err)
{
    const unsigned long why = api->ERR_peek_last_error();
    const char *reason = why ? api->ERR_reason_error_string(why) : NULL;
    apf_fail(err, APF_INVALID, 0, "OpenSSL refuses %s: %s", what, reason ? reason : "unknown reason");
    api->ERR_clear_error();
    return APF_INVALID;
}

/* Called by the library when a ticket came, in the thread that uses the session. */
static int keep_ticket(const apf_ssl_api *api, SSL *ssl, SSL_SESSION *session)
{
    const char *key;
    apf_tls_context *context = apf_tls_owner(ssl, api, &key);
    if (!context || !api->SSL_SESSION_is_resumable(session)) return 0;
    pthread_mutex_lock(&tickets_lock);
    struct apf_tls_ticket *place = NULL;
    for (unsigned i = 0; i < TICKETS && !place; i++)
        if (context->tickets[i].session && !strcmp(context->tickets[i].key, key)) place = &context->tickets[i];
    if (!place) {
        place = &context->tickets[context->oldest++ % TICKETS];
        snprintf(place->key, sizeof place->key, "%s", key);
    }
    SSL_SESSION *const before = place->session;
    place->session = session;
    place->since = apf_now();
    pthread_mutex_unlock(&tickets_lock);
    if (before) api->SSL_SESSION_free(before);
    return 1; /* the reference is kept */
}

static int new_session(SSL *ssl, SSL_SESSION *session)
{
    const apf_ssl_api *api;
    return apf_ssl_library(&api, NULL) == APF_OK ? keep_ticket(api, ssl, session) : 0;
}

SSL_SESSION *apf_tls_ticket_for(apf_tls_context *context, const char *key)
{
    SSL_SESSION *found = NULL;
    const int64_t youngest = apf_now() - TICKETS_AGE * (int64_t)1000000000;
    pthread_mutex_lock(&tickets_lock);
    for (unsigned i = 0; i < TICKETS && !found; i++) {
        const struct apf_tls_ticket *ticket = &context->tickets[i];
        if (ticket->session && ticket->since >= youngest && !strcmp(ticket->key, key)) {
            found = ticket->session;
            context->api->SSL_SESSION_up_ref(found);
        }
    }
    pthread_mutex_unlock(&tickets_lock);
    return found;
}

static int set(apf_tls_context *context, const apf_tls_settings *settings, apf_error *err)
{
    const apf_ssl_api *api = context->api;
    SSL_CTX *handle = context->handle;
    api->SSL_CTX_clear_options(handle, api->SSL_CTX_get_options(handle));
    api->SSL_CTX_set_options(handle, (unsigned long)settings->options);
    if (!api->SSL_CTX_ctrl(handle, APF_SSL_CTRL_SET_MIN_PROTO_VERSION, settings->minimum, NULL) ||
        !api->SSL_CTX_ctrl(handle, APF_SSL_CTRL_SET_MAX_PROTO_VERSION, settings->maximum, NULL))
        return refused(api, "a version", err);
    api->SSL_CTX_set_security_level(handle, settings->level);
    if ((settings->ciphers && !api->SSL_CTX_set_cipher_list(handle, settings->ciphers)) ||
        (settings->suites && !api->SSL_CTX_set_ciphersuites(handle, settings->suites)))
        return refused(api, "the ciphers", err);
    X509_VERIFY_PARAM *param = api->SSL_CTX_get0_param(handle);
    api->X509_VERIFY_PARAM_clear_flags(param, api->X509_VERIFY_PARAM_get_flags(param));
    api->X509_VERIFY_PARAM_set_flags(param, settings->verify_flags);
    api->X509_VERIFY_PARAM_set_hostflags(param, APF_X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    context->verify = settings->verify;
    api->SSL_CTX_set_verify(handle, settings->verify ? APF_SSL_VERIFY_PEER : 0, NULL);
    if (api->SSL_CTX_set_alpn_protos(handle, http, sizeof http - 1)) /* zero is success, of this function only */
        return refused(api, "http/1.1", err);
    api->SSL_CTX_ctrl(
        handle, APF_SSL_CTRL_MODE,
        APF_SSL_MODE_ENABLE_PARTIAL_WRITE | APF_SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | APF_SSL_MODE_AUTO_RETRY, NULL);
    api->SSL_CTX_ctrl(handle, APF_SSL_CTRL_SET_READ_AHEAD, 1, NULL);
    api->SSL_CTX_set_default_read_buffer_len(handle, READ_AHEAD);
    api->SSL_CTX_ctrl(handle, APF_SSL_CTRL_SET_SESS_CACHE_MODE,
                      APF_SSL_SESS_CACHE_CLIENT | APF_SSL_SESS_CACHE_NO_INTERNAL, NULL);
    api->SSL_CTX_sess_set_new_cb(handle, new_session);
    return APF_OK;
}

int apf_tls_load(unsigned long *version, const char **text, apf_error *err)
{
    const apf_ssl_api *api;
    const int code = apf_ssl_library(&api, err);
    if (code) return code;
    *version = api->OpenSSL_version_num();
    *text = api->OpenSSL_version(0);
    return APF_OK;
}

int apf_tls_context_new(const apf_tls_settings *settings, apf_tls_context **context, apf_error *err)
{
    const apf_ssl_api *api;
    *context = NULL;
    int code = apf_ssl_library(&api, err);
    if (code) return code;
    apf_tls_context *made = apf_calloc(1, sizeof *made);
    if (!made) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a TLS context");
    api->ERR_clear_error();
    made->api = api;
    made->refs = 1;
    made->handle = api->SSL_CTX_new(api->TLS_client_method());
    code = made->handle ? set(made, settings, err) : refused(api, "a context", err);
    if (code) {
        apf_tls_context_release(made);
        return code;
    }
    *context = made;
    return APF_OK;
}

int apf_tls_context_trust(apf_tls_context *context, const char *file, const char *folder, apf_error *err)
{
    context->api->ERR_clear_error();
    if (context->api->SSL_CTX_load_verify_locations(context->handle, file, folder)) return APF_OK;
    return refused(context->api, file ? file : folder, err);
}

void apf_tls_context_retain(apf_tls_context *context) { __atomic_add_fetch(&context->refs, 1, __ATOMIC_RELAXED); }

void apf_tls_context_release(apf_tls_context *context)
{
    if (!context || __atomic_sub_fetch(&context->refs, 1, __ATOMIC_ACQ_REL)) return;
    for (unsigned i = 0; i < TICKETS; i++)
        if (context->tickets[i].session) context->api->SSL_SESSION_free(context->tickets[i].session);
    if (context->handle) context->api->SSL_CTX_free(context->handle);
    apf_free(context);
}
