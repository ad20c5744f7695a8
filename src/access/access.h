/* Who may connect to the bus, and what each client may do there.
 *
 * The bus asks at CONNECT (access_login; the password is checked by threads of this module, which tell the outcome), keeps what it gets for
 * each client, and asks that for every publish and subscription. Everything that is refused is counted by reason, kept for a while and said
 * (access_deny). What is written down about it is replaced while clients are connected (access_set_policy).
 *
 * Names of users are compared byte by byte. A client that is let in without a name is the user "". */
#ifndef ACCESS_ACCESS_H
#define ACCESS_ACCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"

enum access_anonymous { ACCESS_ANONYMOUS_NEVER, ACCESS_ANONYMOUS_LOOPBACK, ACCESS_ANONYMOUS_ALWAYS };

enum access_denial {
#define DENIAL(id, word, help) ACCESS_DENIAL_##id,
#include "access/denials.def"
#undef DENIAL
    ACCESS_DENIAL_COUNT
};

enum {
    ACCESS_DENIALS_KEPT = 100,
    ACCESS_DENIAL_TEXT_MAX = 200,  /* bytes that are kept of a name or topic */
    ACCESS_TOPIC_KEPT_MAX = 256,   /* a longer topic is looked up in the rules each time */
    ACCESS_ACCOUNTS_MAX = 1000000, /* users that are connected at a time */
    ACCESS_CHECK_THREADS_MAX = 8,
    ACCESS_CACHE_SLOTS = 16384 /* logins that are remembered */
};

/* What the clients of one user may use together (connections, sessions, subscriptions, rates), and each of them (inflight, levels). 0: no
 * limit. */
struct access_limits {
    uint32_t connections;
    uint32_t sessions; /* persistent ones; whoever keeps them counts them */
    uint32_t subscriptions;
    double messages_per_s;
    uint64_t bytes_per_s; /* topic, properties and payload */
    uint16_t inflight;    /* publishes of QoS 1 and 2 without PUBACK or PUBCOMP */
    uint16_t topic_levels;
};

struct access;
struct access_policy;
struct access_client;
struct problems;

struct access_options {
    unsigned check_threads;    /* 1 .. ACCESS_CHECK_THREADS_MAX */
    uint32_t checks_max;       /* passwords that wait to be checked */
    uint64_t check_timeout_ns; /* after which the bus gives up waiting for one */
    uint64_t cache_ns;         /* how long a login that succeeded is known again without the work; 0: not at all */
};

/* Where it is written down. */
struct access_sources {
    enum access_anonymous anonymous;
    const char *users; /* file; "": there are no users, and names are not looked at */
    const char *rules; /* file; "": everything is allowed, without quotas */
};

/* Starts the threads. Returns 0, ERR_NO_MEMORY, or ERR_IO when the system has no randomness. */
int access_create(struct access **access, const struct access_options *options);
void access_destroy(struct access *access); /* after access_stop_checks, and after every client; accepts NULL */

/* Reads and checks. What is wrong goes to `problems`. Returns 0, ERR_CONFIG or ERR_NO_MEMORY. */
int access_policy_read(struct access_policy **policy, const struct access_sources *sources, struct problems *problems);
void access_policy_release(struct access_policy *policy); /* accepts NULL */

/* From now on this one counts; takes it. Logins that were remembered are forgotten. Clients that are connected get it by
 * access_client_renew. */
void access_set_policy(struct access *access, struct access_policy *policy);

/* ---- at CONNECT ---- */

struct access_login {
    const char *user; /* [user_length] as the client says; NULL: no name */
    size_t user_length;
    const void *password; /* [password_length]; NULL: none */
    size_t password_length;
    const char *certificate; /* the name that a verified certificate gives; NULL: none. It needs no password */
    bool loopback;           /* from this machine */
};

/* Runs on a thread of this module; error: 0, ERR_CREDENTIALS, ERR_CLOSED. */
typedef void (*access_checked)(void *context, uint64_t token, int error);

enum access_answer { ACCESS_ADMITTED, ACCESS_CHECKING, ACCESS_REFUSED };
enum access_way { ACCESS_WAY_PASSWORD, ACCESS_WAY_CERTIFICATE, ACCESS_WAY_ANONYMOUS, ACCESS_WAYS };

/* Decides about a login. ADMITTED: *way says by what; the user is the one of the login or of its certificate, or "". REFUSED: *denial says
 * why. CHECKING: `checked` will be called, from another thread and perhaps before this returns; it is a matter of the password. The
 * password is copied for it, and wiped. */
enum access_answer access_login(struct access *access, const struct access_login *login, access_checked checked, void *context,
                                uint64_t token, enum access_way *way, enum access_denial *denial);

/* What waits to be checked is told ERR_CLOSED; when it returns nobody is told any more. */
void access_stop_checks(struct access *access);
uint64_t access_check_timeout_ns(const struct access *access);

/* ---- a client ---- */

/* A client of `user` under the identifier `id`, by what is written down now. Counts as a connection of the user. Returns 0, ERR_LIMIT (the
 * user has as many as allowed; with `replaces` one more is, for a moment) or ERR_NO_MEMORY. */
int access_client_create(struct access *access, const char *user, size_t user_length, const char *id, size_t id_length, bool replaces,
                         struct access_client **client);

/* The same client by what is written down now, or under another identifier; id NULL: the one it has. *client is replaced; it stays on
 * failure (ERR_NO_MEMORY). */
int access_client_renew(struct access *access, struct access_client **client, const char *id, size_t id_length);
void access_client_destroy(struct access *access, struct access_client *client); /* accepts NULL */

const char *access_client_user(const struct access_client *client);
const struct access_limits *access_client_limits(const struct access_client *client);

/* Whether there is anything that it may not do: otherwise nobody needs to ask. */
bool access_client_is_bound(const struct access_client *client);

bool access_may_publish(struct access_client *client, const char *topic, size_t length);
bool access_may_subscribe(const struct access_client *client, const char *filter, size_t length); /* also "$share/NAME/FILTER" */
bool access_levels_fit(const struct access_client *client, const char *topic, size_t length);     /* of a topic or filter */

/* Takes `count` subscriptions (or gives them back, negative). False: the user has as many as allowed; nothing was taken. */
bool access_take_subscriptions(struct access_client *client, int count);

/* ns until the user may publish again; 0: now. What is published is charged then: a large message may go into debt, so none is too large.
 */
uint64_t access_publish_wait_ns(const struct access_client *client, uint64_t now_ns);
void access_publish_charge(struct access_client *client, uint64_t now_ns, size_t bytes);

/* ---- what is said of it ---- */

struct access_event {
    const char *user; /* zero-terminated; NULL: unknown */
    size_t user_length;
    const char *client;
    size_t client_length;
    const char *peer;
    const char *topic; /* or filter; NULL: none */
    size_t topic_length;
};

/* Counts a refusal, keeps it, and tells the operator. Any thread. */
void access_deny(struct access *access, enum access_denial denial, const struct access_event *event);

void access_note_login(struct access *access, enum access_way way, const struct access_event *event);

/* Appends {"denials": [...]}, the last first. Returns 0, ERR_LIMIT or ERR_NO_MEMORY. */
int access_denials_write(struct access *access, struct buffer *json);

#endif
