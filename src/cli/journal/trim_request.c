#include "cli/journal/trim_request.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "cli/journal/when.h"
#include "cli/json_tree.h"
#include "journal/reader.h"
#include "queue/ledger.h"

enum { NAME_MAX_BYTES = 32 };

struct retention_trim trim_request_limits(const struct trim_request *request, uint64_t wall_ns)
{
    bool tail = strcmp(request->stream, "results") == 0 || strcmp(request->stream, "dead-letters") == 0;
    struct retention_trim limits = {.before = UINT64_MAX, .until_ns = UINT64_MAX, .keep_count = tail ? LEDGER_TAIL_SEGMENTS : 1};
    if (request->before_given)
        limits.before = request->before;
    if (request->older_than_given)
        limits.until_ns = wall_ns > request->older_than_ns ? wall_ns - request->older_than_ns : 0;
    if (request->keep_size_given)
        limits.keep_size = request->keep_size;
    return limits;
}

/* ---- the request as JSON ---- */

static int read_count(const struct json_tree *tree, const char *name, bool *given, uint64_t *count, char message[VALUE_MESSAGE_MAX])
{
    *given = json_tree_has(tree, name);
    if (!*given || json_tree_count(tree, name, count))
        return 0;
    snprintf(message, VALUE_MESSAGE_MAX, "%s: expected a whole number from 0", name);
    return ERR_INVALID;
}

/* An age is a text as on the command line, or nanoseconds. */
static int read_age(const struct json_tree *tree, struct trim_request *request, char message[VALUE_MESSAGE_MAX])
{
    const char *text = json_tree_text(tree, "older_than");
    char why[VALUE_MESSAGE_MAX];
    request->older_than_given = json_tree_has(tree, "older_than");
    if (!request->older_than_given || json_tree_count(tree, "older_than", &request->older_than_ns))
        return 0;
    int error = when_age_parse(text ? text : "another type", &request->older_than_ns, why);
    if (error)
        snprintf(message, VALUE_MESSAGE_MAX, "older_than: %.400s", why);
    return error;
}

static int read_members(const struct json_tree *tree, struct trim_request *request, char message[VALUE_MESSAGE_MAX])
{
    static const char *const names[] = {"stream", "before", "older_than", "keep_size", "dry_run", NULL};
    const char *unknown = json_tree_unknown(tree, names), *stream = json_tree_text(tree, "stream");
    if (unknown) {
        snprintf(message, VALUE_MESSAGE_MAX, "unknown key `%.60s`", unknown);
        return ERR_INVALID;
    }
    if (!stream || strlen(stream) >= sizeof request->stream) {
        snprintf(message, VALUE_MESSAGE_MAX, "stream: expected the name of a stream");
        return ERR_INVALID;
    }
    snprintf(request->stream, sizeof request->stream, "%s", stream);
    int error = read_count(tree, "before", &request->before_given, &request->before, message);
    if (!error)
        error = read_count(tree, "keep_size", &request->keep_size_given, &request->keep_size, message);
    if (!error)
        error = read_age(tree, request, message);
    if (!error && json_tree_has(tree, "dry_run") && !json_tree_flag(tree, "dry_run", &request->dry_run)) {
        snprintf(message, VALUE_MESSAGE_MAX, "dry_run: expected true or false");
        error = ERR_INVALID;
    }
    if (!error && !request->before_given && !request->older_than_given && !request->keep_size_given) {
        snprintf(message, VALUE_MESSAGE_MAX, "nothing says what is to go; expected before, older_than or keep_size");
        error = ERR_INVALID;
    }
    return error;
}

int trim_request_read(struct trim_request *out, const void *json, size_t length, char message[VALUE_MESSAGE_MAX])
{
    struct json_tree *tree;
    struct trim_request request = {0};
    char why[JSON_TREE_WHY_MAX];
    int error = json_tree_read(&tree, json, length, why);
    if (error) {
        snprintf(message, VALUE_MESSAGE_MAX, "%s", why);
        return error;
    }
    error = read_members(tree, &request, message);
    json_tree_free(tree);
    if (!error)
        *out = request;
    return error;
}

int trim_request_write(const struct trim_request *request, struct buffer *out)
{
    buffer_append_text(out, "{\"stream\":");
    buffer_append_json_string(out, request->stream, strlen(request->stream), 0);
    if (request->before_given)
        buffer_printf(out, ",\"before\":%" PRIu64, request->before);
    if (request->older_than_given)
        buffer_printf(out, ",\"older_than\":%" PRIu64, request->older_than_ns);
    if (request->keep_size_given)
        buffer_printf(out, ",\"keep_size\":%" PRIu64, request->keep_size);
    return buffer_printf(out, "%s}", request->dry_run ? ",\"dry_run\":true" : "");
}

/* ---- the answer as JSON ---- */

int trim_done_write(const struct trim_request *request, const struct trim_done *done, bool names, struct buffer *out)
{
    int error = buffer_printf(out,
                              "{\"stream\":\"%s\",\"dry_run\":%s,\"segments\":%zu,\"bytes\":%" PRIu64 ",\"first_offset\":%" PRIu64
                              ",\"kept_back\":%" PRIu64 ",\"pending_lost\":%" PRIu64,
                              request->stream, request->dry_run ? "true" : "false", done->count, done->bytes, done->first_offset,
                              done->kept_back, done->pending);
    if (!error && names)
        error = buffer_printf(out, ",\"more\":%s,\"removed\":[", done->more ? "true" : "false");
    for (size_t i = 0; i < done->count && names && !error; i++) {
        char name[NAME_MAX_BYTES];
        segment_name(done->bases[i], name);
        error = buffer_printf(out, "%s\"%s\"", i ? "," : "", name);
    }
    return error ? error : buffer_append_text(out, names ? "]}\n" : "}\n");
}

static int add_bases(struct trim_done *done, const struct json_tree *tree, size_t count)
{
    uint64_t *bases = count ? realloc(done->bases, (done->count + count) * sizeof *bases) : done->bases;
    if (count && !bases)
        return ERR_NO_MEMORY;
    done->bases = bases;
    for (size_t i = 0; i < count; i++) {
        char path[NAME_MAX_BYTES];
        snprintf(path, sizeof path, "removed.%zu", i);
        const char *name = json_tree_text(tree, path);
        if (!name)
            return ERR_CORRUPT;
        bases[done->count + i] = strtoull(name, NULL, 10);
    }
    done->count += count;
    return 0;
}

int trim_done_add(struct trim_done *done, const void *json, size_t length)
{
    struct json_tree *tree;
    char why[JSON_TREE_WHY_MAX];
    uint64_t count, bytes, first_offset, kept_back;
    bool more;
    if (json_tree_read(&tree, json, length, why))
        return ERR_CORRUPT;
    bool whole = json_tree_count(tree, "segments", &count) && json_tree_count(tree, "bytes", &bytes) &&
                 json_tree_count(tree, "first_offset", &first_offset) && json_tree_count(tree, "kept_back", &kept_back) &&
                 json_tree_flag(tree, "more", &more) && count <= length; /* each takes more than a byte of it */
    int error = whole ? add_bases(done, tree, (size_t)count) : ERR_CORRUPT;
    json_tree_free(tree);
    if (error)
        return error;
    done->bytes += bytes;
    done->first_offset = first_offset;
    done->kept_back = kept_back;
    done->more = more;
    return 0;
}
