#include "cli/reload.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"
#include "cli/server_ingest.h"
#include "cli/server_transports.h"
#include "control/pages.h"

struct reload {
    const struct config_sources *sources;
    pthread_mutex_t lock;  /* guards what follows */
    struct server *server; /* NULL: it is starting or stopping */
    struct config current; /* as it was read last */
};

int reload_create(struct reload **out, const struct config_sources *sources)
{
    struct problems known; /* they were told */
    struct reload *reload = calloc(1, sizeof *reload);
    if (!reload)
        return ERR_NO_MEMORY;
    problems_init(&known);
    int error = config_load(&reload->current, sources, &known);
    problems_fini(&known);
    if (error) {
        free(reload);
        return error;
    }
    reload->sources = sources;
    pthread_mutex_init(&reload->lock, NULL);
    *out = reload;
    return 0;
}

void reload_destroy(struct reload *reload)
{
    if (!reload)
        return;
    config_fini(&reload->current);
    pthread_mutex_destroy(&reload->lock);
    free(reload);
}

void reload_begin(struct reload *reload, struct server *server)
{
    pthread_mutex_lock(&reload->lock);
    reload->server = server;
    pthread_mutex_unlock(&reload->lock);
}

void reload_end(struct reload *reload)
{
    reload_begin(reload, NULL);
}

void reload_set_diagnostics(const struct config *config)
{
    static const enum diagnostics_level levels[] = {
        [CONFIG_LEVEL_DEBUG] = DIAGNOSTICS_DEBUG,
        [CONFIG_LEVEL_INFO] = DIAGNOSTICS_INFO,
        [CONFIG_LEVEL_WARNING] = DIAGNOSTICS_WARNING,
        [CONFIG_LEVEL_ERROR] = DIAGNOSTICS_ERROR,
    };
    diagnostics_set_level(levels[config->diagnostics_level]);
    diagnostics_set_json(config->diagnostics_format == CONFIG_FORMAT_JSON);
}

/* What cannot change while running keeps its value until the next start, and is named. Appends the names to `json`. */
static void say_what_waits(const struct config *before, const struct config *after, struct buffer *json)
{
    enum config_setting changed[CONFIG_SETTING_COUNT];
    size_t count = config_diff(before, after, changed);
    for (size_t i = 0; i < count; i++) {
        bool reloads = config_setting_reloads(changed[i]);
        diagnostics(DIAGNOSTICS_INFO, "run", "%s changed; %s", config_setting_path(changed[i]),
                    reloads ? "the new value holds from now on" : "it takes effect at the next start");
        buffer_printf(json, "%s{\"path\":\"%s\",\"holds\":%s}", i ? "," : "", config_setting_path(changed[i]), reloads ? "true" : "false");
    }
    if (count == 0)
        diagnostics(DIAGNOSTICS_INFO, "run", "the configuration was read again; nothing changed in it");
}

/* Under the lock. Appends what changed to `json`. */
static int take_over(struct reload *reload, struct problems *problems, struct buffer *json)
{
    struct config fresh;
    if (!reload->server)
        return ERR_CLOSED;
    int error = config_load(&fresh, reload->sources, problems);
    if (error)
        return error;
    size_t before = problems->errors; /* a mistake anywhere changes nothing */
    server_transports_check(&fresh, problems);
    server_ingest_check(&fresh, problems);
    error = problems->errors > before ? ERR_CONFIG : server_reload(reload->server, &fresh, problems);
    if (error) {
        config_fini(&fresh);
        return error;
    }
    reload_set_diagnostics(&fresh);
    say_what_waits(&reload->current, &fresh, json);
    config_fini(&reload->current);
    reload->current = fresh;
    return 0;
}

/* Returns as take_over; what is wrong was written to standard error too. */
static int run(struct reload *reload, struct problems *problems, struct buffer *json)
{
    pthread_mutex_lock(&reload->lock);
    int error = take_over(reload, problems, json);
    pthread_mutex_unlock(&reload->lock);
    problems_print(problems, stderr);
    if (error && error != ERR_CLOSED)
        diagnostics(DIAGNOSTICS_ERROR, "run", "%s; the old configuration holds, with its users and rules",
                    error == ERR_CONFIG ? "the configuration, or a file that it names, has mistakes" : error_text(error));
    return error;
}

enum { ANSWER_BYTES_MAX = 1 << 20 };

void reload_now(struct reload *reload)
{
    struct problems problems;
    struct buffer changed;
    problems_init(&problems);
    buffer_init(&changed, ANSWER_BYTES_MAX);
    run(reload, &problems, &changed);
    buffer_fini(&changed);
    problems_fini(&problems);
}

static int write_answer(struct buffer *body, int error, const struct problems *problems, struct buffer *changed)
{
    int failed = buffer_printf(body, "{\"ok\":%s,\"changed\":[", error ? "false" : "true");
    failed = failed ? failed : buffer_append(body, changed->data, changed->length);
    failed = failed ? failed : buffer_append_text(body, "],\"problems\":[");
    for (size_t i = 0; !failed && i < problems->count; i++) {
        struct buffer line;
        buffer_init(&line, ANSWER_BYTES_MAX);
        failed = i ? buffer_append_text(body, ",") : 0;
        failed = failed ? failed : problem_write(&problems->items[i], &line);
        failed = failed ? failed : buffer_append_json_string(body, (const char *)line.data, line.length, 0);
        buffer_fini(&line);
    }
    return failed ? failed : buffer_append_text(body, "]}\n");
}

void reload_http_answer(void *context, const struct http_request *request, struct page *page)
{
    struct problems problems;
    struct buffer changed;
    (void)request;
    problems_init(&problems);
    buffer_init(&changed, ANSWER_BYTES_MAX);
    int error = run(context, &problems, &changed);
    if (error == ERR_CLOSED) {
        page_render_error(page, 503, "it is starting or stopping; see /readyz");
    } else if (write_answer(&page->body, error, &problems, &changed)) {
        page_render_error(page, 503, error_text(ERR_NO_MEMORY));
    } else if (error) {
        page->status = error_http_status(error);
    }
    buffer_fini(&changed);
    problems_fini(&problems);
}
