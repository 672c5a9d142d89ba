/* models.h - shared by the built-in software models.
 *
 * A model reads and writes only device memory. It checks every size against its buffers, because arguments come from
 * the user. Models that take longer than a few ms check `cancelled` between slices of their data.
 */
#ifndef APF_MODELS_H
#define APF_MODELS_H

#include "apyfal.h"

/* Element types beyond the scalars' (histogram, scale): IEEE 754 half precision. Scalars for it are passed as F32. */
enum { APF_MODEL_F16 = APF_F64 + 1 };

/* What `report` holds: four 64-bit numbers. */
enum { APF_REPORT_CONSUMED, APF_REPORT_PRODUCED, APF_REPORT_STATUS, APF_REPORT_RESERVED, APF_REPORT_COUNT };
/* gunzip's status. DONE: all input is used. FULL: call again with the rest of the input (it may be empty), output may
 * be waiting. */
enum { APF_GUNZIP_DONE = 0, APF_GUNZIP_FULL = 1 };

/* Bytes of the `state` buffers. */
enum { APF_SHA3_STATE = 256, APF_GUNZIP_STATE = 64 << 10 };

extern const apf_model_entry apf_models_basic[], apf_models_scale[], apf_models_histogram[], apf_models_sha3[],
    apf_models_gzip[], apf_models_gunzip[];

static inline int apf_model_stopped(const volatile int *cancelled)
{
    return __atomic_load_n(cancelled, __ATOMIC_RELAXED);
}

/* Read a scalar that must be an integer, 0 or more. KERNEL: it is not. */
int apf_model_count(const apf_model_arg *arg, const char *what, uint64_t *value, apf_error *err);
/* A whole number, wrapped to 64 bits. KERNEL: a float. */
int apf_model_integer(const apf_model_arg *arg, const char *what, uint64_t *value, apf_error *err);
/* A number as a double. */
double apf_model_real(const apf_model_arg *arg);
/* Check that `count` elements of `size` bytes fit in a buffer. KERNEL: they do not. */
int apf_model_fits(const apf_model_arg *arg, const char *what, uint64_t count, uint64_t size, apf_error *err);
/* Write a report; its buffer was checked. */
void apf_model_report(const apf_model_arg *arg, uint64_t consumed, uint64_t produced, uint64_t status);
/* Bytes of an element of `type` (an apf scalar kind or APF_MODEL_F16). KERNEL: unknown type. */
int apf_model_element(uint64_t type, uint64_t *size, apf_error *err);

/* Half precision to and from others, rounding to the nearest, ties to even. */
float apf_half_to_float(uint16_t half);
uint16_t apf_float_to_half(float value);
uint16_t apf_double_to_half(double value);

#endif
