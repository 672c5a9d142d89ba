/* Kernels of the software card: models by name, built in or registered, and the checks of their arguments. */
#include "emulator.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct emu_model {
    emu_model *next;
    apf_model_entry entry; /* if registered, entry.name is a copy that this model owns */
    void (*drop)(void *);
    int64_t refs; /* the list and loaded kernels; under the registry's lock */
    int builtin;
};

/* Models that were registered, newest first. */
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static emu_model *registry;

__attribute__((constructor)) static void guard(void) { apf_fork_guard(&registry_lock); }

/* -- registry -- */

static const apf_model_entry *builtin_find(const char *name)
{
    for (const apf_model_entry *const *table = apf_models_builtin; *table; table++)
        for (const apf_model_entry *entry = *table; entry->name; entry++)
            if (!strcmp(entry->name, name)) return entry;
    return NULL;
}

static void model_drop(emu_model *model)
{
    pthread_mutex_lock(&registry_lock);
    const int last = --model->refs == 0;
    pthread_mutex_unlock(&registry_lock);
    if (!last) return;
    if (model->drop) model->drop(model->entry.context);
    if (!model->builtin) apf_free((char *)(uintptr_t)model->entry.name);
    apf_free(model);
}

static char *copy_text(const char *text)
{
    const size_t size = strlen(text) + 1;
    char *copy = apf_calloc(1, size);
    if (copy) memcpy(copy, text, size);
    return copy;
}

/* Replace the model called `name` by `fresh` (NULL: remove it); returns the old one (NULL: none). */
static emu_model *registry_replace(const char *name, emu_model *fresh)
{
    emu_model *old = NULL;
    pthread_mutex_lock(&registry_lock);
    for (emu_model **at = &registry; *at; at = &(*at)->next)
        if (!strcmp((*at)->entry.name, name)) {
            old = *at;
            *at = old->next;
            break;
        }
    if (fresh) {
        fresh->next = registry;
        registry = fresh;
    }
    pthread_mutex_unlock(&registry_lock);
    return old;
}

int apf_model_register(const char *name, apf_model function, void *context, void (*drop)(void *), apf_error *err)
{
    if (builtin_find(name)) return apf_fail(err, APF_INVALID, 0, "the name '%s' is taken by a built-in model", name);
    emu_model *fresh = NULL;
    if (function) {
        fresh = apf_calloc(1, sizeof *fresh);
        char *own = fresh ? copy_text(name) : NULL;
        if (!own) {
            apf_free(fresh);
            return apf_fail(err, APF_NO_MEMORY, 0, "no memory to register model '%s'", name);
        }
        fresh->entry = (apf_model_entry){.name = own, .function = function, .context = context};
        fresh->drop = drop;
        fresh->refs = 1;
    }
    emu_model *old = registry_replace(name, fresh);
    if (old) model_drop(old);
    return APF_OK;
}

/* -- load -- */

/* The names of all models, for a message. */
static void list_models(char *text, size_t size)
{
    size_t length = 0;
    text[0] = '\0';
#define ADD(name) length += (size_t)snprintf(text + length, size - length, "%s%s", length ? ", " : "", (name))
    for (const apf_model_entry *const *table = apf_models_builtin; *table; table++)
        for (const apf_model_entry *entry = *table; entry->name && length < size; entry++) ADD(entry->name);
    pthread_mutex_lock(&registry_lock);
    for (const emu_model *model = registry; model && length < size; model = model->next) ADD(model->entry.name);
    pthread_mutex_unlock(&registry_lock);
#undef ADD
}

/* The registered model of that name, with a reference, or NULL. */
static emu_model *registry_find(const char *name)
{
    pthread_mutex_lock(&registry_lock);
    emu_model *model = registry;
    while (model && strcmp(model->entry.name, name)) model = model->next;
    if (model) model->refs++;
    pthread_mutex_unlock(&registry_lock);
    return model;
}

static int model_find(const char *name, emu_model **found, apf_error *err)
{
    if ((*found = registry_find(name))) return APF_OK;
    const apf_model_entry *entry = builtin_find(name);
    if (!entry) {
        char all[512];
        list_models(all, sizeof all);
        return apf_fail(err, APF_NOT_FOUND, 0, "the emulator has no model '%s'; there are: %s", name, all);
    }
    emu_model *model = apf_calloc(1, sizeof *model);
    if (!model) return apf_fail(err, APF_NO_MEMORY, 0, "no memory to load model '%s'", name);
    model->entry = *entry;
    model->refs = 1;
    model->builtin = 1;
    *found = model;
    return APF_OK;
}

/* Create a kernel of the card; takes ownership of the reference to `model`. */
static int kernel_new(emu_card *card, const apf_program *program, emu_model *model, apf_drv_kernel **loaded,
                      apf_error *err)
{
    apf_drv_kernel *kernel = apf_calloc(1, sizeof *kernel);
    char *arguments = kernel && program->arguments ? copy_text(program->arguments) : NULL;
    if (!kernel || (program->arguments && !arguments)) {
        apf_free(kernel);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory to load model '%s'", program->kernel);
    }
    kernel->card = card;
    kernel->model = model;
    kernel->arguments = arguments;
    kernel->refs = 1;
    *loaded = kernel;
    return APF_OK;
}

static int check_card(emu_card *card, apf_error *err)
{
    pthread_mutex_lock(&card->lock);
    const int code = card->lost ? emu_fail_lost(card, err) : APF_OK;
    pthread_mutex_unlock(&card->lock);
    return code;
}

int emu_load(emu_card *card, const apf_program *program, apf_drv_kernel **loaded, apf_error *err)
{
    int code = check_card(card, err);
    if (code != APF_OK) return code;
    if (!program->kernel || !*program->kernel)
        return apf_fail(err, APF_NOT_FOUND, 0, "no kernel name is given: the emulator loads its models by name");
    emu_model *model = NULL;
    code = model_find(program->kernel, &model, err);
    if (code != APF_OK) return code;
    code = kernel_new(card, program, model, loaded, err);
    if (code != APF_OK) model_drop(model);
    return code;
}

int emu_load_entry(emu_card *card, const apf_program *program, const apf_model_entry *entry, void (*drop)(void *),
                   apf_drv_kernel **loaded, apf_error *err)
{
    int code = check_card(card, err);
    if (code != APF_OK) return code;
    emu_model *model = apf_calloc(1, sizeof *model);
    char *name = model ? copy_text(entry->name) : NULL;
    if (!name) {
        apf_free(model);
        return apf_fail(err, APF_NO_MEMORY, 0, "no memory to load kernel '%s'", entry->name);
    }
    model->entry = *entry;
    model->entry.name = name;
    model->refs = 1;
    code = kernel_new(card, program, model, loaded, err);
    if (code == APF_OK)
        model->drop = drop;
    else
        model_drop(model); /* without calling `drop`: the caller still owns the context */
    return code;
}

void emu_unload(apf_drv_kernel *kernel)
{
    if (__atomic_sub_fetch(&kernel->refs, 1, __ATOMIC_ACQ_REL) > 0) return;
    model_drop(kernel->model);
    apf_free(kernel->arguments);
    apf_free(kernel);
}

const char *emu_kernel_name(const apf_drv_kernel *kernel) { return kernel->model->entry.name; }

uint64_t emu_kernel_quick(const apf_drv_kernel *kernel) { return kernel->model->entry.quick; }

char *emu_kernel_details(const apf_drv_kernel *kernel)
{
    const apf_model_entry *entry = &kernel->model->entry;
    return entry->details ? entry->details(entry->context) : NULL;
}

int emu_call_model(const apf_drv_kernel *kernel, const apf_model_arg *args, uint32_t count,
                   const volatile int *cancelled, apf_error *err)
{
    const apf_model_entry *entry = &kernel->model->entry;
    return entry->function(entry->context, args, count, cancelled, err);
}

/* -- arguments -- */

/* Argument `index` for a message: its number, and its name if the definition gives one. */
static const char *describe(const apf_drv_kernel *kernel, uint32_t index, char *text, size_t size)
{
    const char *name = kernel->arguments;
    for (uint32_t i = 0; name && i < index; i++)
        if ((name = strchr(name, ','))) name++;
    if (!name)
        snprintf(text, size, "argument %u of '%s'", index, emu_kernel_name(kernel));
    else {
        name += strspn(name, " ");
        snprintf(text, size, "argument %u (%.*s) of '%s'", index, (int)strcspn(name, ", "), name,
                 emu_kernel_name(kernel));
    }
    return text;
}

/* What an argument is, for a message. */
static const char *kind_text(const apf_arg *arg, char *text, size_t size)
{
    static const char *const names[] = {"a buffer",
#define NAME(name) "a scalar (" #name ")",
                                        APF_SCALARS(NAME)
#undef NAME
    };
    if (arg->kind == APF_BYTES)
        snprintf(text, size, "a struct or vector of %llu bytes", (unsigned long long)arg->size);
    else
        snprintf(text, size, "%s", arg->kind < sizeof names / sizeof *names ? names[arg->kind] : "of an unknown kind");
    return text;
}

/* What argument `index` must be, for a message. */
static const char *wanted_text(const apf_model_entry *entry, uint32_t index, char *text, size_t size)
{
    const char letter = entry->signature ? entry->signature[index] : 's';
    if (letter == 'r')
        snprintf(text, size, "a struct or vector of %llu bytes", (unsigned long long)entry->sizes[index]);
    else
        snprintf(text, size, "%s", letter == 'b' ? "a buffer" : "a scalar");
    return text;
}

static int check_buffer(const apf_drv_kernel *kernel, const apf_arg *arg, uint32_t index, apf_error *err)
{
    char who[128];
    const apf_drv_bo *bo = arg->bo;
    describe(kernel, index, who, sizeof who);
    if (!bo) return apf_fail(err, APF_ARGUMENT, 0, "%s: no buffer object", who);
    if (bo->card != kernel->card) return apf_fail(err, APF_ARGUMENT, 0, "%s: a buffer object of another device", who);
    if (arg->offset > bo->size || arg->size > bo->size - arg->offset)
        return apf_fail(err, APF_ARGUMENT, 0, "%s: bytes %llu to %llu of a buffer object of %llu", who,
                        (unsigned long long)arg->offset, (unsigned long long)(arg->offset + arg->size),
                        (unsigned long long)bo->size);
    if (arg->offset % EMU_OFFSET_ALIGN)
        return apf_fail(err, APF_MISALIGNED, 0, "%s: offset %llu is not a multiple of %d", who,
                        (unsigned long long)arg->offset, EMU_OFFSET_ALIGN);
    if (arg->flags & (APF_SYNC_TO | APF_SYNC_FROM) && !bo->host)
        return apf_fail(err, APF_ARGUMENT, 0, "%s: a buffer object in device memory has no host side to sync with",
                        who);
    if (arg->flags & APF_SYNC_FROM && bo->readonly)
        return apf_fail(err, APF_READ_ONLY, 0, "%s: its host side is read-only", who);
    return APF_OK;
}

/* Whether the kernel takes an argument of this kind, and of this size if it is a struct. */
static int takes(const apf_model_entry *entry, const apf_arg *arg, uint32_t index)
{
    if (arg->kind > APF_BYTES) return 0;
    if (!entry->signature) return 1;
    const char letter = arg->kind == APF_BUFFER ? 'b' : arg->kind == APF_BYTES ? 'r' : 's';
    return entry->signature[index] == letter && (letter != 'r' || entry->sizes[index] == arg->size);
}

static int check_argument(const apf_drv_kernel *kernel, const apf_arg *arg, uint32_t index, apf_error *err)
{
    char who[128], given[64], wanted[64];
    const apf_model_entry *entry = &kernel->model->entry;
    if (!takes(entry, arg, index))
        return apf_fail(err, APF_ARGUMENT, 0, "%s is %s: expected %s", describe(kernel, index, who, sizeof who),
                        kind_text(arg, given, sizeof given), wanted_text(entry, index, wanted, sizeof wanted));
    return arg->kind == APF_BUFFER ? check_buffer(kernel, arg, index, err) : APF_OK;
}

int emu_check_arguments(const apf_drv_kernel *kernel, const apf_arg *args, uint32_t count, apf_error *err)
{
    const char *signature = kernel->model->entry.signature;
    if (signature && strlen(signature) != count)
        return apf_fail(err, APF_ARGUMENT, 0, "'%s' takes %zu arguments%s%s%s, not %u", emu_kernel_name(kernel),
                        strlen(signature), kernel->arguments ? " (" : "", kernel->arguments ? kernel->arguments : "",
                        kernel->arguments ? ")" : "", count);
    for (uint32_t i = 0; i < count; i++) {
        int code = check_argument(kernel, &args[i], i, err);
        if (code != APF_OK) return code;
    }
    return APF_OK;
}

int emu_bank(apf_drv_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err)
{
    char who[128];
    const char *signature = kernel->model->entry.signature;
    if (signature && index >= strlen(signature))
        return apf_fail(err, APF_ARGUMENT, 0, "'%s' has no argument %u: it takes %zu", emu_kernel_name(kernel), index,
                        strlen(signature));
    if (signature && signature[index] != 'b')
        return apf_fail(err, APF_ARGUMENT, 0, "%s is a scalar", describe(kernel, index, who, sizeof who));
    *bank = 0;
    return APF_OK;
}
