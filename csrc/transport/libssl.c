/* OpenSSL: loaded at first use, never linked; the copy that the process has loaded (Python's), else the system's. */
#include "transport/libssl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static int look_up(void *library, apf_ssl_api *api, const char *path, apf_error *err)
{
    /* Some of them are in libcrypto, which was loaded with libssl. */
#define LOOK_UP(result, name, parameters)                                                                              \
    *(void **)&api->name = dlsym(library, #name);                                                                      \
    if (!api->name) return apf_fail(err, APF_NO_LIBRARY, 0, "%s is not an OpenSSL 1.1.1 or 3: it has no " #name, path);
    APF_SSL_FUNCTIONS(LOOK_UP)
#undef LOOK_UP
    /* A Python may hold an OpenSSL of its own whose names all libraries see: this one would call into that. */
    void *const other = dlsym(RTLD_DEFAULT, "SSL_CTX_new");
    if (other && other != *(void **)&api->SSL_CTX_new)
        return apf_fail(err, APF_NO_LIBRARY, 0, "%s is not the OpenSSL of this program", path);
    const unsigned long version = api->OpenSSL_version_num();
    if (version < 0x10101000ul || version >= 0x40000000ul || sizeof(long) < 8)
        return apf_fail(err, APF_NO_LIBRARY, 0, "%s is OpenSSL %#lx; expected 1.1.1 or 3", path, version);
    return APF_OK;
}

static int open_library(apf_ssl_api *api, apf_error *err)
{
    static const char *const names[] = {"libssl.so.3", "libssl.so.1.1"};
    enum { NAMES = sizeof names / sizeof *names };
    const char *chosen = getenv("APYFAL_LIBSSL"), *path = NULL;
    void *library = NULL;
    if (chosen && !strcmp(chosen, "none"))
        return apf_fail(err, APF_NO_LIBRARY, 0, "OpenSSL is not used, by APYFAL_LIBSSL");
    if (chosen && *chosen) library = dlopen(path = chosen, RTLD_NOW | RTLD_LOCAL);
    /* First the copy that is loaded already, so that there are not two. */
    for (int i = 0; !path && i < NAMES; i++)
        if ((library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD))) path = names[i];
    for (int i = 0; !path && i < NAMES; i++)
        if ((library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL))) path = names[i];
    if (!library) {
        const char *why = dlerror();
        return apf_fail(err, APF_NO_LIBRARY, 0, "no OpenSSL on this machine: %s", why ? why : "no libssl");
    }
    const int code = look_up(library, api, path, err);
    if (code) return code;
    enum { NO_ATEXIT = 0x80000 }; /* other threads may be in a session when the process ends */
    if (!api->OPENSSL_init_ssl(NO_ATEXIT, NULL))
        return apf_fail(err, APF_NO_LIBRARY, 0, "%s cannot be initialised", path);
    return APF_OK;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void guard(void) { apf_fork_guard(&lock); }

int apf_ssl_library(const apf_ssl_api **api, apf_error *err)
{
    static apf_ssl_api loaded;
    static int ready; /* changed atomically */
    int code = APF_OK;
    *api = &loaded;
    if (__atomic_load_n(&ready, __ATOMIC_ACQUIRE)) return APF_OK;
    pthread_mutex_lock(&lock);
    if (!ready) {
        /* A failure is not remembered. The library is never closed: sessions may outlive everything here. */
        code = open_library(&loaded, err);
        if (!code) __atomic_store_n(&ready, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    return code;
}
