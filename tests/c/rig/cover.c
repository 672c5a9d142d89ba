/* TLS over a pair of sockets: what a real server would do, with the same library. */
#include "cover.h"
#include "check.h"
#include "transport/libssl.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

/* Of servers only, and so in no table of csrc/. */
static struct {
    const SSL_METHOD *(*TLS_server_method)(void);
    int (*SSL_CTX_use_certificate_file)(SSL_CTX *, const char *, int);
    int (*SSL_CTX_use_PrivateKey_file)(SSL_CTX *, const char *, int);
    int (*SSL_set_fd)(SSL *, int);
    int (*SSL_accept)(SSL *);
    int (*SSL_read)(SSL *, void *, int);
    int (*SSL_write)(SSL *, const void *, int);
    int (*SSL_shutdown)(SSL *);
    int (*SSL_key_update)(SSL *, int);
} server;

struct cover {
    const apf_ssl_api *api;
    SSL_CTX *context;
    int plain, near, far, ragged;
    pthread_t thread;
    apf_tls *session;
    int begin, end; /* of what the plain side did not take yet */
    char data[8192];
};

int cover_possible(void) { return getenv("APYFAL_TEST_TLS") != NULL; }

static const char *file(const char *name)
{
    static __thread char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("APYFAL_TEST_TLS"), name);
    return path;
}

apf_tls_context *cover_context(void)
{
    const apf_tls_settings settings = {.verify = 1, .level = 1};
    apf_tls_context *made;
    apf_error err;
    CHECK_OK(apf_tls_context_new(&settings, &made, &err), err);
    CHECK_OK(apf_tls_context_trust(made, file("ca.pem"), NULL, &err), err);
    return made;
}

static void look_up_server(void)
{
    void *library = dlopen("libssl.so.3", RTLD_NOW | RTLD_NOLOAD);
    if (!library) library = dlopen("libssl.so.1.1", RTLD_NOW | RTLD_NOLOAD);
    CHECK(library);
#define LOOK_UP(name) CHECK(*(void **)&server.name = dlsym(library, #name))
    LOOK_UP(TLS_server_method);
    LOOK_UP(SSL_CTX_use_certificate_file);
    LOOK_UP(SSL_CTX_use_PrivateKey_file);
    LOOK_UP(SSL_set_fd);
    LOOK_UP(SSL_accept);
    LOOK_UP(SSL_read);
    LOOK_UP(SSL_write);
    LOOK_UP(SSL_shutdown);
    LOOK_UP(SSL_key_update);
#undef LOOK_UP
}

/* Pass on what `ssl` has, as far as the other side takes it: 0 at the end. */
static int pass_in(cover *it, SSL *ssl)
{
    for (;;) {
        if (it->begin == it->end) {
            const int got = server.SSL_read(ssl, it->data, sizeof it->data);
            if (got <= 0) return it->api->SSL_get_error(ssl, got) == APF_SSL_ERROR_WANT_READ;
            it->begin = 0, it->end = got;
        }
        const ssize_t sent =
            send(it->plain, it->data + it->begin, (size_t)(it->end - it->begin), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) return errno == EAGAIN || errno == EINTR;
        it->begin += (int)sent;
    }
}

/* Pass on up to a record of what is at `fd`: 0 at the end. */
static int pass_out(SSL *ssl, const apf_ssl_api *api, int fd, int far, unsigned *count)
{
    char data[30000];
    const ssize_t got = recv(fd, data, sizeof data, MSG_DONTWAIT);
    if (got <= 0) return got < 0 && (errno == EAGAIN || errno == EINTR);
    if (++*count % 7 == 3) server.SSL_key_update(ssl, *count % 2); /* of TLS 1.3; the peer may have to answer */
    for (int sent = 0; sent < got;) {
        const int now = server.SSL_write(ssl, data + sent, (int)got - sent);
        if (now > 0) {
            sent += now;
            continue;
        }
        if (api->SSL_get_error(ssl, now) != APF_SSL_ERROR_WANT_WRITE) return 0;
        struct pollfd room = {.fd = far, .events = POLLOUT};
        if (poll(&room, 1, 20000) <= 0) return 0;
    }
    return 1;
}

static void *pass_on(void *argument)
{
    cover *it = argument;
    const apf_ssl_api *api = it->api;
    SSL *ssl = api->SSL_new(it->context);
    unsigned count = 0;
    sigset_t pipe; /* which OpenSSL's own sockets raise, in this thread; those of csrc/ must not */
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, NULL);
    CHECK(ssl && server.SSL_set_fd(ssl, it->far));
    int open = server.SSL_accept(ssl) == 1;
    fcntl(it->far, F_SETFL, O_NONBLOCK);
    while (open) {
        const int full = it->begin != it->end;
        struct pollfd both[2] = {{.fd = full ? -1 : it->far, .events = POLLIN},
                                 {.fd = it->plain, .events = (short)(POLLIN | (full ? POLLOUT : 0))}};
        if (poll(both, 2, -1) < 0) continue;
        if (both[0].revents || both[1].revents & POLLOUT) open = pass_in(it, ssl);
        if (open && both[1].revents & ~POLLOUT) open = pass_out(ssl, api, it->plain, it->far, &count);
    }
    api->ERR_clear_error();
    if (!it->ragged) server.SSL_shutdown(ssl);
    api->SSL_free(ssl);
    api->ERR_clear_error();
    shutdown(it->far, SHUT_RDWR);
    shutdown(it->plain, SHUT_RDWR);
    return NULL;
}

cover *cover_begin(apf_tls_context *context, int fd, int ragged)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    cover *it = calloc(1, sizeof *it);
    apf_error err;
    int pair[2], done;
    CHECK(it);
    CHECK_OK(apf_ssl_library(&it->api, &err), err);
    pthread_once(&once, look_up_server);
    CHECK_EQUAL(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    it->plain = fd;
    it->near = pair[0];
    it->far = pair[1];
    it->ragged = ragged;
    CHECK(it->context = it->api->SSL_CTX_new(server.TLS_server_method()));
    CHECK_EQUAL(server.SSL_CTX_use_certificate_file(it->context, file("server.pem"), 1), 1);
    CHECK_EQUAL(server.SSL_CTX_use_PrivateKey_file(it->context, file("server.key"), 1), 1);
    CHECK_OK(apf_tls_new(context, it->near, "127.0.0.1", 443, &it->session, &err), err);
    CHECK_EQUAL(pthread_create(&it->thread, NULL, pass_on, it), 0);
    while ((done = apf_tls_handshake(it->session)) == APF_TLS_WAIT) apf_tls_poll(it->session, -1);
    if (done != 1) fprintf(stderr, "%s\n", apf_tls_failure_of(it->session)->text);
    CHECK_EQUAL(done, 1);
    return it;
}

apf_tls *cover_session(cover *it) { return it->session; }

int cover_fd(const cover *it) { return it->near; }

void cover_end(cover *it)
{
    shutdown(it->near, SHUT_RDWR);
    shutdown(it->plain, SHUT_RDWR);
    pthread_join(it->thread, NULL);
    apf_tls_free(it->session);
    it->api->SSL_CTX_free(it->context);
    close(it->near);
    close(it->far);
    close(it->plain);
    free(it);
}
