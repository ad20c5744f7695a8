/* What was refused and who was let in: counted, the last refusals kept, and told to the operator. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "access/internal.h"
#include "base/clock.h"
#include "base/error.h"

static const struct {
    const char *word, *help;
} denials[ACCESS_DENIAL_COUNT] = {
#define DENIAL(id, word, help) {word, help},
#include "access/denials.def"
#undef DENIAL
};

static const char *const ways[ACCESS_WAYS] = {"password", "certificate", "anonymous"};

int audit_init(struct audit *audit)
{
    pthread_mutex_init(&audit->lock, NULL);
    audit->kept = calloc(ACCESS_DENIALS_KEPT, sizeof *audit->kept);
    return audit->kept ? 0 : ERR_NO_MEMORY;
}

void audit_fini(struct audit *audit)
{
    free(audit->kept);
    pthread_mutex_destroy(&audit->lock);
}

static void keep_text(char out[ACCESS_DENIAL_TEXT_MAX + 1], const char *text, size_t length)
{
    size_t kept = text ? (length < ACCESS_DENIAL_TEXT_MAX ? length : ACCESS_DENIAL_TEXT_MAX) : 0;
    if (kept)
        memcpy(out, text, kept);
    out[kept] = 0;
}

static void tell(struct audit *audit, const struct denial_kept *kept)
{
    uint64_t muted;
    if (!diagnostics_limit_pass(&audit->limits[kept->denial], &muted))
        return;
    diagnostics_after(muted, DIAGNOSTICS_WARNING, "access", "denied (%s): client \"%s\" of user \"%s\" at %s%s%s%s. %s",
                      denials[kept->denial].word, kept->client, kept->user, kept->peer, kept->has_topic ? ", \"" : "", kept->topic,
                      kept->has_topic ? "\"" : "", denials[kept->denial].help);
}

void access_deny(struct access *access, enum access_denial denial, const struct access_event *event)
{
    struct audit *audit = &access->audit;
    atomic_fetch_add_explicit(&audit->denied[denial], 1, memory_order_relaxed);
    struct denial_kept kept = {.time_ns = clock_wall_ns(), .denial = denial, .has_topic = event->topic};
    keep_text(kept.user, event->user, event->user_length);
    keep_text(kept.client, event->client, event->client_length);
    keep_text(kept.topic, event->topic, event->topic_length);
    snprintf(kept.peer, sizeof kept.peer, "%s", event->peer);
    pthread_mutex_lock(&audit->lock);
    audit->kept[audit->kept_count++ % ACCESS_DENIALS_KEPT] = kept;
    pthread_mutex_unlock(&audit->lock);
    tell(audit, &kept);
}

void access_note_login(struct access *access, enum access_way way, const struct access_event *event)
{
    atomic_fetch_add_explicit(&access->audit.logins[way], 1, memory_order_relaxed);
    if (way == ACCESS_WAY_ANONYMOUS) {
        if (diagnostics_enabled(DIAGNOSTICS_DEBUG))
            diagnostics(DIAGNOSTICS_DEBUG, "access", "client \"%.*s\" at %s is let in without a name", (int)event->client_length,
                        event->client, event->peer);
        return;
    }
    DIAG_LIMITED(DIAGNOSTICS_INFO, "access", "client \"%.*s\" at %s is let in as \"%.*s\" by %s", (int)event->client_length, event->client,
                 event->peer, (int)event->user_length, event->user, ways[way]);
}

static int write_one(const struct denial_kept *kept, struct buffer *json)
{
    int error = buffer_printf(json, "{\"time_ns\":%" PRIu64 ",\"reason\":\"%s\",\"user\":", kept->time_ns, denials[kept->denial].word);
    error = error ? error : buffer_append_json_string(json, kept->user, strlen(kept->user), 0);
    error = error ? error : buffer_append_text(json, ",\"client\":");
    error = error ? error : buffer_append_json_string(json, kept->client, strlen(kept->client), 0);
    error = error ? error : buffer_append_text(json, ",\"peer\":");
    error = error ? error : buffer_append_json_string(json, kept->peer, strlen(kept->peer), 0);
    error = error ? error : buffer_append_text(json, ",\"topic\":");
    if (!kept->has_topic)
        error = error ? error : buffer_append_text(json, "null");
    else
        error = error ? error : buffer_append_json_string(json, kept->topic, strlen(kept->topic), 0);
    return error ? error : buffer_append_text(json, "}");
}

int access_denials_write(struct access *access, struct buffer *json)
{
    struct audit *audit = &access->audit;
    struct denial_kept *copy = calloc(ACCESS_DENIALS_KEPT, sizeof *copy);
    if (!copy)
        return ERR_NO_MEMORY;
    pthread_mutex_lock(&audit->lock);
    uint64_t end = audit->kept_count;
    memcpy(copy, audit->kept, ACCESS_DENIALS_KEPT * sizeof *copy);
    pthread_mutex_unlock(&audit->lock);
    uint64_t first = end > ACCESS_DENIALS_KEPT ? end - ACCESS_DENIALS_KEPT : 0;
    int error = buffer_append_text(json, "{\"denials\":[");
    for (uint64_t i = end; !error && i-- > first;) {
        error = i + 1 < end ? buffer_append_text(json, ",\n") : 0;
        error = error ? error : write_one(&copy[i % ACCESS_DENIALS_KEPT], json);
    }
    free(copy);
    return error ? error : buffer_append_text(json, "]}\n");
}
