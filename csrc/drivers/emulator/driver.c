/* The software card: a driver that needs no hardware, for machines without a card and for tests of the layers above.
 *
 * It behaves as a card behind a bus does. Its memory is separate: after a forgotten sync, reads give poison, not the
 * answer. Work is asynchronous, and both transfer directions and compute overlap. A setting can request each kind of
 * failure. Each open creates a separate card with separate memory.
 */
#include "driver_support.h"
#include "emulator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static void describe_card(const emu_settings *settings, uint32_t index, apf_device_info *info)
{
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "software card %u", index);
    snprintf(info->vendor, sizeof info->vendor, "apyfal");
    snprintf(info->identity, sizeof info->identity, "emulator:%u", index);
    snprintf(info->version, sizeof info->version, "ABI %d, zlib %s", APF_DRIVER_ABI, zlibVersion());
    info->memory = settings->memory;
    info->import_align = (uint32_t)settings->import_align;
    info->size_align = 1;
    info->offset_align = EMU_OFFSET_ALIGN;
    info->capabilities = APF_CAP_IMPORT | APF_CAP_OFFSET | APF_CAP_CANCEL | APF_CAP_COUNTERS | APF_CAP_DUPLEX |
                         APF_CAP_SEPARATE_MEMORY | APF_CAP_STRUCTS;
    if (settings->read_only_import) info->capabilities |= APF_CAP_IMPORT_READONLY;
    info->compute_units = 1;
}

int emu_list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count, apf_error *err)
{
    emu_settings settings;
    int code = emu_settings_read(&settings, options, err);
    if (code != APF_OK) return code;
    *count = (uint32_t)settings.devices;
    for (uint32_t i = 0; i < *count && i < capacity; i++) describe_card(&settings, i, &infos[i]);
    return APF_OK;
}

/* The index of the card that `selector` names (an index, or a part of a name or identity). -1: none. */
static int64_t card_select(const emu_settings *settings, const char *selector)
{
    for (uint32_t i = 0; i < settings->devices; i++) {
        apf_device_info info;
        describe_card(settings, i, &info);
        if (apf_support_selects(selector, i, &info)) return i;
    }
    return -1;
}

/* The lock is held for less than a us, often while the thread that takes over a run waits for it. glibc's adaptive
 * mutex spins for about that long before it sleeps. */
static void lock_init(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
#ifdef __GLIBC__
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
    pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

int emu_open(const char *selector, const apf_option *options, emu_card **opened, apf_error *err)
{
    emu_settings settings;
    int code = emu_settings_read(&settings, options, err);
    if (code != APF_OK) return code;
    const int64_t index = card_select(&settings, selector);
    if (index < 0)
        return apf_fail(err, APF_NO_DEVICE, 0, "no software card '%s': there are %llu, from 'software card 0' on",
                        selector ? selector : "", (unsigned long long)settings.devices);
    emu_card *card = apf_calloc(1, sizeof *card);
    if (!card) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a software card");
    card->index = (uint32_t)index;
    card->refs = 1;
    card->settings = settings;
    lock_init(&card->lock);
    emu_queue_init(card);
    *opened = card;
    return APF_OK;
}

int emu_describe(emu_card *card, apf_device_info *info, apf_error *err)
{
    (void)err;
    pthread_mutex_lock(&card->lock);
    describe_card(&card->settings, card->index, info);
    pthread_mutex_unlock(&card->lock);
    return APF_OK;
}

void emu_card_drop(emu_card *card)
{
    pthread_mutex_lock(&card->lock);
    const int last = --card->refs == 0;
    pthread_mutex_unlock(&card->lock);
    if (!last) return;
    emu_runs_end(card);
    emu_queue_end(card);
    emu_memory_end(card);
    if (card->companion_end) card->companion_end(card->companion);
    pthread_mutex_destroy(&card->lock);
    apf_free(card);
}

void emu_close(emu_card *card)
{
    emu_queue_close(card);
    emu_card_drop(card);
}

int emu_counters(emu_card *card, apf_counters *counters, apf_error *err)
{
    (void)err;
    pthread_mutex_lock(&card->lock);
    *counters = card->counters;
    counters->memory_used = card->memory.used;
    pthread_mutex_unlock(&card->lock);
    return APF_OK;
}

int emu_control(emu_card *card, const char *key, const char *value, apf_error *err)
{
    pthread_mutex_lock(&card->lock);
    int code = emu_settings_set(&card->settings, key, value, err);
    pthread_cond_broadcast(&card->wake); /* a sleeping run may have been cancelled: see ignore_cancel */
    pthread_mutex_unlock(&card->lock);
    return code;
}

const apf_driver apf_driver_emulator = {
    .abi = APF_DRIVER_ABI,
    .size = sizeof(apf_driver),
    .name = "emulator",
    .summary = "software card: runs anywhere, with software models of the reference accelerators",
    .list = emu_list,
    .open = emu_open,
    .describe = emu_describe,
    .close = emu_close,
    .load = emu_load,
    .unload = emu_unload,
    .bank = emu_bank,
    .alloc = emu_alloc,
    .import = emu_import,
    .free = emu_free,
    .sync = emu_sync,
    .start = emu_start,
    .wait = emu_wait,
    .cancel = emu_cancel,
    .release = emu_release,
    .times = emu_times,
    .counters = emu_counters,
    .control = emu_control,
    .transfer = emu_bo_transfer,
};
