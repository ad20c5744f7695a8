#include "cli/server_access.h"

#include <stdio.h>
#include <unistd.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "control/pages.h"

static int read_policy(struct access_policy **policy, const struct config *config, struct problems *problems)
{
    static const enum access_anonymous anonymous[] = {
        [CONFIG_ANONYMOUS_NEVER] = ACCESS_ANONYMOUS_NEVER,
        [CONFIG_ANONYMOUS_LOOPBACK] = ACCESS_ANONYMOUS_LOOPBACK,
        [CONFIG_ANONYMOUS_ALWAYS] = ACCESS_ANONYMOUS_ALWAYS,
    };
    struct access_sources sources = {
        .anonymous = anonymous[config->access_anonymous], .users = config->access_users, .rules = config->access_rules};
    return access_policy_read(policy, &sources, problems);
}

/* Half of the processors: the others go on serving who is in. */
static unsigned check_threads(void)
{
    long threads = sysconf(_SC_NPROCESSORS_ONLN) / 2;
    return threads < 1 ? 1 : threads > ACCESS_CHECK_THREADS_MAX ? ACCESS_CHECK_THREADS_MAX : (unsigned)threads;
}

int server_access_start(struct access **out, const struct config *config)
{
    struct access_options options = {.check_threads = check_threads(),
                                     .checks_max = config->access_checks_max,
                                     .check_timeout_ns = config_ns(config->access_check_timeout_s),
                                     .cache_ns = config_ns(config->access_login_cache_s)};
    struct access_policy *policy;
    struct problems problems;
    problems_init(&problems);
    int error = read_policy(&policy, config, &problems);
    problems_print(&problems, stderr);
    problems_fini(&problems);
    if (!error) {
        error = access_create(out, &options);
        if (error)
            access_policy_release(policy);
    }
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "access", "users and rules cannot be taken: %s", error_text(error));
    else
        access_set_policy(*out, policy);
    return error;
}

int server_access_reload(struct access *access, const struct config *config, struct problems *problems)
{
    struct access_policy *policy;
    int error = read_policy(&policy, config, problems);
    if (!error)
        access_set_policy(access, policy);
    return error;
}

int server_access_check(const struct config *config, struct problems *problems)
{
    struct access_policy *policy;
    int error = read_policy(&policy, config, problems);
    if (!error)
        access_policy_release(policy);
    return error;
}

void server_access_http_answer(void *context, const struct http_request *request, struct page *page)
{
    (void)request;
    if (access_denials_write(context, &page->body))
        page_render_error(page, 503, error_text(ERR_NO_MEMORY));
}
