/* What only XRT's C++ interface has, from C: xrt::run::abort(), and the command of a run.
 *
 * Only XRT's C++ interface can abort a run. The implementation of xrtRunHandle is a run_impl *, and an xrt::run is a
 * std::shared_ptr<run_impl>, of which abort() uses only the pointer. abort() reports errors by throwing, and an
 * exception that meets no handler ends the process. C code cannot catch one, but libstdc++ can: ~ios_base() calls the
 * callbacks that were registered with ios_base::register_callback() inside a catch-all. libstdc++ is in the process as
 * soon as XRT is.
 */
#include "api.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

typedef struct shared_run { /* std::shared_ptr<run_impl> that owns nothing */
    xrt_run run;
    void *owner;
} shared_run;

typedef void stream_callback(int event, void *stream, int index);

static struct {
    int (*abort)(const shared_run *);
    void (*construct)(void *stream);
    void (*destroy)(void *stream);
    void (*on_event)(void *stream, stream_callback *, int index);
} cxx;

static _Thread_local struct {
    shared_run run;
    int done;
} asked;

static void look_up(void)
{
    /* Both libraries are loaded by now, so the lookup finds them. */
    void *xrt = dlopen("libxrt_coreutil.so.2", RTLD_NOW | RTLD_NOLOAD);
    void *std = dlopen("libstdc++.so.6", RTLD_NOW | RTLD_NOLOAD);
    if (!xrt || !std) return;
    *(void **)&cxx.construct = dlsym(std, "_ZNSt8ios_baseC2Ev");
    *(void **)&cxx.destroy = dlsym(std, "_ZNSt8ios_baseD2Ev");
    *(void **)&cxx.on_event = dlsym(std, "_ZNSt8ios_base17register_callbackEPFvNS_5eventERS_iEi");
    if (cxx.construct && cxx.destroy && cxx.on_event) *(void **)&cxx.abort = dlsym(xrt, "_ZN3xrt3run5abortEv");
}

int xrt_abort_available(const xrt_api *api)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (api->minor >= XRT_SHIM_OBJECTS) return 0;
    pthread_once(&once, look_up);
    return cxx.abort != NULL;
}

static void abort_asked(int event, void *stream, int index)
{
    (void)event, (void)stream, (void)index;
    cxx.abort(&asked.run);
    asked.done = 1;
}

/* The state of a run is in the lowest four bits of its command, which is in memory that the card's driver writes. */
void xrt_give_up(const xrt_api *api, xrt_run run)
{
    void *(*command)(const shared_run *);
    void *xrt = dlopen("libxrt_coreutil.so.2", RTLD_NOW | RTLD_NOLOAD);
    if (!xrt) return;
    *(void **)&command = dlsym(xrt, "_ZNK3xrt3run14get_ert_packetEv");
    uint32_t *head = command ? command(&(shared_run){run, NULL}) : NULL;
    if (head) __atomic_store_n(head, (*head & ~15u) | XRT_STATE_ABORT, __ATOMIC_RELEASE);
    api->RunState(run); /* it notices now */
}

int xrt_abort(xrt_run run)
{
    _Alignas(16) char stream[1024]; /* a std::ios_base, 216 bytes on 64-bit machines */
    memset(stream, 0, sizeof stream);
    asked.run = (shared_run){run, NULL};
    asked.done = 0;
    cxx.construct(stream);
    cxx.on_event(stream, abort_asked, 0);
    cxx.destroy(stream);
    return asked.done;
}
