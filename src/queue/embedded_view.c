#include "queue/embedded_view.h"

#include <stdlib.h>

struct embedded_view {
    struct queue_view view;
    struct journal_stream *stream;
    struct reader *reader;
    struct trail *trail;
    struct reader_place noted; /* the last that it has noted */
    uint64_t from;             /* what lies before is passed over */
    uint64_t until;            /* what was durable when it was last asked */
};

static void view_close(struct queue_view *base)
{
    struct embedded_view *view = (struct embedded_view *)(void *)base;
    reader_close(view->reader);
    free(view);
}

/* Behind the block that the reader has read. */
static void note_place(struct embedded_view *view)
{
    struct reader_place place;
    reader_place(view->reader, &place);
    if (place.base_offset == view->noted.base_offset && place.position < view->noted.position + TRAIL_STEP)
        return;
    trail_note(view->trail, &place);
    view->noted = place;
}

static int view_read(struct embedded_view *view, struct message *message, const uint8_t **record)
{
    int error = ERR_TRUNCATED;
    if (reader_offset(view->reader) < view->until)
        error = reader_next(view->reader, view->until, message, record);
    if (error == ERR_TRUNCATED) {
        uint64_t durable = journal_stream_durable(view->stream);
        if (durable == view->until)
            return error;
        view->until = durable;
        error = reader_next(view->reader, durable, message, record);
    }
    return error;
}

static int view_next(struct queue_view *base, struct message *message, struct queue_origin *origin)
{
    struct embedded_view *view = (struct embedded_view *)(void *)base;
    const uint8_t *record;
    const uint64_t *words;
    int error;
    do {
        error = view_read(view, message, &record);
        if (!error)
            note_place(view);
    } while (!error && message->offset < view->from);
    if (error || !origin)
        return error;
    *origin = (struct queue_origin){0};
    if (format_record_sources(record, &words) == EMBEDDED_ORIGIN_WORDS)
        *origin = (struct queue_origin){.session = words[0], .sequence = words[1] >> 16, .packet_id = (uint16_t)words[1]};
    return 0;
}

/* A reader on the last known place before `from`, or on the beginning of its segment: the view notes where it comes by. */
static int open_reader(struct journal_stream *stream, struct trail *trail, uint64_t from, struct reader **out)
{
    struct reader_place place, start;
    bool known = trail_find(trail, from, &place);
    struct reader *reader;
    int error = journal_stream_reader_at(stream, NULL, from, true, &reader);
    if (error)
        return error;
    reader_place(reader, &start);
    uint64_t begin = known && place.base_offset == start.base_offset ? place.next_offset : start.base_offset;
    if (begin >= from) {
        *out = reader;
        return 0;
    }
    reader_close(reader);
    return journal_stream_reader_at(stream, begin == start.base_offset ? NULL : &place, begin, true, out);
}

int embedded_view_open(struct journal_stream *stream, struct trail *trail, uint64_t from, struct queue_view **out)
{
    static const struct queue_view_ops ops = {.close = view_close, .next = view_next};
    struct embedded_view *view = malloc(sizeof *view);
    if (!view)
        return ERR_NO_MEMORY;
    *view = (struct embedded_view){.view.ops = &ops, .stream = stream, .trail = trail, .from = from};
    int error = open_reader(stream, trail, from, &view->reader);
    if (error) {
        free(view);
        return error;
    }
    *out = &view->view;
    return 0;
}
