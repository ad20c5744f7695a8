#include "control/pages.h"

#include <stdbool.h>

#include "base/error.h"
#include "base/metrics.h"
#include "base/probes.h"

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

static int append_html(struct buffer *body, const char *text)
{
    int error = 0;
    for (; *text && !error; text++) {
        switch (*text) {
        case '&':
            error = buffer_append_text(body, "&amp;");
            break;
        case '<':
            error = buffer_append_text(body, "&lt;");
            break;
        case '>':
            error = buffer_append_text(body, "&gt;");
            break;
        default:
            error = buffer_append(body, text, 1);
        }
    }
    return error;
}

static int append_uptime(struct buffer *body, double uptime_s)
{
    unsigned long seconds = (unsigned long)uptime_s;
    return buffer_printf(body, "%lu d %02lu:%02lu:%02lu", seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
}

static int render_index(struct page *page, const struct page_facts *facts)
{
    page->content_type = "text/html; charset=utf-8";
    struct buffer *body = &page->body, probes;
    bool ready = false;
    buffer_init(&probes, PAGE_BYTES_MAX);
    int error = probes_write(&probes, &ready);
    if (!error)
        error = buffer_append_text(body, "<!DOCTYPE html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Spindle</title>\n"
                                         "<style>body{font:16px sans-serif;margin:2em}td{padding:.2em 1em .2em 0}</style>\n"
                                         "<h1>Spindle ");
    if (!error)
        error = append_html(body, facts->version);
    if (!error)
        error = buffer_printf(body, "</h1>\n<p>%s; running for ", ready ? "Ready" : "<b>Not ready</b>: see /readyz");
    if (!error)
        error = append_uptime(body, facts->uptime_s);
    if (!error)
        error = buffer_append_text(body, "</p>\n<table>\n");
    for (unsigned i = 1; i < ROUTE_COUNT && !error; i++)
        error = buffer_printf(body, "<tr><td><a href=\"%s\">%s</a><td>%s\n", routes[i].path, routes[i].path, routes[i].title);
    if (!error)
        error = buffer_append_text(body, "</table>\n");
    buffer_fini(&probes);
    return error;
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

static void render_not_found(struct page *page, const char *path)
{
    struct buffer text;
    buffer_init(&text, 4096);
    int error = buffer_printf(&text, "there is nothing at %.200s; try", path);
    for (unsigned i = 0; i < ROUTE_COUNT && !error; i++)
        error = buffer_printf(&text, " %s", routes[i].path);
    const char *whole = error ? NULL : buffer_text(&text);
    page_render_error(page, error_http_status(ERR_NOT_FOUND), whole ? whole : error_text(ERR_NOT_FOUND));
    buffer_fini(&text);
}

void page_render(struct page *page, const char *path, const struct page_facts *facts)
{
    *page = (struct page){.status = 200};
    buffer_init(&page->body, PAGE_BYTES_MAX);
    unsigned i = 0;
    while (i < ROUTE_COUNT && strcmp(routes[i].path, path) != 0)
        i++;
    if (i == ROUTE_COUNT) {
        render_not_found(page, path);
        return;
    }
    int error = routes[i].render(page, facts);
    if (error)
        page_render_error(page, error_http_status(error), error_text(error));
}
