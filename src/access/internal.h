/* The inside of the module. Private to the folder. */
#ifndef ACCESS_INTERNAL_H
#define ACCESS_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <uthash.h>

#include "access/access.h"
#include "access/policy.h"
#include "access/quota.h"
#include "base/diagnostics.h"

/* ---- accounts.c: what the clients of one user share ---- */

struct account {
    UT_hash_handle hh;
    uint32_t clients; /* under the lock of the accounts */
    _Atomic uint32_t connections, subscriptions;
    struct quota_bucket messages, bytes;
    char name[]; /* zero-terminated */
};

struct accounts {
    pthread_mutex_t lock;
    struct account *rows;
    uint32_t count, idle; /* idle: of users without a client, kept for what they owe */
};

void accounts_init(struct accounts *accounts);
void accounts_fini(struct accounts *accounts);
/* Returns 0, ERR_LIMIT (ACCESS_ACCOUNTS_MAX) or ERR_NO_MEMORY. */
int accounts_take(struct accounts *accounts, const char *name, size_t length, struct account **account);
void accounts_drop(struct accounts *accounts, struct account *account);

/* ---- checker.c: passwords, and the logins that are remembered ---- */

struct check; /* one that waits */
struct cache_slot;

struct checker {
    struct access *access; /* whose policy counts when a check begins */
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t threads[ACCESS_CHECK_THREADS_MAX];
    unsigned thread_count;
    struct check *first, *last;
    uint32_t waiting; /* and being checked */
    uint32_t waiting_max;
    bool stopping;
    pthread_mutex_t cache_lock;
    struct cache_slot *cache; /* [ACCESS_CACHE_SLOTS] */
    uint64_t cache_ns;
    uint8_t key[PASSWORD_DIGEST_SIZE];
    _Atomic uint64_t hashed, remembered;
};

int checker_start(struct checker *checker, struct access *access);
void checker_stop(struct checker *checker); /* its threads; may be called again */
void checker_fini(struct checker *checker);
void checker_forget(struct checker *checker);

/* Whether this login has succeeded a short while ago. */
bool checker_remembers(struct checker *checker, const char *name, const char *hash, const void *password, size_t length);

/* Queues a check. Returns 0, ERR_CREDENTIALS (nobody can be called so), ERR_LIMIT, ERR_CLOSED or ERR_NO_MEMORY. */
int checker_submit(struct checker *checker, const struct access_login *login, access_checked checked, void *context, uint64_t token);

/* ---- audit.c ---- */

struct denial_kept {
    uint64_t time_ns; /* wall clock */
    enum access_denial denial;
    char user[ACCESS_DENIAL_TEXT_MAX + 1], client[ACCESS_DENIAL_TEXT_MAX + 1], topic[ACCESS_DENIAL_TEXT_MAX + 1], peer[64];
    bool has_topic;
};

struct audit {
    _Atomic uint64_t denied[ACCESS_DENIAL_COUNT], logins[ACCESS_WAYS];
    struct diagnostics_limit limits[ACCESS_DENIAL_COUNT];
    pthread_mutex_t lock;
    struct denial_kept *kept; /* [ACCESS_DENIALS_KEPT], a ring */
    uint64_t kept_count;      /* of all that were ever put in */
};

int audit_init(struct audit *audit);
void audit_fini(struct audit *audit);

/* ---- access.c ---- */

struct access {
    struct access_options options;
    pthread_mutex_t lock;
    struct access_policy *policy; /* under lock */
    struct accounts accounts;
    struct checker checker;
    struct audit audit;
};

struct access_policy *access_policy_now(struct access *access); /* a share */

#endif
