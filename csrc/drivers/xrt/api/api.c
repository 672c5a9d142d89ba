/* Find XRT, load it, and ensure that its first call cannot abort the process. */
#include "api.h"

#include <dlfcn.h>
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIBRARY "libxrt_coreutil.so.2"

static xrt_api loaded;
static int ready;
static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;
__attribute__((constructor)) static void guard(void) { apf_fork_guard(&loading); }
static char made_root[64]; /* a temporary installation directory, removed at exit by the process that made it */
static pid_t made_by;

/* -- errors -- */

int xrt_fail(apf_error *err, int code, const char *format, ...)
{
    const int sys = errno;
    char what[400], log[560];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    if (xrt_log_take(log, sizeof log)) {
        /* Newer shims for cards take the kernel module's -1 for the error: "Operation not permitted", whatever it was.
         */
        const int own = sys && loaded.minor >= XRT_SHIM_OBJECTS;
        char reason[128];
        apf_fail(err, code, 0, "%s%s%s; XRT: %s", what, own ? ": " : "",
                 own ? apf_sys_text(sys, reason, sizeof reason) : "", log);
        if (err) err->sys = sys;
        return code;
    }
    return apf_fail(err, code, sys, "%s", what);
}

int xrt_code(int otherwise)
{
    switch (errno) {
    case ENODEV:
    case ENXIO:
    case ESHUTDOWN:
        return APF_DEVICE_LOST;
    case EBUSY:
        return APF_BUSY;
    default:
        return otherwise;
    }
}

/* -- find XRT -- */

/* The library that XRT loads from $XILINX_XRT/lib at its first call; NULL: XRT does not know this mode. */
static const char *shim_of(const char *mode)
{
    if (!mode) return "libxrt_core.so.2";
    if (strcmp(mode, "noop") == 0) return "libxrt_noop.so.2";
    if (strcmp(mode, "sw_emu") == 0) return "libxrt_swemu.so.2";
    if (strcmp(mode, "hw_emu") == 0) return "libxrt_hwemu.so.2";
    return NULL;
}

/* The folders of an installation that may hold its libraries: AMD's packages, Debian's and Fedora's ways. */
#if defined(__aarch64__)
static const char *const folders[] = {"lib", "lib/aarch64-linux-gnu", "lib64"};
#else
static const char *const folders[] = {"lib", "lib/x86_64-linux-gnu", "lib64"};
#endif

/* Fill path[PATH_MAX] with the path of the library in the installation; false: it has none. */
static int find_in(const char *root, const char *library, char *path)
{
    if (!root || !*root) return 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (snprintf(path, PATH_MAX, "%s/%s/%s", root, folders[i], library) < PATH_MAX && access(path, R_OK) == 0)
            return 1;
    return 0;
}

/* Whether XRT 2.13 to 2.19 find their shim there when $XILINX_XRT names it. */
static int serves(const char *root, const char *shim)
{
    char path[PATH_MAX];
    return root && *root && snprintf(path, sizeof path, "%s/lib/%s", root, shim) < (int)sizeof path &&
           access(path, R_OK) == 0;
}

static void remove_made_root(void)
{
    char path[80];
    if (getpid() != made_by) return;
    snprintf(path, sizeof path, "%s/lib", made_root);
    unlink(path);
    rmdir(made_root);
}

/* Distributions put the libraries in a directory that is not called `lib` (/usr/lib/x86_64-linux-gnu), where XRT cannot
 * find its own parts. A private directory with one link, `lib`, to that place is accepted as an installation. */
static const char *make_root(const char *directory)
{
    if (*made_root) return made_root;
    const char *parent = getenv("TMPDIR");
    if (!parent || strlen(parent) > 30) parent = "/tmp";
    char root[sizeof made_root], path[80];
    snprintf(root, sizeof root, "%s/apyfal-xrt-XXXXXX", parent);
    if (!mkdtemp(root)) return NULL;
    snprintf(path, sizeof path, "%s/lib", root);
    if (symlink(directory, path) != 0) {
        rmdir(root);
        return NULL;
    }
    memcpy(made_root, root, sizeof made_root);
    made_by = getpid();
    atexit(remove_made_root);
    return made_root;
}

/* Load the library from `root`, or by the loader's search if that is NULL. */
static void *load_from(const char *root)
{
    char path[PATH_MAX];
    if (!root) return dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!find_in(root, LIBRARY, path)) return NULL;
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

/* NO_LIBRARY unless the shim is in the library's directory. */
static int check_shim(const char *directory, const char *shim, apf_error *err)
{
    char path[PATH_MAX + 32];
    const char *mode = getenv("XCL_EMULATION_MODE");
    snprintf(path, sizeof path, "%s/%s", directory, shim);
    if (access(path, R_OK) == 0) return APF_OK;
    if (mode)
        return apf_fail(err, APF_NO_LIBRARY, 0,
                        "XCL_EMULATION_MODE=%.32s needs XRT's emulation shim %s, which the XRT in %.400s does not "
                        "have; expected an XRT with emulation in XILINX_XRT, or no XCL_EMULATION_MODE for cards",
                        mode, shim, directory);
    return apf_fail(err, APF_NO_LIBRARY, 0,
                    "XRT is incomplete: %s is in %s, but %s is not; set XILINX_XRT to XRT's directory", LIBRARY,
                    directory, shim);
}

/* XRT 2.13 to 2.19 abort the process or find no card unless $XILINX_XRT names an installation with the shim in `lib`.
 */
static int make_set(const char *directory, const char *wanted, const char *shim, apf_error *err)
{
    char real[PATH_MAX], above[PATH_MAX + sizeof "/.."];
    if (!wanted && serves(getenv("XILINX_XRT"), shim)) return APF_OK;
    const char *root = serves(wanted, shim) ? wanted : NULL;
    if (!root) {
        if (!realpath(directory, real))
            return apf_fail(err, APF_NO_LIBRARY, errno, "cannot find where " LIBRARY " was loaded from");
        snprintf(above, sizeof above, "%s/..", real);
        root = above;
        if (!serves(above, shim)) {
            const int code = check_shim(real, shim, err);
            if (code != APF_OK) return code;
            root = make_root(real);
        }
    }
    if (!root) return apf_fail(err, APF_NO_LIBRARY, errno, "cannot make a temporary directory for XRT");
    if (setenv("XILINX_XRT", root, 1) != 0) return apf_fail(err, APF_NO_MEMORY, errno, "cannot set XILINX_XRT");
    return APF_OK;
}

/* Make sure that XRT finds its shim. */
static int set_root(void *library, const xrt_api *api, const char *wanted, const char *shim, apf_error *err)
{
    char directory[PATH_MAX];
    Dl_info where;
    if (wanted && !find_in(wanted, shim, directory))
        return apf_fail(err, APF_NO_LIBRARY, 0, "xrt.root '%s' is not an XRT installation: it has no lib/%s", wanted,
                        shim);
    if (!dladdr(dlsym(library, "xrtDeviceOpen"), &where))
        return apf_fail(err, APF_NO_LIBRARY, 0, "cannot find where " LIBRARY " was loaded from");
    snprintf(directory, sizeof directory, "%s", where.dli_fname);
    dirname(directory);
    if (api->minor < 20) return make_set(directory, wanted, shim, err);
    /* XRT 2.20 to 2.24 go by $XILINX_XRT or by where they were installed, 2.25 by where the library is: each knows the
     * name of the folder. */
    const int code = check_shim(directory, shim, err);
    if (code != APF_OK) return code;
    const char *set = getenv("XILINX_XRT");
    if (wanted && setenv("XILINX_XRT", wanted, 1) != 0)
        return apf_fail(err, APF_NO_MEMORY, errno, "cannot set XILINX_XRT");
    if (!wanted && set && !find_in(set, shim, directory)) unsetenv("XILINX_XRT");
    return APF_OK;
}

/* -- options -- */

static int read_options(const apf_option *options, const char **root, int *keep_log, apf_error *err)
{
    for (; options && options->key; options++) {
        if (strcmp(options->key, "root") == 0) {
            *root = options->value;
        } else if (strcmp(options->key, "log") == 0) {
            *keep_log = strcmp(options->value, "keep") == 0;
            if (!*keep_log && strcmp(options->value, "capture") != 0)
                return apf_fail(err, APF_INVALID, 0, "xrt.log is '%s'; expected capture or keep", options->value);
        } else {
            return apf_fail(err, APF_INVALID, 0, "unknown option 'xrt.%s'; the xrt driver has xrt.root and xrt.log",
                            options->key);
        }
    }
    return APF_OK;
}

/* -- loading -- */

static int resolve(void *library, xrt_api *api, apf_error *err)
{
#define XRT_LOOK_UP(result, name, parameters)                                                                          \
    *(void **)&api->name = dlsym(library, "xrt" #name);                                                                \
    if (!api->name)                                                                                                    \
        return apf_fail(err, APF_NO_LIBRARY, 0, LIBRARY " has no xrt" #name "; XRT 2.13 or newer is needed");
    XRT_API(XRT_LOOK_UP)
#undef XRT_LOOK_UP
    *(void **)&api->RunSetArgV = dlsym(library, "_Z13xrtRunSetArgVPviPKvm");
    unsigned (*minor)(void);
    *(void **)&minor = dlsym(library, "xrtVersionMinor");
    api->minor = minor ? minor() : 0;
    return APF_OK;
}

static int load(const char *wanted, int keep_log, apf_error *err)
{
    const char *mode = getenv("XCL_EMULATION_MODE"), *shim = shim_of(mode);
    if (!shim)
        return apf_fail(err, APF_NO_LIBRARY, 0,
                        "XCL_EMULATION_MODE is '%s'; XRT knows noop, sw_emu and hw_emu (unset: real cards)", mode);
    xrt_api api = {.emulation = mode != NULL};
    snprintf(api.mode, sizeof api.mode, "%s", mode ? mode : "");
    void *library = load_from(wanted ? wanted : getenv("XILINX_XRT"));
    if (!library && !wanted) library = load_from(NULL);
    if (!library && !wanted) library = load_from("/opt/xilinx/xrt"); /* where AMD's packages install it */
    if (!library) {
        const char *reason = dlerror();
        return apf_fail(err, APF_NO_LIBRARY, 0,
                        "AMD XRT is not usable%s%s: %s; install the package xrt, libxrt1 or libxrt2",
                        wanted ? " in " : "", wanted ? wanted : "", reason ? reason : "no lib/" LIBRARY " there");
    }
    int code = resolve(library, &api, err);
    if (code == APF_OK) code = set_root(library, &api, wanted, shim, err);
    if (code != APF_OK) {
        dlclose(library);
        return code;
    }
    if (!keep_log) xrt_log_capture(&api);
    loaded = api;
    return APF_OK;
}

int xrt_load(const apf_option *options, const xrt_api **api, apf_error *err)
{
    const char *wanted = NULL;
    int keep_log = 0;
    int code = read_options(options, &wanted, &keep_log, err);
    if (code != APF_OK) return code;
    pthread_mutex_lock(&loading);
    if (!ready) {
        code = load(wanted, keep_log, err);
        ready = code == APF_OK;
    }
    pthread_mutex_unlock(&loading);
    *api = &loaded;
    return code;
}
