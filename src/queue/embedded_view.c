#include "queue/embedded_view.h"

#include <stdlib.h>

struct embedded_view {
    struct queue_view view;
    struct journal_stream *stream;
    struct reader *reader;
    uint64_t until; /* what was durable when it was last asked */
};

static void view_close(struct queue_view *base)
{
    struct embedded_view *view = (struct embedded_view *)(void *)base;
    reader_close(view->reader);
    free(view);
}

static int view_next(struct queue_view *base, struct message *message, struct queue_origin *origin)
{
    struct embedded_view *view = (struct embedded_view *)(void *)base;
    const uint8_t *record;
    const uint64_t *words;
    int error = ERR_TRUNCATED;
    if (reader_offset(view->reader) < view->until)
        error = reader_next(view->reader, view->until, message, &record);
    if (error == ERR_TRUNCATED) {
        uint64_t durable = journal_stream_durable(view->stream);
        if (durable == view->until)
            return error;
        view->until = durable;
        error = reader_next(view->reader, durable, message, &record);
    }
    if (error || !origin)
        return error;
    *origin = (struct queue_origin){0};
    if (format_record_sources(record, &words) == EMBEDDED_ORIGIN_WORDS)
        *origin = (struct queue_origin){.session = words[0], .sequence = words[1] >> 16, .packet_id = (uint16_t)words[1]};
    return 0;
}

int embedded_view_open(struct journal_stream *stream, uint64_t from, struct queue_view **out)
{
    static const struct queue_view_ops ops = {.close = view_close, .next = view_next};
    struct embedded_view *view = malloc(sizeof *view);
    if (!view)
        return ERR_NO_MEMORY;
    *view = (struct embedded_view){.view.ops = &ops, .stream = stream};
    int error = journal_stream_reader(stream, from, &view->reader);
    if (error) {
        free(view);
        return error;
    }
    *out = &view->view;
    return 0;
}
