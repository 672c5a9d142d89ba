/* libssl.h - the part of OpenSSL that is used: functions, which are looked up at run time, and constants. Its headers
 * are not needed.
 *
 * All of it is the same in 1.1.1 and 3 where `long` has 64 bits.
 */
#ifndef APF_TRANSPORT_LIBSSL_H
#define APF_TRANSPORT_LIBSSL_H

#include "apyfal.h"

typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_st SSL;
typedef struct ssl_method_st SSL_METHOD;
typedef struct ssl_session_st SSL_SESSION;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;
typedef struct X509_VERIFY_PARAM_st X509_VERIFY_PARAM;
typedef struct asn1_string_st ASN1_STRING;

typedef int (*apf_ssl_new_session)(SSL *, SSL_SESSION *);
typedef int (*apf_bio_write)(BIO *, const char *, int);
typedef int (*apf_bio_read)(BIO *, char *, int);
typedef long (*apf_bio_ctrl)(BIO *, int, long, void *);

/* X(result, name, parameters) */
#define APF_SSL_FUNCTIONS(X)                                                                                           \
    X(int, OPENSSL_init_ssl, (uint64_t, const void *))                                                                 \
    X(unsigned long, OpenSSL_version_num, (void))                                                                      \
    X(const char *, OpenSSL_version, (int))                                                                            \
    X(const SSL_METHOD *, TLS_client_method, (void))                                                                   \
    X(SSL_CTX *, SSL_CTX_new, (const SSL_METHOD *))                                                                    \
    X(void, SSL_CTX_free, (SSL_CTX *))                                                                                 \
    X(unsigned long, SSL_CTX_get_options, (const SSL_CTX *))                                                           \
    X(unsigned long, SSL_CTX_set_options, (SSL_CTX *, unsigned long))                                                  \
    X(unsigned long, SSL_CTX_clear_options, (SSL_CTX *, unsigned long))                                                \
    X(long, SSL_CTX_ctrl, (SSL_CTX *, int, long, void *))                                                              \
    X(void, SSL_CTX_set_verify, (SSL_CTX *, int, void *))                                                              \
    X(X509_VERIFY_PARAM *, SSL_CTX_get0_param, (SSL_CTX *))                                                            \
    X(int, SSL_CTX_load_verify_locations, (SSL_CTX *, const char *, const char *))                                     \
    X(int, SSL_CTX_set_cipher_list, (SSL_CTX *, const char *))                                                         \
    X(int, SSL_CTX_set_ciphersuites, (SSL_CTX *, const char *))                                                        \
    X(void, SSL_CTX_set_security_level, (SSL_CTX *, int))                                                              \
    X(int, SSL_CTX_set_alpn_protos, (SSL_CTX *, const unsigned char *, unsigned))                                      \
    X(void, SSL_CTX_set_default_read_buffer_len, (SSL_CTX *, size_t))                                                  \
    X(void, SSL_CTX_sess_set_new_cb, (SSL_CTX *, apf_ssl_new_session))                                                 \
    X(SSL *, SSL_new, (SSL_CTX *))                                                                                     \
    X(void, SSL_free, (SSL *))                                                                                         \
    X(void, SSL_set_bio, (SSL *, BIO *, BIO *))                                                                        \
    X(BIO *, SSL_get_rbio, (const SSL *))                                                                              \
    X(void, SSL_set_connect_state, (SSL *))                                                                            \
    X(void, SSL_set_shutdown, (SSL *, int))                                                                            \
    X(long, SSL_ctrl, (SSL *, int, long, void *))                                                                      \
    X(X509_VERIFY_PARAM *, SSL_get0_param, (SSL *))                                                                    \
    X(int, SSL_do_handshake, (SSL *))                                                                                  \
    X(int, SSL_read_ex, (SSL *, void *, size_t, size_t *))                                                             \
    X(int, SSL_peek_ex, (SSL *, void *, size_t, size_t *))                                                             \
    X(int, SSL_write_ex, (SSL *, const void *, size_t, size_t *))                                                      \
    X(int, SSL_get_error, (const SSL *, int))                                                                          \
    X(int, SSL_has_pending, (const SSL *))                                                                             \
    X(long, SSL_get_verify_result, (const SSL *))                                                                      \
    X(int, SSL_set_session, (SSL *, SSL_SESSION *))                                                                    \
    X(int, SSL_session_reused, (const SSL *))                                                                          \
    X(int, SSL_SESSION_is_resumable, (const SSL_SESSION *))                                                            \
    X(int, SSL_SESSION_up_ref, (SSL_SESSION *))                                                                        \
    X(void, SSL_SESSION_free, (SSL_SESSION *))                                                                         \
    X(unsigned long, ERR_peek_last_error, (void))                                                                      \
    X(void, ERR_clear_error, (void))                                                                                   \
    X(const char *, ERR_reason_error_string, (unsigned long))                                                          \
    X(const char *, X509_verify_cert_error_string, (long))                                                             \
    X(unsigned long, X509_VERIFY_PARAM_get_flags, (X509_VERIFY_PARAM *))                                               \
    X(int, X509_VERIFY_PARAM_set_flags, (X509_VERIFY_PARAM *, unsigned long))                                          \
    X(int, X509_VERIFY_PARAM_clear_flags, (X509_VERIFY_PARAM *, unsigned long))                                        \
    X(void, X509_VERIFY_PARAM_set_hostflags, (X509_VERIFY_PARAM *, unsigned))                                          \
    X(int, X509_VERIFY_PARAM_set1_host, (X509_VERIFY_PARAM *, const char *, size_t))                                   \
    X(int, X509_VERIFY_PARAM_set1_ip, (X509_VERIFY_PARAM *, const unsigned char *, size_t))                            \
    X(ASN1_STRING *, a2i_IPADDRESS, (const char *))                                                                    \
    X(const unsigned char *, ASN1_STRING_get0_data, (const ASN1_STRING *))                                             \
    X(int, ASN1_STRING_length, (const ASN1_STRING *))                                                                  \
    X(void, ASN1_STRING_free, (ASN1_STRING *))                                                                         \
    X(BIO *, BIO_new, (const BIO_METHOD *))                                                                            \
    X(int, BIO_get_new_index, (void))                                                                                  \
    X(BIO_METHOD *, BIO_meth_new, (int, const char *))                                                                 \
    X(int, BIO_meth_set_write, (BIO_METHOD *, apf_bio_write))                                                          \
    X(int, BIO_meth_set_read, (BIO_METHOD *, apf_bio_read))                                                            \
    X(int, BIO_meth_set_ctrl, (BIO_METHOD *, apf_bio_ctrl))                                                            \
    X(void, BIO_set_data, (BIO *, void *))                                                                             \
    X(void *, BIO_get_data, (BIO *))                                                                                   \
    X(void, BIO_set_init, (BIO *, int))                                                                                \
    X(void, BIO_set_flags, (BIO *, int))                                                                               \
    X(void, BIO_clear_flags, (BIO *, int))

typedef struct apf_ssl_api {
#define APF_SSL_FUNCTION(result, name, parameters) result(*name) parameters;
    APF_SSL_FUNCTIONS(APF_SSL_FUNCTION)
#undef APF_SSL_FUNCTION
} apf_ssl_api;

/* Names as in OpenSSL's headers, with another prefix: those may be included beside these (tests). */
enum {
    APF_SSL_VERIFY_PEER = 1,
    APF_SSL_ERROR_SSL = 1,
    APF_SSL_ERROR_WANT_READ = 2,
    APF_SSL_ERROR_WANT_WRITE = 3,
    APF_SSL_ERROR_SYSCALL = 5,
    APF_SSL_ERROR_ZERO_RETURN = 6,
    APF_SSL_CTRL_MODE = 33,
    APF_SSL_CTRL_SET_READ_AHEAD = 41,
    APF_SSL_CTRL_SET_SESS_CACHE_MODE = 44,
    APF_SSL_CTRL_SET_TLSEXT_HOSTNAME = 55,
    APF_SSL_CTRL_SET_MIN_PROTO_VERSION = 123,
    APF_SSL_CTRL_SET_MAX_PROTO_VERSION = 124,
    APF_SSL_SENT_SHUTDOWN = 1,
    APF_SSL_RECEIVED_SHUTDOWN = 2,
    APF_SSL_MODE_ENABLE_PARTIAL_WRITE = 1,
    APF_SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER = 2,
    APF_SSL_MODE_AUTO_RETRY = 4,
    APF_SSL_SESS_CACHE_CLIENT = 1,
    APF_SSL_SESS_CACHE_NO_INTERNAL = 0x300,
    APF_SSL_R_CERTIFICATE_VERIFY_FAILED = 134,
    APF_SSL_R_UNEXPECTED_EOF = 294,
    APF_ERR_LIB_SSL = 20,
    APF_X509_V_ERR_HOSTNAME_MISMATCH = 62,
    APF_X509_V_ERR_IP_ADDRESS_MISMATCH = 64,
    APF_X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS = 4,
    APF_BIO_TYPE_SOURCE_SINK = 0x400,
    APF_BIO_FLAGS_READ = 1,
    APF_BIO_FLAGS_WRITE = 2,
    APF_BIO_FLAGS_SHOULD_RETRY = 8,
    APF_BIO_FLAGS_ALL_RETRY = 15,
    APF_BIO_CTRL_EOF = 2,
    APF_BIO_CTRL_FLUSH = 11,
};

/* The loaded library. NO_LIBRARY. */
int apf_ssl_library(const apf_ssl_api **api, apf_error *err);

#endif
