/* The module as a whole: what counts now, and the decision about a login. */
#include "access/access.h"

#include <stdlib.h>
#include <string.h>

#include "access/internal.h"
#include "base/error.h"
#include "base/metrics.h"

static void collect(void *owner, struct metrics_writer *writer)
{
    static const char *const words[ACCESS_DENIAL_COUNT] = {
#define DENIAL(id, word, help) word,
#include "access/denials.def"
#undef DENIAL
    };
    static const char *const ways[ACCESS_WAYS] = {"password", "certificate", "anonymous"};
    struct access *access = owner;
    for (unsigned i = 0; i < ACCESS_DENIAL_COUNT; i++)
        metrics_sample_u64(writer, METRIC_ACCESS_DENIED, atomic_load(&access->audit.denied[i]), "reason", words[i], NULL);
    for (unsigned i = 0; i < ACCESS_WAYS; i++)
        metrics_sample_u64(writer, METRIC_ACCESS_LOGINS, atomic_load(&access->audit.logins[i]), "way", ways[i], NULL);
    metrics_sample_u64(writer, METRIC_ACCESS_CHECKS, atomic_load(&access->checker.hashed), "how", "hashed", NULL);
    metrics_sample_u64(writer, METRIC_ACCESS_CHECKS, atomic_load(&access->checker.remembered), "how", "remembered", NULL);
    pthread_mutex_lock(&access->checker.lock);
    uint32_t waiting = access->checker.waiting;
    pthread_mutex_unlock(&access->checker.lock);
    metrics_sample_u64(writer, METRIC_ACCESS_CHECKS_WAITING, waiting, NULL);
}

int access_create(struct access **out, const struct access_options *options)
{
    struct access *access = calloc(1, sizeof *access);
    if (!access)
        return ERR_NO_MEMORY;
    access->options = *options;
    pthread_mutex_init(&access->lock, NULL);
    accounts_init(&access->accounts);
    int error = password_init();
    int kept = audit_init(&access->audit), started = checker_start(&access->checker, access);
    error = error ? error : kept ? kept : started;
    if (!error && !(access->policy = calloc(1, sizeof *access->policy)))
        error = ERR_NO_MEMORY;
    if (!error) {
        access->policy->shares = 1;
        access->policy->anonymous = ACCESS_ANONYMOUS_LOOPBACK; /* until another is set */
        error = metrics_register(collect, access);
    }
    if (error) {
        access_destroy(access);
        return error;
    }
    *out = access;
    return 0;
}

void access_stop_checks(struct access *access)
{
    checker_stop(&access->checker);
}

void access_destroy(struct access *access)
{
    if (!access)
        return;
    metrics_unregister(collect, access);
    checker_stop(&access->checker);
    checker_fini(&access->checker);
    accounts_fini(&access->accounts);
    audit_fini(&access->audit);
    policy_release(access->policy);
    pthread_mutex_destroy(&access->lock);
    free(access);
}

uint64_t access_check_timeout_ns(const struct access *access)
{
    return access->options.check_timeout_ns;
}

/* ---- what counts now ---- */

struct access_policy *access_policy_now(struct access *access)
{
    pthread_mutex_lock(&access->lock);
    struct access_policy *policy = policy_share(access->policy);
    pthread_mutex_unlock(&access->lock);
    return policy;
}

void access_set_policy(struct access *access, struct access_policy *policy)
{
    pthread_mutex_lock(&access->lock);
    struct access_policy *before = access->policy;
    access->policy = policy;
    pthread_mutex_unlock(&access->lock);
    policy_release(before);
    checker_forget(&access->checker);
}

/* ---- logins ---- */

static bool may_be_anonymous(const struct access_policy *policy, bool loopback)
{
    return policy->anonymous == ACCESS_ANONYMOUS_ALWAYS || (policy->anonymous == ACCESS_ANONYMOUS_LOOPBACK && loopback);
}

static enum access_answer check(struct access *access, struct access_policy *policy, const struct access_login *login,
                                access_checked checked, void *context, uint64_t token, enum access_denial *denial)
{
    const char *hash = users_find(&policy->users, login->user, login->user_length);
    char name[USERS_NAME_MAX + 1];
    if (hash) {
        memcpy(name, login->user, login->user_length);
        name[login->user_length] = 0;
        if (checker_remembers(&access->checker, name, hash, login->password, login->password_length))
            return ACCESS_ADMITTED;
    }
    int error = checker_submit(&access->checker, login, checked, context, token);
    if (!error)
        return ACCESS_CHECKING;
    *denial = error == ERR_CREDENTIALS ? ACCESS_DENIAL_CREDENTIALS : ACCESS_DENIAL_BUSY;
    return ACCESS_REFUSED;
}

enum access_answer access_login(struct access *access, const struct access_login *login, access_checked checked, void *context,
                                uint64_t token, enum access_way *way, enum access_denial *denial)
{
    struct access_policy *policy = access_policy_now(access);
    enum access_answer answer = ACCESS_ADMITTED;
    bool named = login->user && policy->has_users;
    if (login->certificate && !login->password) {
        *way = ACCESS_WAY_CERTIFICATE;
    } else if (named && !login->password) {
        answer = ACCESS_REFUSED;
        *denial = ACCESS_DENIAL_CREDENTIALS;
    } else if (named) {
        *way = ACCESS_WAY_PASSWORD;
        answer = check(access, policy, login, checked, context, token, denial);
    } else if (may_be_anonymous(policy, login->loopback)) {
        *way = ACCESS_WAY_ANONYMOUS;
    } else {
        answer = ACCESS_REFUSED;
        *denial = ACCESS_DENIAL_ANONYMOUS;
    }
    policy_release(policy);
    return answer;
}
