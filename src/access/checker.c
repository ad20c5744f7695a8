/* Checking a password takes tens of milliseconds on purpose, so it has threads of its own, which stand back behind all others, and a
 * queue with an end. A login that has succeeded is known again for a while by a digest of it under a key that only this process has: all
 * clients of a broken network come back at once. One that fails costs the full price each time. */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "access/internal.h"
#include "base/clock.h"
#include "base/error.h"

enum { CACHE_WAYS = 4, CHECK_NICENESS = 10, CHECK_PASSWORD_MAX = 1024 };

struct check {
    struct check *next;
    access_checked checked;
    void *context;
    uint64_t token;
    size_t name_length, password_length;
    char name[USERS_NAME_MAX + 1];
    uint8_t password[]; /* [password_length] */
};

struct cache_slot {
    uint64_t until_ns; /* monotonic; 0: empty */
    uint8_t digest[PASSWORD_DIGEST_SIZE];
};

/* ---- what is remembered ---- */

static struct cache_slot *cache_set(struct checker *checker, const uint8_t *digest)
{
    uint32_t at;
    memcpy(&at, digest, sizeof at);
    return &checker->cache[at % (ACCESS_CACHE_SLOTS / CACHE_WAYS) * CACHE_WAYS];
}

static bool cache_has(struct checker *checker, const uint8_t *digest)
{
    uint64_t now_ns = clock_monotonic_ns();
    bool found = false;
    pthread_mutex_lock(&checker->cache_lock);
    const struct cache_slot *set = cache_set(checker, digest);
    for (unsigned i = 0; i < CACHE_WAYS; i++)
        found |= set[i].until_ns > now_ns && password_digest_equal(set[i].digest, digest);
    pthread_mutex_unlock(&checker->cache_lock);
    return found;
}

/* In place of what would be forgotten next. */
static void cache_put(struct checker *checker, const uint8_t *digest)
{
    pthread_mutex_lock(&checker->cache_lock);
    struct cache_slot *set = cache_set(checker, digest), *slot = set;
    for (unsigned i = 1; i < CACHE_WAYS; i++)
        if (set[i].until_ns < slot->until_ns)
            slot = &set[i];
    slot->until_ns = clock_monotonic_ns() + checker->cache_ns;
    memcpy(slot->digest, digest, sizeof slot->digest);
    pthread_mutex_unlock(&checker->cache_lock);
}

bool checker_remembers(struct checker *checker, const char *name, const char *hash, const void *password, size_t length)
{
    if (!checker->cache_ns)
        return false;
    uint8_t digest[PASSWORD_DIGEST_SIZE];
    password_digest(checker->key, name, hash, password, length, digest);
    bool found = cache_has(checker, digest);
    password_wipe(digest, sizeof digest);
    if (found)
        atomic_fetch_add_explicit(&checker->remembered, 1, memory_order_relaxed);
    return found;
}

void checker_forget(struct checker *checker)
{
    pthread_mutex_lock(&checker->cache_lock);
    password_wipe(checker->cache, ACCESS_CACHE_SLOTS * sizeof *checker->cache);
    pthread_mutex_unlock(&checker->cache_lock);
}

/* ---- the queue ---- */

static void check_free(struct check *check)
{
    password_wipe(check, sizeof *check + check->password_length);
    free(check);
}

int checker_submit(struct checker *checker, const struct access_login *login, access_checked checked, void *context, uint64_t token)
{
    if (login->user_length > USERS_NAME_MAX || login->password_length > CHECK_PASSWORD_MAX)
        return ERR_CREDENTIALS; /* nobody is called so, whoever asks */
    struct check *check = malloc(sizeof *check + login->password_length);
    if (!check)
        return ERR_NO_MEMORY;
    *check = (struct check){.checked = checked,
                            .context = context,
                            .token = token,
                            .name_length = login->user_length,
                            .password_length = login->password_length};
    memcpy(check->name, login->user, login->user_length);
    if (login->password_length)
        memcpy(check->password, login->password, login->password_length);
    pthread_mutex_lock(&checker->lock);
    int error = checker->stopping ? ERR_CLOSED : checker->waiting >= checker->waiting_max ? ERR_LIMIT : 0;
    if (!error) {
        if (checker->last)
            checker->last->next = check;
        else
            checker->first = check;
        checker->last = check;
        checker->waiting++;
        pthread_cond_signal(&checker->more);
    }
    pthread_mutex_unlock(&checker->lock);
    if (error)
        check_free(check);
    return error;
}

/* By the users as they are now; the same login may have succeeded while this one waited. */
static bool is_right(struct checker *checker, const struct check *check, const struct users *users)
{
    const char *hash = users_find(users, check->name, check->name_length);
    if (hash && checker_remembers(checker, check->name, hash, check->password, check->password_length))
        return true;
    atomic_fetch_add_explicit(&checker->hashed, 1, memory_order_relaxed);
    if (!password_matches(hash ? hash : users->decoy, check->password, check->password_length) || !hash)
        return false;
    if (checker->cache_ns) {
        uint8_t digest[PASSWORD_DIGEST_SIZE];
        password_digest(checker->key, check->name, hash, check->password, check->password_length, digest);
        cache_put(checker, digest);
        password_wipe(digest, sizeof digest);
    }
    return true;
}

static int outcome(struct checker *checker, const struct check *check)
{
    struct access_policy *policy = access_policy_now(checker->access);
    bool right = is_right(checker, check, &policy->users);
    policy_release(policy);
    return right ? 0 : ERR_CREDENTIALS;
}

static void *run(void *context)
{
    struct checker *checker = context;
    setpriority(PRIO_PROCESS, (id_t)gettid(), CHECK_NICENESS); /* of this thread */
    pthread_mutex_lock(&checker->lock);
    for (;;) {
        while (!checker->first && !checker->stopping)
            pthread_cond_wait(&checker->more, &checker->lock);
        struct check *check = checker->first;
        if (!check)
            break;
        checker->first = check->next;
        if (!checker->first)
            checker->last = NULL;
        bool stopping = checker->stopping;
        pthread_mutex_unlock(&checker->lock);
        check->checked(check->context, check->token, stopping ? ERR_CLOSED : outcome(checker, check));
        check_free(check);
        pthread_mutex_lock(&checker->lock);
        checker->waiting--;
    }
    pthread_mutex_unlock(&checker->lock);
    return NULL;
}

/* ---- start and stop ---- */

int checker_start(struct checker *checker, struct access *access)
{
    const struct access_options *options = &access->options;
    checker->access = access;
    checker->waiting_max = options->checks_max;
    checker->cache_ns = options->cache_ns;
    pthread_mutex_init(&checker->lock, NULL);
    pthread_mutex_init(&checker->cache_lock, NULL);
    pthread_cond_init(&checker->more, NULL);
    checker->cache = calloc(ACCESS_CACHE_SLOTS, sizeof *checker->cache);
    if (!checker->cache)
        return ERR_NO_MEMORY;
    password_random(checker->key, sizeof checker->key);
    for (unsigned i = 0; i < options->check_threads && i < ACCESS_CHECK_THREADS_MAX; i++) {
        if (pthread_create(&checker->threads[i], NULL, run, checker))
            return ERR_NO_MEMORY;
        checker->thread_count++;
    }
    return 0;
}

void checker_stop(struct checker *checker)
{
    pthread_mutex_lock(&checker->lock);
    checker->stopping = true;
    pthread_cond_broadcast(&checker->more);
    pthread_mutex_unlock(&checker->lock);
    while (checker->thread_count)
        pthread_join(checker->threads[--checker->thread_count], NULL);
}

void checker_fini(struct checker *checker)
{
    if (checker->cache)
        checker_forget(checker);
    free(checker->cache);
    password_wipe(checker->key, sizeof checker->key);
    pthread_mutex_destroy(&checker->lock);
    pthread_mutex_destroy(&checker->cache_lock);
    pthread_cond_destroy(&checker->more);
}
