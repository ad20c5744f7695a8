/* TLS 1.2 and 1.3, of a server and of a client, between the bytes of a stream and what they protect. OpenSSL is behind it; it never sees a
 * socket. */
#ifndef TRANSPORT_TLS_H
#define TRANSPORT_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

enum tls_client_certificate { TLS_CLIENT_NONE, TLS_CLIENT_OPTIONAL, TLS_CLIENT_REQUIRED };
enum tls_user {
    TLS_USER_COMMON_NAME,
    TLS_USER_DNS,
    TLS_USER_EMAIL,
    TLS_USER_URI
}; /* of its certificate: the subject's, or the first SAN */

enum tls_side { TLS_SERVER, TLS_CLIENT };
enum tls_file { TLS_FILE_CERTIFICATE, TLS_FILE_KEY, TLS_FILE_CA, TLS_FILES };

enum {
    TLS_TEXT_MAX = 512, /* bytes of what is said of a file or a connection, with its zero */
    TLS_USER_MAX = 256, /* bytes of a user name, with its zero */
    TLS_HOST_MAX = 256, /* bytes of a host's name that is told, with its zero */
    TLS_WARNING_DAYS = 30
};

struct tls_options {
    enum tls_side side;
    /* PEM: the chain, its owner first; the key; who signs the certificates of the other side. NULL: a server with TLS_CLIENT_NONE needs no
     * last one; a client shows no certificate, and trusts those whom the system trusts. */
    const char *files[TLS_FILES];
    enum tls_client_certificate client_certificate; /* of a server */
    enum tls_user user_from;                        /* of a server */
    bool trusts_anyone;                             /* a client that does not look at the server's certificate */
    bool only_1_3;
};

/* What is wrong with a file, what was expected, and what to do. */
struct tls_problem {
    enum tls_file file;
    char text[TLS_TEXT_MAX]; /* begins with the file's name */
};

struct tls_context;
struct tls_stream;

/* Reads the files. Returns 0 or ERR_INVALID with a problem, ERR_NO_MEMORY. */
int tls_context_create(struct tls_context **context, const struct tls_options *options, struct tls_problem *problem);

/* Reads the files again, for connections that begin from now on; the others go on with what they have. On failure nothing has changed. Any
 * thread. */
int tls_context_reload(struct tls_context *context, const struct tls_options *options, struct tls_problem *problem);

/* When the first certificate of a file ends: Unix seconds; INT64_MAX when there is none. Any thread. */
int64_t tls_context_ends_s(const struct tls_context *context, enum tls_file file);

void tls_context_destroy(struct tls_context *context); /* before its streams or after them; accepts NULL */

/* What time does to the files at now_s (Unix seconds). */
enum tls_age { TLS_AGE_GOOD, TLS_AGE_ENDS_SOON /* within TLS_WARNING_DAYS */, TLS_AGE_NOT_VALID /* any more, or yet */ };
enum tls_age tls_check_age(const struct tls_options *options, int64_t now_s, struct tls_problem *problem);

/* A connection's. A client says whom it wants to reach, by name or address: the certificate has to be for that. `host` is NULL for a
 * server's. 0 or ERR_NO_MEMORY. */
int tls_stream_create(struct tls_stream **stream, struct tls_context *context, const char *host);
void tls_stream_destroy(struct tls_stream *stream); /* accepts NULL */

/* Takes from *bytes, which moves along with *length, and writes at most `size` bytes of what was protected to `out`; what is to be sent is
 * appended to `wire`. Call again while there is something left. Returns how many were written (0: everything was taken, and more is
 * needed), or an error when it is over:
 *   ERR_CLOSED      the peer has closed
 *   ERR_PERMISSION  a certificate was refused, the peer's here or ours there, or does not name a user; or the server that a client is at
 *                   does not speak TLS
 *   ERR_PROTOCOL    anything else; tls_stream_why says what
 *   ERR_NO_MEMORY
 * What a client that has not begun yet reads, with nothing there, begins its handshake. */
ptrdiff_t tls_stream_read(struct tls_stream *stream, const uint8_t **bytes, size_t *length, uint8_t *out, size_t size, struct buffer *wire);

/* Appends `length` bytes, protected. Only when it is established. 0 or ERR_NO_MEMORY; ERR_CLOSED when it is over. */
int tls_stream_write(struct tls_stream *stream, const uint8_t *bytes, size_t length, struct buffer *wire);

/* Appends the goodbye. */
void tls_stream_finish(struct tls_stream *stream, struct buffer *wire);

bool tls_stream_is_established(const struct tls_stream *stream);
const char *tls_stream_user(const struct tls_stream *stream);    /* of the client's certificate; NULL: it has shown none */
const char *tls_stream_version(const struct tls_stream *stream); /* "TLSv1.3"; static */
const char *tls_stream_why(const struct tls_stream *stream);     /* why it failed */

#endif
