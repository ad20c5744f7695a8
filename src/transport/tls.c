/* A stream is an SSL over a BIO of our own, which reads what the caller holds and appends to the caller's buffer: the bytes are copied by
 * OpenSSL only where it de- and encrypts them. The context with the files is shared; a reload puts another in its place, and the streams
 * keep theirs. */
#include "transport/tls.h"

#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "base/text.h"

enum { DAY_S = 86400, TICKETS = 1 };

struct tls_context {
    pthread_mutex_t lock;
    SSL_CTX *library;        /* under lock */
    enum tls_user user_from; /* under lock */
    _Atomic int64_t ends_s[TLS_FILES];
};

struct tls_stream {
    SSL *ssl;
    enum tls_side side;
    enum tls_user user_from;
    bool established;
    int error; /* it is over: what tls_stream_read returns */
    const uint8_t *bytes;
    size_t length;       /* of what is there to be read, during a call */
    struct buffer *wire; /* during a call */
    char user[TLS_USER_MAX];
    char host[TLS_HOST_MAX]; /* a client's */
    char why[TLS_TEXT_MAX];
};

/* ---- files ---- */

/* Unix seconds; the last moment that there is for what is not a date. */
static int64_t seconds_of(const ASN1_TIME *time)
{
    struct tm parts;
    return ASN1_TIME_to_tm(time, &parts) ? (int64_t)timegm(&parts) : INT64_MAX;
}

struct age {
    int64_t begins_s, ends_s; /* of all certificates of a file: the last beginning, the first end */
};

static struct age age_of(const char *path)
{
    struct age age = {INT64_MIN, INT64_MAX};
    FILE *file = path ? fopen(path, "re") : NULL;
    X509 *certificate;
    while (file && (certificate = PEM_read_X509(file, NULL, NULL, NULL))) {
        int64_t begins_s = seconds_of(X509_get0_notBefore(certificate)), ends_s = seconds_of(X509_get0_notAfter(certificate));
        age.begins_s = begins_s > age.begins_s ? begins_s : age.begins_s;
        age.ends_s = ends_s < age.ends_s ? ends_s : age.ends_s;
        X509_free(certificate);
    }
    ERR_clear_error();
    if (file)
        fclose(file);
    return age;
}

static void date_text(int64_t seconds, char text[32])
{
    struct tm parts;
    time_t time = (time_t)seconds;
    gmtime_r(&time, &parts);
    strftime(text, 32, "%Y-%m-%d %H:%M UTC", &parts);
}

enum tls_age tls_check_age(const struct tls_options *options, int64_t now_s, struct tls_problem *problem)
{
    enum tls_age worst = TLS_AGE_GOOD;
    for (enum tls_file file = 0; file < TLS_FILES; file++) {
        bool is_ours = file == TLS_FILE_CERTIFICATE; /* of those whom a client trusts some may have ended, in any system */
        const char *path = file == TLS_FILE_KEY || (options->side == TLS_CLIENT && !is_ours) ? NULL : options->files[file];
        struct age age = age_of(path);
        char ends[32], begins[32];
        date_text(age.ends_s == INT64_MAX ? 0 : age.ends_s, ends);
        date_text(age.begins_s == INT64_MIN ? 0 : age.begins_s, begins);
        const char *whose = !is_ours ? "its clients are refused" : options->side == TLS_CLIENT ? "servers refuse it" : "clients refuse it";
        if (age.ends_s <= now_s && worst < TLS_AGE_NOT_VALID) {
            worst = TLS_AGE_NOT_VALID;
            problem->file = file;
            snprintf(problem->text, sizeof problem->text, "%.300s: the certificate ended on %s, and %s; replace it", path, ends, whose);
        } else if (age.begins_s > now_s && worst < TLS_AGE_NOT_VALID) {
            worst = TLS_AGE_NOT_VALID;
            problem->file = file;
            snprintf(problem->text, sizeof problem->text,
                     "%.300s: the certificate does not begin before %s, and %s; look at the clock of this machine, or replace it", path,
                     begins, whose);
        } else if (age.ends_s - now_s < (int64_t)TLS_WARNING_DAYS * DAY_S && worst < TLS_AGE_ENDS_SOON) {
            worst = TLS_AGE_ENDS_SOON;
            problem->file = file;
            snprintf(problem->text, sizeof problem->text,
                     "%.300s: the certificate ends on %s, in %lld days; replace it before, and send SIGHUP", path, ends,
                     (long long)((age.ends_s - now_s) / DAY_S));
        }
    }
    return worst;
}

/* What OpenSSL says of the last failure on this thread. */
static const char *library_reason(void)
{
    unsigned long last = ERR_peek_last_error();
    const char *reason = last ? ERR_reason_error_string(last) : NULL;
    return reason ? reason : "no reason is known";
}

static int wrong(struct tls_problem *problem, enum tls_file file, const char *path, const char *expected)
{
    problem->file = file;
    FILE *readable = fopen(path, "re");
    int error = errno;
    if (readable)
        fclose(readable);
    if (readable)
        snprintf(problem->text, sizeof problem->text, "%.300s: %s (%s)", path, expected, library_reason());
    else
        snprintf(problem->text, sizeof problem->text, "%.300s: cannot be read: %s; correct the path, or let this user read it", path,
                 strerror(error));
    ERR_clear_error();
    return ERR_INVALID;
}

/* Nobody is there to type a password in. */
static int no_password(char *text, int size, int writing, void *context)
{
    (void)text, (void)size, (void)writing, (void)context;
    return -1;
}

/* The one protocol above TLS that we know, by its own name or by that of the HTTP that a WebSocket begins with. Who offers others only is
 * not refused: old clients offer anything. */
static int choose_protocol(SSL *ssl, const unsigned char **chosen, unsigned char *length, const unsigned char *offered,
                           unsigned offered_length, void *context)
{
    (void)ssl, (void)context;
    static const unsigned char known[] = "\x04mqtt\x08http/1.1";
    unsigned char *found;
    if (SSL_select_next_proto(&found, length, known, sizeof known - 1, offered, offered_length) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *chosen = found;
    return SSL_TLSEXT_ERR_OK;
}

static int load_client_ca(SSL_CTX *context, const struct tls_options *options, struct tls_problem *problem)
{
    const char *path = options->files[TLS_FILE_CA];
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (!names || !SSL_CTX_load_verify_locations(context, path, NULL)) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return wrong(problem, TLS_FILE_CA, path, "there is no certificate in it; expected those of who signs client certificates, in PEM");
    }
    SSL_CTX_set_client_CA_list(context, names);
    SSL_CTX_set_verify(
        context, options->client_certificate == TLS_CLIENT_REQUIRED ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER,
        NULL);
    return 0;
}

static int load_server_ca(SSL_CTX *context, const struct tls_options *options, struct tls_problem *problem)
{
    const char *path = options->files[TLS_FILE_CA];
    SSL_CTX_set_verify(context, options->trusts_anyone ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    if (!path)
        return SSL_CTX_set_default_verify_paths(context) ? 0 : ERR_NO_MEMORY;
    if (!SSL_CTX_load_verify_locations(context, path, NULL))
        return wrong(problem, TLS_FILE_CA, path,
                     "there is no certificate in it; expected those of who signs the servers' certificates, in PEM");
    return 0;
}

static int load_ca(SSL_CTX *context, const struct tls_options *options, struct tls_problem *problem)
{
    if (options->side == TLS_CLIENT)
        return load_server_ca(context, options, problem);
    return options->client_certificate == TLS_CLIENT_NONE ? 0 : load_client_ca(context, options, problem);
}

static int load_files(SSL_CTX *context, const struct tls_options *options, struct tls_problem *problem)
{
    const char *certificate = options->files[TLS_FILE_CERTIFICATE], *key = options->files[TLS_FILE_KEY];
    ERR_clear_error();
    if (!certificate && options->side == TLS_CLIENT)
        return load_ca(context, options, problem);
    if (SSL_CTX_use_certificate_chain_file(context, certificate) != 1)
        return wrong(problem, TLS_FILE_CERTIFICATE, certificate,
                     "there is no certificate in it that can be used; expected our own in PEM, then those that signed it");
    if (SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1) {
        bool mismatch = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH ||
                        ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH;
        return wrong(problem, TLS_FILE_KEY, key,
                     mismatch ? "the key does not belong to the certificate; give the one with which it was requested"
                              : "there is no key in it that can be used; expected a private key in PEM, without a password");
    }
    if (SSL_CTX_check_private_key(context) != 1)
        return wrong(problem, TLS_FILE_KEY, key, "the key does not belong to the certificate; give the one with which it was requested");
    return load_ca(context, options, problem);
}

static int make_context(SSL_CTX **out, const struct tls_options *options, struct tls_problem *problem)
{
    static const unsigned char name[] = "spindle"; /* tickets are for sessions of this program only */
    SSL_CTX *context = SSL_CTX_new(options->side == TLS_CLIENT ? TLS_client_method() : TLS_server_method());
    if (!context)
        return ERR_NO_MEMORY;
    SSL_CTX_set_options(context,
                        SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF); /* the tickets hold what there is to know */
    SSL_CTX_set_num_tickets(context, TICKETS);
    SSL_CTX_set_default_passwd_cb(context, no_password);
    if (options->side == TLS_SERVER)
        SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    bool made = SSL_CTX_set_min_proto_version(context, options->only_1_3 ? TLS1_3_VERSION : TLS1_2_VERSION) &&
                SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") && /* of 1.2; those of 1.3 are all good */
                SSL_CTX_set_session_id_context(context, name, sizeof name - 1);
    int error = made ? load_files(context, options, problem) : ERR_NO_MEMORY;
    if (error)
        SSL_CTX_free(context);
    else
        *out = context;
    return error;
}

int tls_context_reload(struct tls_context *context, const struct tls_options *options, struct tls_problem *problem)
{
    SSL_CTX *library;
    int error = make_context(&library, options, problem);
    if (error)
        return error;
    pthread_mutex_lock(&context->lock);
    SSL_CTX *old = context->library;
    context->library = library;
    context->user_from = options->user_from;
    pthread_mutex_unlock(&context->lock);
    SSL_CTX_free(old);
    for (enum tls_file file = 0; file < TLS_FILES; file++) {
        bool used = file == TLS_FILE_CERTIFICATE ||
                    (file == TLS_FILE_CA && options->side == TLS_SERVER && options->client_certificate != TLS_CLIENT_NONE);
        atomic_store(&context->ends_s[file], used ? age_of(options->files[file]).ends_s : INT64_MAX);
    }
    return 0;
}

int tls_context_create(struct tls_context **out, const struct tls_options *options, struct tls_problem *problem)
{
    struct tls_context *context = calloc(1, sizeof *context);
    if (!context)
        return ERR_NO_MEMORY;
    pthread_mutex_init(&context->lock, NULL);
    int error = tls_context_reload(context, options, problem);
    if (error)
        tls_context_destroy(context);
    else
        *out = context;
    return error;
}

int64_t tls_context_ends_s(const struct tls_context *context, enum tls_file file)
{
    return atomic_load(&context->ends_s[file]);
}

void tls_context_destroy(struct tls_context *context)
{
    if (!context)
        return;
    SSL_CTX_free(context->library);
    pthread_mutex_destroy(&context->lock);
    free(context);
}

/* ---- the BIO ---- */

static int bio_read(BIO *bio, char *out, size_t size, size_t *count)
{
    struct tls_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (stream->length == 0) {
        BIO_set_retry_read(bio);
        return 0;
    }
    *count = size < stream->length ? size : stream->length;
    memcpy(out, stream->bytes, *count);
    stream->bytes += *count;
    stream->length -= *count;
    return 1;
}

static int bio_write(BIO *bio, const char *bytes, size_t length, size_t *count)
{
    struct tls_stream *stream = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *count = 0;
    if (!stream->wire || buffer_append(stream->wire, bytes, length))
        return 0;
    *count = length;
    return 1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void make_bio_method(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "spindle");
    if (method && BIO_meth_set_read_ex(method, bio_read) && BIO_meth_set_write_ex(method, bio_write) &&
        BIO_meth_set_ctrl(method, bio_control))
        bio_method = method;
}

/* ---- a connection ---- */

/* The certificate has to be for `host`; a server with several is told which is wanted, by name. */
static bool expect_host(struct tls_stream *stream, const char *host)
{
    X509_VERIFY_PARAM *expected = SSL_get0_param(stream->ssl);
    snprintf(stream->host, sizeof stream->host, "%s", host);
    SSL_set_connect_state(stream->ssl);
    if (X509_VERIFY_PARAM_set1_ip_asc(expected, host))
        return true;
    ERR_clear_error();
    return SSL_set_tlsext_host_name(stream->ssl, host) && SSL_set1_host(stream->ssl, host);
}

int tls_stream_create(struct tls_stream **out, struct tls_context *context, const char *host)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_bio_method);
    struct tls_stream *stream = calloc(1, sizeof *stream);
    BIO *bio = stream && bio_method ? BIO_new(bio_method) : NULL;
    if (bio) {
        pthread_mutex_lock(&context->lock);
        stream->ssl = SSL_new(context->library);
        stream->user_from = context->user_from;
        pthread_mutex_unlock(&context->lock);
    }
    if (!bio || !stream->ssl) {
        BIO_free(bio);
        free(stream);
        return ERR_NO_MEMORY;
    }
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(stream->ssl, bio, bio); /* takes it */
    stream->side = host ? TLS_CLIENT : TLS_SERVER;
    if (!host)
        SSL_set_accept_state(stream->ssl);
    else if (!expect_host(stream, host)) {
        tls_stream_destroy(stream);
        return ERR_NO_MEMORY;
    }
    *out = stream;
    return 0;
}

void tls_stream_destroy(struct tls_stream *stream)
{
    if (!stream)
        return;
    SSL_free(stream->ssl);
    free(stream);
}

/* A name is taken as a user's when it is text of its own: UTF-8, no control characters, no NUL. */
static bool take_name(struct tls_stream *stream, const ASN1_STRING *name)
{
    unsigned char *text = NULL;
    int length = name ? ASN1_STRING_to_UTF8(&text, name) : -1;
    bool good = length > 0 && length < TLS_USER_MAX;
    for (size_t at = 0; good && at < (size_t)length;) {
        uint32_t point;
        size_t size = text_utf8_decode((const char *)text + at, (size_t)length - at, &point);
        good = size && text_is_showable(point);
        at += size;
    }
    if (good)
        snprintf(stream->user, sizeof stream->user, "%s", (const char *)text);
    OPENSSL_free(text);
    return good;
}

static bool take_common_name(struct tls_stream *stream, const X509 *certificate)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    return at >= 0 && take_name(stream, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

static bool take_alternative_name(struct tls_stream *stream, const X509 *certificate)
{
    int wanted = stream->user_from == TLS_USER_DNS ? GEN_DNS : stream->user_from == TLS_USER_EMAIL ? GEN_EMAIL : GEN_URI;
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
        int kind;
        const ASN1_STRING *name = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &kind);
        found = kind == wanted && take_name(stream, name);
    }
    GENERAL_NAMES_free(names);
    return found;
}

static int take_user(struct tls_stream *stream)
{
    const X509 *certificate = stream->side == TLS_SERVER ? SSL_get0_peer_certificate(stream->ssl) : NULL;
    if (!certificate)
        return 0;
    if (stream->user_from == TLS_USER_COMMON_NAME ? take_common_name(stream, certificate) : take_alternative_name(stream, certificate))
        return 0;
    snprintf(stream->why, sizeof stream->why, "its certificate has no name for a user where bus.tls.user_from looks for one");
    return ERR_PERMISSION;
}

/* Whether the peer speaks something else. */
static bool is_no_tls(int reason)
{
    return reason == SSL_R_WRONG_VERSION_NUMBER || reason == SSL_R_HTTP_REQUEST || reason == SSL_R_HTTPS_PROXY_REQUEST ||
           reason == SSL_R_RECORD_LENGTH_MISMATCH || reason == SSL_R_PACKET_LENGTH_TOO_LONG;
}

/* Whether the peer tells by it that it wants another certificate of us. */
static bool is_alert_of_certificate(int reason)
{
    switch (reason) {
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
        return true;
    default:
        return false;
    }
}

static int say_refused_server(struct tls_stream *stream)
{
    long result = SSL_get_verify_result(stream->ssl);
    const char *text = X509_verify_cert_error_string(result);
    size_t size = sizeof stream->why;
    if (result == X509_V_ERR_HOSTNAME_MISMATCH || result == X509_V_ERR_IP_ADDRESS_MISMATCH)
        snprintf(stream->why, size, "its certificate is not for \"%s\": name it as its certificate does, or give it one for that name",
                 stream->host);
    else if (result == X509_V_ERR_CERT_HAS_EXPIRED || result == X509_V_ERR_CERT_NOT_YET_VALID)
        snprintf(stream->why, size, "its certificate is refused: %s; replace it there, or look at the clocks", text);
    else
        snprintf(stream->why, size, "its certificate is refused: %s; name a file with who signed it in ingest.tls.ca", text);
    return ERR_PERMISSION;
}

/* What a client has to say of it. 0: nothing else than a server. */
static int say_of_server(struct tls_stream *stream, int reason)
{
    bool has_certificate = SSL_get_certificate(stream->ssl) != NULL;
    size_t size = sizeof stream->why;
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        return say_refused_server(stream);
    if (is_no_tls(reason) && !stream->established) {
        snprintf(stream->why, size, "it does not speak TLS on this port: take its other port, or mqtt:// in place of mqtts://");
        return ERR_PERMISSION;
    }
    if (is_alert_of_certificate(reason) && has_certificate) {
        snprintf(stream->why, size, "it refuses our certificate (%s): see ingest.tls.certificate, and whom it trusts", library_reason());
        return ERR_PERMISSION;
    }
    if (!has_certificate && (is_alert_of_certificate(reason) || reason == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE)) {
        snprintf(stream->why, size,
                 "it refuses the handshake (%s): it may demand a certificate of us, ingest.tls.certificate and ingest.tls.key",
                 library_reason());
        return ERR_PERMISSION;
    }
    return 0;
}

static int say_of_client(struct tls_stream *stream, int reason)
{
    size_t size = sizeof stream->why;
    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        snprintf(stream->why, size, "its certificate is refused: %s", X509_verify_cert_error_string(SSL_get_verify_result(stream->ssl)));
    else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        snprintf(stream->why, size, "it has shown no certificate");
    else if (is_no_tls(reason) && !stream->established)
        snprintf(stream->why, size, "it does not speak TLS, which this port expects");
    else
        return 0;
    return is_no_tls(reason) ? ERR_PROTOCOL : ERR_PERMISSION;
}

/* Notes why it is over. */
static int fail(struct tls_stream *stream, int status)
{
    int reason = ERR_GET_REASON(ERR_peek_last_error());
    stream->error = stream->side == TLS_CLIENT ? say_of_server(stream, reason) : say_of_client(stream, reason);
    if (!stream->error) {
        stream->error = status == SSL_ERROR_SYSCALL ? ERR_NO_MEMORY : ERR_PROTOCOL;
        snprintf(stream->why, sizeof stream->why, "%s", status == SSL_ERROR_SYSCALL ? "out of memory" : library_reason());
    }
    ERR_clear_error();
    return stream->error;
}

static void shake_hands(struct tls_stream *stream)
{
    int done = SSL_do_handshake(stream->ssl);
    int status = SSL_get_error(stream->ssl, done);
    if (done == 1) {
        stream->established = true;
        stream->error = take_user(stream);
    } else if (status != SSL_ERROR_WANT_READ) {
        fail(stream, status);
    }
}

ptrdiff_t tls_stream_read(struct tls_stream *stream, const uint8_t **bytes, size_t *length, uint8_t *out, size_t size, struct buffer *wire)
{
    stream->bytes = *bytes;
    stream->length = *length;
    stream->wire = wire;
    ERR_clear_error();
    if (!stream->established && !stream->error)
        shake_hands(stream);
    size_t done = 0;
    while (stream->established && !stream->error && done < size) {
        size_t count = 0;
        int good = SSL_read_ex(stream->ssl, out + done, size - done, &count);
        int status = SSL_get_error(stream->ssl, good);
        if (good)
            done += count;
        else if (status == SSL_ERROR_WANT_READ)
            break;
        else if (status == SSL_ERROR_ZERO_RETURN)
            stream->error = ERR_CLOSED;
        else
            fail(stream, status);
    }
    *bytes = stream->bytes;
    *length = stream->length;
    stream->length = 0;
    stream->wire = NULL;
    return done || !stream->error ? (ptrdiff_t)done : stream->error;
}

int tls_stream_write(struct tls_stream *stream, const uint8_t *bytes, size_t length, struct buffer *wire)
{
    assert(stream->established);
    if (stream->error && stream->error != ERR_CLOSED)
        return ERR_CLOSED;
    size_t written = 0;
    ERR_clear_error();
    stream->wire = wire;
    int good = length == 0 || SSL_write_ex(stream->ssl, bytes, length, &written);
    stream->wire = NULL;
    if (!good)
        return fail(stream, SSL_get_error(stream->ssl, good)) == ERR_NO_MEMORY ? ERR_NO_MEMORY : ERR_CLOSED;
    return 0;
}

void tls_stream_finish(struct tls_stream *stream, struct buffer *wire)
{
    if (!stream->established || (stream->error && stream->error != ERR_CLOSED && stream->error != ERR_PERMISSION))
        return;
    ERR_clear_error();
    stream->wire = wire;
    SSL_shutdown(stream->ssl);
    stream->wire = NULL;
    ERR_clear_error();
}

bool tls_stream_is_established(const struct tls_stream *stream)
{
    return stream->established;
}

const char *tls_stream_user(const struct tls_stream *stream)
{
    return stream->user[0] ? stream->user : NULL;
}

const char *tls_stream_version(const struct tls_stream *stream)
{
    return SSL_get_version(stream->ssl);
}

const char *tls_stream_why(const struct tls_stream *stream)
{
    return stream->why;
}
