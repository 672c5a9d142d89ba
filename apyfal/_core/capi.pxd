"""Declarations of csrc/include/apyfal.h, tls.h and transport.h. No code."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from "apyfal.h" nogil:
    enum:
        APF_OK
        APF_NO_MEMORY
        APF_INVALID
        APF_BUSY
        APF_CLOSED
        APF_TIMEOUT
        APF_CANCELLED
        APF_NOT_FOUND
        APF_PERMISSION
        APF_IO
        APF_TRUNCATED
        APF_MISALIGNED
        APF_READ_ONLY
        APF_UNSUPPORTED
        APF_NO_LIBRARY
        APF_NO_DEVICE
        APF_DEVICE_LOST
        APF_DEVICE_MEMORY
        APF_PROGRAM
        APF_ARGUMENT
        APF_KERNEL
        APF_FORKED
        APF_ERROR_COUNT

    ctypedef struct apf_error:
        int32_t code
        int32_t sys
        char text[1016]

    const char *apf_error_name(int code)
    const char *apf_error_text(int code)
    int apf_fail(apf_error *err, int code, int sys, const char *format, ...)

    uint64_t apf_fail_allocation(int64_t n)
    ctypedef struct apf_live:
        int64_t buffers, mappings, devices, kernels, bos, runs, threads
    apf_live apf_live_get()

    enum:
        APF_BUFFER_LOCKED
        APF_BUFFER_HUGE
        APF_BUFFER_MAPPED
        APF_BUFFER_READONLY
        APF_BUFFER_FOREIGN
    ctypedef struct apf_buffer:
        pass
    int apf_buffer_new(size_t size, apf_buffer **buffer, apf_error *err)
    int apf_buffer_wrap(void *data, size_t size, int readonly, apf_buffer **buffer, apf_error *err)
    void apf_buffer_retain(apf_buffer *buffer)
    void apf_buffer_release(apf_buffer *buffer)
    void *apf_buffer_data(const apf_buffer *buffer)
    size_t apf_buffer_size(const apf_buffer *buffer)
    size_t apf_buffer_capacity(const apf_buffer *buffer)
    uint32_t apf_buffer_flags(const apf_buffer *buffer)
    int64_t apf_buffer_refs(const apf_buffer *buffer)
    int apf_buffer_resize(apf_buffer **buffer, size_t size, apf_error *err)
    apf_buffer *apf_buffer_find(const void *data, size_t size)

    ctypedef struct apf_gate:
        pass
    int apf_gate_enter(apf_gate *gate, int wait)
    void apf_gate_leave(apf_gate *gate)
    uint32_t apf_gate_close(apf_gate *gate)

    ctypedef struct apf_hold:
        apf_buffer *buffer
    ctypedef struct apf_hold_info:
        void *data
        size_t size, capacity
        uint32_t flags
    int apf_hold_view(apf_hold *hold, int wait, apf_hold_info *info)
    void apf_hold_unview(apf_hold *hold)
    int apf_hold_look(apf_hold *hold, int wait, apf_hold_info *info)
    int apf_hold_close(apf_hold *hold, apf_error *err)
    int apf_hold_resize(apf_hold *hold, size_t size, apf_error *err)
    void apf_hold_end(apf_hold *hold)

    ctypedef struct apf_pool_stats:
        uint64_t limit, used, idle, locked, reuses, growths
    void apf_pool_stats_get(apf_pool_stats *stats)
    void apf_pool_limit_set(uint64_t bytes)
    void apf_pool_trim(uint64_t keep)

    enum:
        APF_MAP_READ
        APF_MAP_WRITE
    int apf_mapped_file_new(int fd, uint64_t offset, size_t size, int mode, int populate, apf_buffer **buffer,
                            apf_error *err)
    int apf_mapped_file_flush(apf_buffer *buffer, apf_error *err)
    int apf_copy(void *to, const void *source, size_t size, apf_error *err)

    ctypedef struct apf_option:
        const char *key
        const char *value
    enum:
        APF_CAP_IMPORT
        APF_CAP_IMPORT_READONLY
        APF_CAP_OFFSET
        APF_CAP_CANCEL
        APF_CAP_COUNTERS
        APF_CAP_DUPLEX
        APF_CAP_SEPARATE_MEMORY
        APF_CAP_SHARED_MEMORY
        APF_CAP_STRUCTS
    ctypedef struct apf_device_info:
        char name[128]
        char vendor[64]
        char identity[64]
        char version[64]
        uint64_t memory, max_buffer
        uint32_t import_align, size_align, offset_align, capabilities, compute_units
    ctypedef struct apf_program:
        const void *data
        size_t size
        const char *name
        const char *kernel
        const char *options
        const char *arguments
    enum:
        APF_TO_DEVICE
        APF_FROM_DEVICE
    enum:
        APF_BUFFER
        APF_I8
        APF_U8
        APF_I16
        APF_U16
        APF_I32
        APF_U32
        APF_I64
        APF_U64
        APF_F32
        APF_F64
        APF_BYTES
    enum:
        APF_SYNC_TO
        APF_SYNC_FROM
        APF_READS
    ctypedef union apf_value "__typeof__(((apf_arg *)0)->value)":
        int64_t i
        uint64_t u
        float f
        double d
        uint8_t bytes[8]
        const void *data
    ctypedef struct apf_arg:
        uint32_t kind, flags
        uint64_t offset, size
        apf_value value
    ctypedef struct apf_counters:
        uint64_t to_device, from_device, runs, memory_used
    ctypedef struct apf_times:
        uint64_t start, end
    ctypedef struct apf_driver:
        const char *name
        const char *summary
        int (*list)(const apf_option *options, apf_device_info *infos, uint32_t capacity, uint32_t *count,
                    apf_error *err) noexcept nogil

    ctypedef struct apf_device:
        pass
    ctypedef struct apf_kernel:
        pass
    ctypedef struct apf_bo:
        pass
    ctypedef struct apf_run:
        pass
    const apf_driver *apf_driver_find(const char *name)
    const apf_driver *apf_driver_at(uint32_t index)
    int apf_driver_load(const char *path, const apf_driver **driver, apf_error *err)

    int apf_device_open(const apf_driver *driver, const char *selector, const apf_option *options, apf_device **device,
                        apf_error *err)
    void apf_device_retain(apf_device *device)
    void apf_device_release(apf_device *device)
    int apf_device_close(apf_device *device, apf_error *err)
    const apf_device_info *apf_device_info_of(const apf_device *device)
    const apf_driver *apf_device_driver(const apf_device *device)
    int apf_device_counters(apf_device *device, apf_counters *counters, apf_error *err)
    int apf_device_control(apf_device *device, const char *key, const char *value, apf_error *err)

    int apf_kernel_load(apf_device *device, const apf_program *program, apf_kernel **kernel, apf_error *err)
    void apf_kernel_release(apf_kernel *kernel)
    int apf_device_interface(apf_device *device, const apf_program *program, char *text, size_t size, apf_error *err)
    int apf_kernel_may_write(apf_kernel *kernel, uint32_t index)
    int apf_kernel_bank(apf_kernel *kernel, uint32_t index, uint32_t *bank, apf_error *err)

    int apf_bo_alloc(apf_device *device, uint64_t size, uint32_t bank, apf_bo **bo, apf_error *err)
    int apf_bo_import(apf_device *device, apf_buffer *buffer, uint32_t bank, apf_bo **bo, apf_error *err)
    void apf_bo_retain(apf_bo *bo)
    void apf_bo_release(apf_bo *bo)
    uint64_t apf_bo_size(const apf_bo *bo)
    void *apf_bo_host(const apf_bo *bo)
    int apf_bo_sync(apf_bo *bo, int direction, uint64_t offset, uint64_t size, apf_error *err)
    int apf_device_transfers(const apf_device *device)
    int apf_bo_transfer(apf_bo *bo, int direction, uint64_t offset, void *data, uint64_t size, apf_error *err)

    enum:
        APF_CLEAR
    ctypedef struct apf_run_arg:
        apf_arg arg
        apf_bo *bo
    int apf_run_start(apf_kernel *kernel, const apf_run_arg *args, uint32_t count, apf_run **run, apf_error *err)
    ctypedef struct apf_launch:
        uint32_t dimensions
        uint64_t offset[3]
        uint64_t local[3]
        uint64_t global_ "global"[3]
    int apf_run_start_over(apf_kernel *kernel, const apf_run_arg *args, uint32_t count, const apf_launch *launch,
                           apf_run **run, apf_error *err)
    int apf_run_wait(apf_run *run, int64_t timeout, apf_error *err)
    int apf_run_cancel(apf_run *run, apf_error *err)
    void apf_run_times(apf_run *run, apf_times *times)
    const char *apf_run_details(apf_run *run) nogil
    int apf_run_release(apf_run *run, int64_t grace)
    uint32_t apf_fork_generation()

    ctypedef union apf_model_value "__typeof__(((apf_model_arg *)0)->value)":
        int64_t i
        uint64_t u
        float f
        double d
    ctypedef struct apf_model_arg:
        uint32_t kind
        void *data
        uint64_t size
        apf_model_value value
    ctypedef int (*apf_model)(void *context, const apf_model_arg *args, uint32_t count, const volatile int *cancelled,
                              apf_error *err) noexcept nogil
    int apf_model_register(const char *name, apf_model function, void *context, void (*drop)(void *) noexcept nogil,
                           apf_error *err)

cdef extern from "tls.h" nogil:
    enum:
        APF_TLS_SYSTEM
        APF_TLS_CUT
        APF_TLS_PROTOCOL
        APF_TLS_CERTIFICATE
        APF_TLS_ENDED
        APF_TLS_FAILED
        APF_TLS_WAIT
    ctypedef struct apf_tls_settings:
        uint64_t options
        unsigned long verify_flags
        int minimum, maximum, level, verify
        const char *ciphers
        const char *suites
    ctypedef struct apf_tls_failure:
        int kind, code
        char text[256]
    ctypedef struct apf_tls_context:
        pass
    ctypedef struct apf_tls:
        pass
    int apf_tls_load(unsigned long *version, const char **text, apf_error *err)
    int apf_tls_context_new(const apf_tls_settings *settings, apf_tls_context **context, apf_error *err)
    int apf_tls_context_trust(apf_tls_context *context, const char *file, const char *folder, apf_error *err)
    void apf_tls_context_release(apf_tls_context *context)
    int apf_tls_new(apf_tls_context *context, int fd, const char *host, int port, apf_tls **tls, apf_error *err)
    void apf_tls_free(apf_tls *tls)
    int apf_tls_claim(apf_tls *tls)
    void apf_tls_unclaim(apf_tls *tls)
    void apf_tls_close(apf_tls *tls)
    int apf_tls_closed(const apf_tls *tls)
    int apf_tls_take_socket(apf_tls *tls)
    int apf_tls_handshake(apf_tls *tls)
    Py_ssize_t apf_tls_receive(apf_tls *tls, void *to, size_t size)
    Py_ssize_t apf_tls_send(apf_tls *tls, const void *data, size_t size, int more)
    int apf_tls_flush(apf_tls *tls)
    size_t apf_tls_held(const apf_tls *tls)
    int apf_tls_quiet(apf_tls *tls)
    int apf_tls_poll(const apf_tls *tls, int64_t wait)
    int apf_tls_resumed(const apf_tls *tls)
    const apf_tls_failure *apf_tls_failure_of(const apf_tls *tls)

cdef extern from "transport.h" nogil:
    enum:
        APF_EXCHANGE_WAITING
        APF_EXCHANGE_ACTIVE
        APF_EXCHANGE_DONE
        APF_EXCHANGE_ANSWERED
        APF_EXCHANGE_BROKEN
        APF_EXCHANGE_STALLED
        APF_EXCHANGE_UNFIT
        APF_TRANSPORT_ENDED
        APF_TRANSPORT_FEWER
        APF_TRANSPORT_PAUSED
        APF_TRANSPORT_CONNECTIONS
    ctypedef struct apf_exchange:
        const uint8_t *request
        size_t request_size
        const uint8_t *content
        size_t content_size
        uint8_t *out
        size_t out_size
        uint8_t guessed, discard, keep_head, bodiless, state
        uint16_t status
        apf_buffer *buffer
        size_t length, received
        uint8_t *kept
        size_t head_size, kept_size
    ctypedef struct apf_transport_options:
        int64_t stall
        uint64_t largest
        uint32_t mistakes
    ctypedef struct apf_transport:
        pass
    int apf_transport_new(apf_exchange *exchanges, size_t count, const apf_transport_options *options,
                          apf_transport **transport, apf_error *err)
    int apf_transport_claim(apf_transport *transport)
    void apf_transport_unclaim(apf_transport *transport)
    int apf_transport_attach(apf_transport *transport, int fd, apf_tls *secure, int kept, uint32_t *slot,
                             apf_error *err)
    int apf_transport_detach(apf_transport *transport, uint32_t slot)
    int apf_transport_run(apf_transport *transport, uint32_t connections, int64_t pause, apf_error *err)
    void apf_transport_cancel(apf_transport *transport)
    int apf_transport_lost(const apf_transport *transport, uint32_t slot)
    int apf_transport_usable(const apf_transport *transport, uint32_t slot)
    void apf_transport_free(apf_transport *transport)
