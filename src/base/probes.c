#include "base/probes.h"

#include <pthread.h>

#include "base/error.h"

struct entry {
    const char *name;
    void *owner;
    probe_check check;        /* of a probe */
    status_fragment fragment; /* of a fragment */
};

struct registry {
    struct entry entries[PROBES_MAX > STATUS_FRAGMENTS_MAX ? PROBES_MAX : STATUS_FRAGMENTS_MAX];
    unsigned count;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct registry probes, fragments;

static unsigned find(const struct registry *registry, const char *name)
{
    unsigned i = 0;
    while (i < registry->count && strcmp(registry->entries[i].name, name) != 0)
        i++;
    return i;
}

static int add(struct registry *registry, unsigned limit, struct entry entry)
{
    size_t length = strlen(entry.name);
    if (length == 0 || strspn(entry.name, "abcdefghijklmnopqrstuvwxyz0123456789_") != length)
        return ERR_INVALID;
    int error = 0;
    pthread_mutex_lock(&lock);
    if (find(registry, entry.name) < registry->count)
        error = ERR_INVALID;
    else if (registry->count == limit)
        error = ERR_LIMIT;
    else
        registry->entries[registry->count++] = entry;
    pthread_mutex_unlock(&lock);
    return error;
}

static void drop(struct registry *registry, const char *name)
{
    pthread_mutex_lock(&lock);
    unsigned i = find(registry, name);
    if (i < registry->count) {
        registry->count--;
        memmove(&registry->entries[i], &registry->entries[i + 1], (registry->count - i) * sizeof registry->entries[0]);
    }
    pthread_mutex_unlock(&lock);
}

int probes_register(const char *name, probe_check check, void *owner)
{
    return add(&probes, PROBES_MAX, (struct entry){.name = name, .owner = owner, .check = check});
}

void probes_unregister(const char *name)
{
    drop(&probes, name);
}

int status_register(const char *name, status_fragment fragment, void *owner)
{
    return add(&fragments, STATUS_FRAGMENTS_MAX, (struct entry){.name = name, .owner = owner, .fragment = fragment});
}

void status_unregister(const char *name)
{
    drop(&fragments, name);
}

int probes_read(probe_reader reader, void *context, bool *ready)
{
    bool all_ready = true;
    int error = 0;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < probes.count && !error; i++) {
        const struct entry *probe = &probes.entries[i];
        struct buffer text;
        buffer_init(&text, PROBE_TEXT_BYTES_MAX);
        bool one_ready = probe->check(probe->owner, &text);
        all_ready = all_ready && one_ready;
        error = reader(context, probe->name, one_ready, (const char *)text.data, text.length);
        buffer_fini(&text);
    }
    pthread_mutex_unlock(&lock);
    if (!error)
        *ready = all_ready;
    return error;
}

struct probe_list {
    struct buffer *json;
    const char *comma;
};

static int write_probe(void *context, const char *name, bool ready, const char *text, size_t length)
{
    struct probe_list *list = context;
    int error = buffer_printf(list->json, "%s{\"name\": \"%s\", \"ready\": %s, \"text\": ", list->comma, name, ready ? "true" : "false");
    list->comma = ", ";
    error = error ? error : buffer_append_json_string(list->json, text, length, 0);
    return error ? error : buffer_append_text(list->json, "}");
}

int probes_write(struct buffer *json, bool *ready)
{
    size_t start = json->length;
    bool all_ready = true;
    struct probe_list list = {json, ""};
    int error = buffer_append_text(json, "[");
    error = error ? error : probes_read(write_probe, &list, &all_ready);
    error = error ? error : buffer_append_text(json, "]");
    if (error)
        json->length = start;
    else
        *ready = all_ready;
    return error;
}

static int write_fragment(struct buffer *json, const struct entry *fragment)
{
    int error = buffer_printf(json, ", \"%s\": ", fragment->name);
    if (error)
        return error;
    size_t start = json->length;
    if (fragment->fragment(fragment->owner, json) == 0 && json->length > start)
        return 0;
    json->length = start;
    return buffer_append_text(json, "null");
}

int status_write(struct buffer *json)
{
    size_t start = json->length;
    int error = 0;
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < fragments.count && !error; i++)
        error = write_fragment(json, &fragments.entries[i]);
    pthread_mutex_unlock(&lock);
    if (error)
        json->length = start;
    return error;
}
