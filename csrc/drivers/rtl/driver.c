/* Kernels in Verilog: the software card, with simulated designs in separate processes as its kernels. */
#include "driver_support.h"
#include "rtl.h"

#include <stdio.h>
#include <string.h>

/* Split a list of options into the card's and the simulator's. */
static int split(const apf_option *options, apf_option *cards, size_t capacity, rtl_settings *ours, apf_error *err)
{
    size_t count = 0;
    for (; options && options->key; options++) {
        if (rtl_option_is_ours(options->key)) {
            int code = rtl_settings_set(ours, options->key, options->value, err);
            if (code != APF_OK) return code;
        } else if (count + 1 < capacity)
            cards[count++] = *options;
        else
            return apf_fail(err, APF_INVALID, 0, "rtl: more than %zu options", capacity);
    }
    cards[count] = (apf_option){NULL, NULL};
    return APF_OK;
}

enum { CARDS = 32 };

static void name_card(apf_device_info *info)
{
    uint32_t index = 0;
    sscanf(info->identity, "emulator:%u", &index);
    snprintf(info->name, sizeof info->name, "simulated card %u", index);
    snprintf(info->identity, sizeof info->identity, "rtl:%u", index);
    snprintf(info->version, sizeof info->version, "ABI %d", APF_DRIVER_ABI);
}

static int card_list(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count,
                     apf_error *err)
{
    apf_option cards[CARDS];
    rtl_settings settings = {0};
    int code = split(options, cards, CARDS, &settings, err);
    if (code == APF_OK) code = emu_list(cards, infos, capacity, count, err);
    for (uint32_t i = 0; code == APF_OK && i < *count && i < capacity; i++) name_card(&infos[i]);
    rtl_settings_end(&settings);
    return code;
}

/* The number of the card that `selector` names, as text. NO_DEVICE. */
static int find_card(const char *selector, const apf_option *cards, char *number, size_t size, apf_error *err)
{
    enum { MOST = 64 };
    apf_device_info infos[MOST];
    uint32_t count = 0;
    int code = emu_list(cards, infos, MOST, &count, err);
    if (code != APF_OK) return code;
    for (uint32_t i = 0; i < count && i < MOST; i++) {
        name_card(&infos[i]);
        if (!apf_support_selects(selector, i, &infos[i])) continue;
        snprintf(number, size, "%u", i);
        return APF_OK;
    }
    return apf_fail(err, APF_NO_DEVICE, 0, "no simulated card '%s': there are %u, from 'simulated card 0' on", selector,
                    count);
}

static void companion_end(void *companion)
{
    rtl_card *ours = companion;
    rtl_settings_end(&ours->settings);
    pthread_mutex_destroy(&ours->lock);
    apf_free(ours);
}

static int card_open(const char *selector, const apf_option *options, emu_card **opened, apf_error *err)
{
    apf_option cards[CARDS];
    rtl_card *ours = apf_calloc(1, sizeof *ours);
    if (!ours) return apf_fail(err, APF_NO_MEMORY, 0, "no memory for a simulated card");
    pthread_mutex_init(&ours->lock, NULL);
    emu_card *card = NULL;
    int code = split(options, cards, CARDS, &ours->settings, err);
    char number[16];
    if (code == APF_OK) code = find_card(selector, cards, number, sizeof number, err);
    if (code == APF_OK) code = emu_open(number, cards, &card, err);
    if (code == APF_OK && !(card->memory.arena = emu_arena_new(card->settings.memory, err))) {
        emu_close(card);
        code = APF_NO_MEMORY;
    }
    if (code != APF_OK) {
        companion_end(ours);
        return code;
    }
    card->companion = ours;
    card->companion_end = companion_end;
    *opened = card;
    return APF_OK;
}

static int card_describe(emu_card *card, apf_device_info *info, apf_error *err)
{
    int code = emu_describe(card, info, err);
    if (code == APF_OK) name_card(info);
    return code;
}

static int card_control(emu_card *card, const char *key, const char *value, apf_error *err)
{
    if (!rtl_option_is_ours(key)) return emu_control(card, key, value, err);
    rtl_card *ours = card->companion;
    pthread_mutex_lock(&ours->lock);
    int code = rtl_settings_set(&ours->settings, key, value, err);
    ours->changes++;
    pthread_mutex_unlock(&ours->lock);
    return code;
}

const apf_driver apf_driver_rtl = {
    .abi = APF_DRIVER_ABI,
    .size = sizeof(apf_driver),
    .name = "rtl",
    .summary = "kernels in Verilog, simulated by Verilator",
    .list = card_list,
    .open = card_open,
    .describe = card_describe,
    .close = emu_close,
    .load = rtl_load,
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
    .control = card_control,
    .details = emu_details,
    .transfer = emu_bo_transfer,
};
