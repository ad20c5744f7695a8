#include "control/pages.h"

#include "base/error.h"
#include "base/metrics.h"
#include "base/probes.h"
#include "control/http.h"
#include "control/overview.h"

static const char type_json[] = "application/json";

struct route {
    const char *path;
    const char *title; /* for the page that leads here */
    int (*render)(struct page *page, const struct page_facts *facts);
};

static int render_index(struct page *page, const struct page_facts *facts);

static int render_metrics(struct page *page, const struct page_facts *facts)
{
    (void)facts;
    page->content_type = "text/plain; version=0.0.4; charset=utf-8";
    return metrics_write(&page->body);
}

static int render_health(struct page *page, const struct page_facts *facts)
{
    (void)facts;
    page->content_type = "text/plain; charset=utf-8";
    return buffer_append_text(&page->body, "ok\n");
}

/* Appends "ready": ..., "probes": [...] */
static int append_probes(struct buffer *body, bool *ready)
{
    struct buffer list;
    buffer_init(&list, PAGE_BYTES_MAX);
    int error = probes_write(&list, ready);
    if (!error)
        error = buffer_printf(body, "\"ready\": %s, \"probes\": %s", *ready ? "true" : "false", buffer_text(&list));
    buffer_fini(&list);
    return error;
}

static int render_ready(struct page *page, const struct page_facts *facts)
{
    (void)facts;
    bool ready = false;
    page->content_type = type_json;
    int error = buffer_append_text(&page->body, "{");
    if (!error)
        error = append_probes(&page->body, &ready);
    if (!error)
        error = buffer_append_text(&page->body, "}\n");
    page->status = ready ? 200 : 503;
    return error;
}

static int render_status(struct page *page, const struct page_facts *facts)
{
    bool ready;
    page->content_type = type_json;
    int error = buffer_append_text(&page->body, "{\"name\": \"spindle\", \"version\": ");
    if (!error)
        error = buffer_append_json_string(&page->body, facts->version, strlen(facts->version), 0);
    if (!error)
        error = buffer_printf(&page->body, ", \"uptime_s\": %.3f, ", facts->uptime_s);
    if (!error)
        error = append_probes(&page->body, &ready);
    if (!error)
        error = status_write(&page->body);
    return error ? error : buffer_append_text(&page->body, "}\n");
}

static const struct route routes[] = {
    {"/", "This page", render_index},
    {"/metrics", "Metrics in the text format of Prometheus", render_metrics},
    {"/healthz", "200 while the process is alive", render_health},
    {"/readyz", "200 while it can take and process messages, else 503 and why not", render_ready},
    {"/api/v1/status", "Version, durability, streams and probes as JSON", render_status},
};
enum { ROUTE_COUNT = sizeof routes / sizeof *routes };

static int render_index(struct page *page, const struct page_facts *facts)
{
    struct overview_link links[ROUTE_COUNT];
    for (unsigned i = 1; i < ROUTE_COUNT; i++)
        links[i - 1] = (struct overview_link){routes[i].path, routes[i].title};
    page->content_type = "text/html; charset=utf-8";
    return overview_write(
        &page->body,
        &(struct overview_facts){
            .version = facts->version, .uptime_s = facts->uptime_s, .now_ns = facts->now_ns, .links = links, .link_count = ROUTE_COUNT - 1},
        facts->marks);
}

void page_render_error(struct page *page, int status, const char *text)
{
    page->status = status;
    page->content_type = type_json;
    buffer_clear(&page->body);
    int error = buffer_printf(&page->body, "{\"status\": %d, \"error\": ", status);
    if (!error)
        error = buffer_append_json_string(&page->body, text, strlen(text), 0);
    if (!error)
        error = buffer_append_text(&page->body, "}\n");
    if (error) {
        page->status = 503;
        buffer_clear(&page->body);
    }
}

static void render_not_found(struct page *page, const char *path, const struct page_facts *facts)
{
    struct buffer text;
    buffer_init(&text, 4096);
    int error = buffer_printf(&text, "there is nothing at %.200s; try", path);
    for (unsigned i = 0; i < ROUTE_COUNT && !error; i++)
        error = buffer_printf(&text, " %s", routes[i].path);
    for (unsigned i = 0; i < facts->more_route_count && !error; i++)
        error = buffer_printf(&text, " %s", facts->more_routes[i].path);
    const char *whole = error ? NULL : buffer_text(&text);
    page_render_error(page, error_http_status(ERR_NOT_FOUND), whole ? whole : error_text(ERR_NOT_FOUND));
    buffer_fini(&text);
}

static const struct route *find_page(const char *path)
{
    for (unsigned i = 0; i < ROUTE_COUNT; i++)
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    return NULL;
}

bool page_exists(const char *path)
{
    return find_page(path);
}

void page_render(struct page *page, const char *path, const struct page_facts *facts)
{
    *page = (struct page){.status = 200};
    buffer_init(&page->body, PAGE_BYTES_MAX);
    const struct route *route = find_page(path);
    if (!route) {
        render_not_found(page, path, facts);
        return;
    }
    int error = route->render(page, facts);
    if (error)
        page_render_error(page, error_http_status(error), error_text(error));
}
