/* The list of built-in software models, and helpers for them. */
#include "models.h"

#include <string.h>

const apf_model_entry *const apf_models_builtin[] = {
    apf_models_basic, apf_models_scale, apf_models_histogram, apf_models_sha3, apf_models_gzip, apf_models_gunzip, NULL,
};

/* -- arguments -- */

static const uint8_t scalar_sizes[] = {
    [APF_I8] = 1,  [APF_U8] = 1,  [APF_I16] = 2, [APF_U16] = 2, [APF_I32] = 4,       [APF_U32] = 4,
    [APF_I64] = 8, [APF_U64] = 8, [APF_F32] = 4, [APF_F64] = 8, [APF_MODEL_F16] = 2,
};

static int is_signed(uint32_t kind) { return kind == APF_I8 || kind == APF_I16 || kind == APF_I32 || kind == APF_I64; }

/* The low bytes of the value count, as for a register of that width. */
static uint64_t widened(const apf_model_arg *arg)
{
    const unsigned unused = 64 - 8u * scalar_sizes[arg->kind];
    const uint64_t shifted = arg->value.u << unused;
    return is_signed(arg->kind) ? (uint64_t)((int64_t)shifted >> unused) : shifted >> unused;
}

int apf_model_integer(const apf_model_arg *arg, const char *what, uint64_t *value, apf_error *err)
{
    if (arg->kind < APF_I8 || arg->kind > APF_U64)
        return apf_fail(err, APF_KERNEL, 0, "%s is not a whole number", what);
    *value = widened(arg);
    return APF_OK;
}

int apf_model_count(const apf_model_arg *arg, const char *what, uint64_t *value, apf_error *err)
{
    int code = apf_model_integer(arg, what, value, err);
    if (code == APF_OK && is_signed(arg->kind) && (int64_t)*value < 0)
        code = apf_fail(err, APF_KERNEL, 0, "%s is %lld: expected 0 or more", what, (long long)*value);
    return code;
}

double apf_model_real(const apf_model_arg *arg)
{
    if (arg->kind == APF_F32) return (double)arg->value.f;
    if (arg->kind == APF_F64) return arg->value.d;
    return is_signed(arg->kind) ? (double)(int64_t)widened(arg) : (double)widened(arg);
}

int apf_model_fits(const apf_model_arg *arg, const char *what, uint64_t count, uint64_t size, apf_error *err)
{
    if (count <= arg->size / size) return APF_OK;
    return apf_fail(err, APF_KERNEL, 0, "%s has %llu bytes: %llu elements of %llu do not fit", what,
                    (unsigned long long)arg->size, (unsigned long long)count, (unsigned long long)size);
}

int apf_model_element(uint64_t type, uint64_t *size, apf_error *err)
{
    if (type < APF_I8 || type > APF_MODEL_F16)
        return apf_fail(err, APF_KERNEL, 0, "there is no element type %llu", (unsigned long long)type);
    *size = scalar_sizes[type];
    return APF_OK;
}

void apf_model_report(const apf_model_arg *arg, uint64_t consumed, uint64_t produced, uint64_t status)
{
    const uint64_t numbers[APF_REPORT_COUNT] = {
        [APF_REPORT_CONSUMED] = consumed, [APF_REPORT_PRODUCED] = produced, [APF_REPORT_STATUS] = status};
    memcpy(arg->data, numbers, sizeof numbers);
}

/* -- half precision (IEEE 754 binary16) -- */

float apf_half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    const uint32_t exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    float value;
    uint32_t bits;
    if (exponent == 0) { /* subnormal: fraction * 2**-24, exact in single precision */
        value = (float)fraction * 0x1p-24f;
        memcpy(&bits, &value, sizeof bits);
    } else {
        bits = (exponent == 0x1f ? 0xffu : exponent + 127 - 15) << 23 | fraction << 13;
    }
    bits |= sign;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t apf_float_to_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) { /* NaN: keeps its payload, as far as there is room, and stays one */
        const uint16_t nan = (uint16_t)(0x7c00 | (bits >> 13 & 0x3ff));
        return sign | (nan == 0x7c00 ? 0x7c01 : nan);
    }
    if (bits >= 0x477ff000) return sign | 0x7c00; /* from 65520 on the nearest is infinity */
    if (bits < 0x38800000) {                      /* subnormal: let an addition do the rounding, at 2**-24 a step */
        float magnitude;
        memcpy(&magnitude, &bits, sizeof magnitude);
        const volatile float sum = magnitude + 0.5f; /* 0.5 has its last bit at 2**-24 */
        const float rounded = sum;
        memcpy(&bits, &rounded, sizeof bits);
        return sign | (uint16_t)(bits - 0x3f000000);
    }
    const uint32_t odd = bits >> 13 & 1;
    bits += 0xfff + odd; /* half of the last place, less one if the last kept bit is even */
    return sign | (uint16_t)((bits >> 13) - ((127 - 15) << 10));
}

/* Round only once: if the conversion to single precision drops bits, set the last bit, so that the value is never
 * exactly between two halves ("rounding to odd"). */
uint16_t apf_double_to_half(double value)
{
    float single = (float)value;
    if ((double)single != value && value == value) {
        uint32_t bits;
        memcpy(&bits, &single, sizeof bits);
        if (!(bits & 1)) {
            const double magnitude = value < 0 ? -value : value,
                         reached = single < 0 ? -(double)single : (double)single;
            bits += reached < magnitude ? 1u : -1u;
            memcpy(&single, &bits, sizeof single);
        }
    }
    return apf_float_to_half(single);
}
