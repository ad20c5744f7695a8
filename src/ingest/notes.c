/* Notes are records of 64-bit words, little-endian, each kind under a topic of its own. */
#include "ingest/notes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <uthash.h>

#include "base/clock.h"
#include "base/error.h"

enum { NOTES_VERSION = 1, CHECKPOINT_HEAD_WORDS = 6, CURSOR_WORDS = 4, HELD_WORDS = 2, NOTE_BYTES_MAX = 96 << 20 };

static const char topic_checkpoint[] = "checkpoint", topic_released[] = "released", topic_cursor[] = "cursor";

struct held_key {
    uint64_t session, packet_id;
};

/* While notes are read it is remembered of an identifier when it was taken and given back; afterwards only those that are taken stay. */
struct notes_held {
    UT_hash_handle hh;
    struct held_key key;      /* packet_id 0: the whole session */
    uint64_t taken, released; /* sequence numbers */
};

static struct notes_held *find(struct notes *notes, uint64_t session, uint64_t packet_id)
{
    struct held_key key = {session, packet_id};
    struct notes_held *held;
    HASH_FIND(hh, notes->held, &key, sizeof key, held);
    return held;
}

static int find_or_add(struct notes *notes, uint64_t session, uint64_t packet_id, struct notes_held **out)
{
    *out = find(notes, session, packet_id);
    if (*out)
        return 0;
    if (HASH_COUNT(notes->held) >= NOTES_HELD_MAX)
        return ERR_LIMIT;
    struct notes_held *held = calloc(1, sizeof *held);
    if (!held)
        return ERR_NO_MEMORY;
    held->key = (struct held_key){session, packet_id};
    HASH_ADD(hh, notes->held, key, sizeof held->key, held);
    *out = held;
    return 0;
}

static void drop(struct notes *notes, struct notes_held *held)
{
    HASH_DEL(notes->held, held);
    free(held);
}

static void drop_all(struct notes *notes)
{
    struct notes_held *held, *next;
    HASH_ITER(hh, notes->held, held, next)
    drop(notes, held);
}

/* ---- cursors ---- */

struct notes_cursor *notes_cursor(struct notes *notes, uint64_t name, bool add)
{
    for (unsigned i = 0; i < notes->cursor_count; i++)
        if (notes->cursors[i].name == name)
            return &notes->cursors[i];
    if (!add || notes->cursor_count == NOTES_CURSORS_MAX)
        return NULL;
    struct notes_cursor *cursor = &notes->cursors[notes->cursor_count++];
    *cursor = (struct notes_cursor){.name = name};
    return cursor;
}

void notes_cursor_changed(struct notes *notes, const struct notes_cursor *cursor)
{
    notes->dirty_cursors |= UINT64_C(1) << (cursor - notes->cursors);
}

/* ---- reading ---- */

static int read_cursor(struct notes *notes, const uint64_t words[CURSOR_WORDS])
{
    struct notes_cursor *cursor = words[0] ? notes_cursor(notes, words[0], true) : NULL;
    if (!cursor || words[3] > words[2])
        return cursor ? ERR_CORRUPT : ERR_LIMIT;
    *cursor = (struct notes_cursor){words[0], words[1], words[2], words[3]};
    return 0;
}

static int read_checkpoint(struct notes *notes, const uint64_t *words, size_t count)
{
    if (count == 0)
        return ERR_CORRUPT;
    if (words[0] != NOTES_VERSION)
        return ERR_FORMAT_VERSION;
    if (count < CHECKPOINT_HEAD_WORDS || words[1] == 0 || words[5] > NOTES_CURSORS_MAX)
        return ERR_CORRUPT;
    size_t cursors_end = CHECKPOINT_HEAD_WORDS + words[5] * CURSOR_WORDS;
    if (count < cursors_end || (count - cursors_end) % HELD_WORDS)
        return ERR_CORRUPT;
    struct notes_held *before, *next;
    HASH_ITER(hh, notes->held, before, next)
    before->taken = 0; /* what was given back stays known: messages behind the places may be older than that */
    notes->instance = words[1];
    notes->sequence = words[2];
    notes->from.consumed = words[3];
    notes->from.kept = words[4];
    notes->cursor_count = 0;
    const uint64_t *at = words + CHECKPOINT_HEAD_WORDS;
    int error = 0;
    for (uint64_t i = 0; !error && i < words[5]; i++, at += CURSOR_WORDS)
        error = read_cursor(notes, at);
    for (; !error && at < words + count; at += HELD_WORDS) {
        struct notes_held *held;
        error = find_or_add(notes, at[0], at[1], &held);
        if (!error)
            held->taken = notes->sequence;
    }
    return error;
}

static int read_released(struct notes *notes, const uint64_t *words, size_t count)
{
    int error = count % HELD_WORDS ? ERR_CORRUPT : 0;
    for (size_t i = 0; !error && i < count; i += HELD_WORDS) {
        struct notes_held *held;
        error = find_or_add(notes, words[i], words[i + 1] & UINT16_MAX, &held);
        if (!error)
            held->released = words[i + 1] >> 16;
        if (!error && held->released > notes->sequence)
            notes->sequence = held->released; /* its message may not have reached the disk */
    }
    return error;
}

static bool has_topic(const struct message *note, const char *topic)
{
    return note->topic_length == strlen(topic) && memcmp(note->topic, topic, note->topic_length) == 0;
}

static int read_note(struct notes *notes, const struct message *note)
{
    size_t count = note->payload_length / sizeof(uint64_t);
    uint64_t *words = malloc(note->payload_length + 1);
    if (!words)
        return ERR_NO_MEMORY;
    memcpy(words, note->payload, note->payload_length); /* aligned */
    int error = ERR_CORRUPT;
    if (note->payload_length % sizeof(uint64_t) == 0 && has_topic(note, topic_checkpoint))
        error = read_checkpoint(notes, words, count);
    else if (note->payload_length % sizeof(uint64_t) == 0 && has_topic(note, topic_released))
        error = read_released(notes, words, count);
    else if (note->payload_length == CURSOR_WORDS * sizeof(uint64_t) && has_topic(note, topic_cursor))
        error = read_cursor(notes, words);
    free(words);
    return error;
}

static int read_notes(struct notes *notes, struct queue *queue)
{
    struct queue_view *view;
    struct message note;
    int error = queue->ops->view_open(queue, QUEUE_CONTENT_NOTED, 0, &view);
    if (error)
        return error;
    while (!(error = view->ops->next(view, &note, NULL)))
        if ((error = read_note(notes, &note)))
            break;
    view->ops->close(view);
    return error == ERR_TRUNCATED ? 0 : error;
}

/* Identifiers that were taken behind the places of the checkpoint. */
static int read_messages(struct notes *notes, struct queue *queue, enum queue_content content, uint64_t from)
{
    struct queue_view *view;
    struct message message;
    struct queue_origin origin;
    int error = queue->ops->view_open(queue, content, from, &view);
    if (error)
        return error;
    while (!(error = view->ops->next(view, &message, &origin))) {
        if (!queue_origin_is_broker(&origin))
            continue;
        if (origin.sequence > notes->sequence)
            notes->sequence = origin.sequence;
        if (origin.packet_id == 0)
            continue;
        struct notes_held *held;
        error = find_or_add(notes, origin.session, origin.packet_id, &held);
        if (error)
            break;
        if (origin.sequence > held->taken)
            held->taken = origin.sequence;
    }
    view->ops->close(view);
    return error == ERR_TRUNCATED ? 0 : error;
}

static void keep_what_is_taken(struct notes *notes)
{
    struct notes_held *held, *next;
    HASH_ITER(hh, notes->held, held, next)
    {
        const struct notes_held *all = find(notes, held->key.session, 0);
        if (held->key.packet_id && (held->taken <= held->released || (all && held->taken <= all->released)))
            drop(notes, held);
    }
    HASH_ITER(hh, notes->held, held, next)
    {
        if (held->key.packet_id == 0)
            drop(notes, held);
    }
}

static uint64_t make_instance(void)
{
    uint64_t instance = 0;
    if (getrandom(&instance, sizeof instance, 0) != sizeof instance)
        instance = clock_wall_ns();
    return instance ? instance : 1;
}

static void find_ends(struct queue *queue, struct notes_places *ends)
{
    uint64_t first;
    queue->ops->extent(queue, QUEUE_CONTENT_CONSUMED, &first, &ends->consumed);
    queue->ops->extent(queue, QUEUE_CONTENT_KEPT, &first, &ends->kept);
    queue->ops->extent(queue, QUEUE_CONTENT_NOTED, &first, &ends->noted);
}

int notes_load(struct notes *notes, struct queue *queue)
{
    *notes = (struct notes){0};
    buffer_init(&notes->released, NOTE_BYTES_MAX);
    find_ends(queue, &notes->ends);
    int error = read_notes(notes, queue);
    if (error)
        return error;
    if (notes->instance == 0) {
        notes->instance = make_instance();
        notes->from = notes->ends;
        return 0;
    }
    error = read_messages(notes, queue, QUEUE_CONTENT_CONSUMED, notes->from.consumed);
    if (!error)
        error = read_messages(notes, queue, QUEUE_CONTENT_KEPT, notes->from.kept);
    keep_what_is_taken(notes);
    return error;
}

void notes_fini(struct notes *notes)
{
    drop_all(notes);
    buffer_fini(&notes->released);
}

int notes_take_session(struct notes *notes, uint64_t session, int (*each)(void *context, uint16_t packet_id), void *context)
{
    struct notes_held *held, *next;
    int error = 0;
    HASH_ITER(hh, notes->held, held, next)
    {
        if (error || held->key.session != session)
            continue;
        error = each(context, (uint16_t)held->key.packet_id);
        if (!error)
            drop(notes, held);
    }
    return error;
}

/* ---- writing ---- */

static int append_words(struct buffer *out, const uint64_t *words, size_t count)
{
    return buffer_append(out, words, count * sizeof *words);
}

int notes_release(struct notes *notes, uint64_t session, uint16_t packet_id)
{
    notes->since_count++;
    return append_words(&notes->released, (uint64_t[]){session, notes->sequence << 16 | packet_id}, HELD_WORDS);
}

static int append_note(struct queue_producer *producer, const char *topic, const void *payload, size_t length, uint64_t token)
{
    struct message note = {
        .time_ns = clock_wall_ns(),
        .topic = topic,
        .topic_length = (uint32_t)strlen(topic),
        .payload = payload,
        .payload_length = (uint32_t)length,
    };
    return producer->ops->append(producer, QUEUE_NOTED, &note, token);
}

int notes_write(struct notes *notes, struct queue_producer *producer, uint64_t token)
{
    if (notes->released.length == 0)
        return 0;
    int error = append_note(producer, topic_released, notes->released.data, notes->released.length, token);
    if (!error)
        buffer_clear(&notes->released);
    return error;
}

int notes_write_cursors(struct notes *notes, struct queue_producer *producer, uint64_t token)
{
    int error = 0;
    for (unsigned i = 0; !error && i < notes->cursor_count; i++) {
        uint64_t bit = UINT64_C(1) << i;
        if (!(notes->dirty_cursors & bit))
            continue;
        const struct notes_cursor *cursor = &notes->cursors[i];
        uint64_t words[CURSOR_WORDS] = {cursor->name, cursor->broker, cursor->received, cursor->completed};
        bool last = (notes->dirty_cursors & ~bit) == 0;
        error = append_note(producer, topic_cursor, words, sizeof words, last ? token : 0);
        if (!error)
            notes->dirty_cursors &= ~bit;
        notes->since_count++;
    }
    return error;
}

static int put_held(void *context, uint64_t session, uint16_t packet_id)
{
    return append_words(context, (uint64_t[]){session, packet_id}, HELD_WORDS);
}

int notes_checkpoint(struct notes *notes, struct queue *queue, struct queue_producer *producer, notes_each *each, void *owner,
                     uint64_t token)
{
    const struct notes_places from = notes->ends;
    find_ends(queue, &notes->ends);
    struct buffer payload;
    buffer_init(&payload, NOTE_BYTES_MAX);
    uint64_t head[CHECKPOINT_HEAD_WORDS] = {NOTES_VERSION, notes->instance, notes->sequence, from.consumed, from.kept, notes->cursor_count};
    int error = append_words(&payload, head, CHECKPOINT_HEAD_WORDS);
    for (unsigned i = 0; !error && i < notes->cursor_count; i++) {
        const struct notes_cursor *cursor = &notes->cursors[i];
        error = append_words(&payload, (uint64_t[]){cursor->name, cursor->broker, cursor->received, cursor->completed}, CURSOR_WORDS);
    }
    struct notes_held *held, *next;
    HASH_ITER(hh, notes->held, held, next) /* of sessions that nobody has at present; they may come back */
    {
        if (!error)
            error = put_held(&payload, held->key.session, (uint16_t)held->key.packet_id);
    }
    if (!error)
        error = each(owner, put_held, &payload);
    if (!error)
        error = append_note(producer, topic_checkpoint, payload.data, payload.length, token);
    buffer_fini(&payload);
    if (error)
        return error;
    notes->from = from;
    notes->since_count = notes->since_bytes = 0;
    return 0;
}
