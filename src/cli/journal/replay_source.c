#include "cli/journal/replay_source.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/journal/tool.h"
#include "drilling/drilling.h"
#include "mqtt/topic.h"

static void on_damage(void *context, const struct reader_damage *damage)
{
    struct replay_source *source = context;
    terminal_progress_end();
    tool_say_damage(&source->damaged, damage);
    source->lost_until = damage->next_offset;
}

int replay_source_seek(struct replay_source *source, uint64_t offset, bool strict)
{
    struct reader *reader;
    int error = reader_open(&reader, disk_posix(), source->folder, offset, on_damage, source);
    if (error)
        return error;
    reader_close(source->reader);
    source->reader = reader;
    source->expected = strict ? offset : UINT64_MAX;
    return 0;
}

void replay_source_close(struct replay_source *source)
{
    reader_close(source->reader);
    source->reader = NULL;
}

/* Offsets have no gap; where damage has not taken them, retention has. */
static void check_gap(struct replay_source *source, uint64_t offset)
{
    uint64_t expected = source->lost_until > source->expected ? source->lost_until : source->expected;
    if (source->expected != UINT64_MAX && offset > expected) {
        terminal_progress_end();
        fprintf(stderr, "offsets %" PRIu64 " to %" PRIu64 " were removed by retention before they could be replayed\n", expected,
                offset - 1);
        source->damaged = true;
    }
    source->expected = offset + 1;
}

static bool is_wanted(struct replay_source *source, const struct message *message)
{
    const char *id, *filter = source->tool_filter;
    uint32_t id_length;
    if (source->pass_replayed && topics_replay_id(message->topic, message->topic_length, &id, &id_length)) {
        if (message->offset >= source->replayed_until) {
            source->replayed++;
            source->replayed_until = message->offset + 1;
        }
        return false;
    }
    return !(message->flags & MESSAGE_WITHHELD) && selection_has(&source->selection, message) &&
           (!*filter || mqtt_topic_matches(filter, strlen(filter), message->topic, message->topic_length));
}

int replay_source_next(struct replay_source *source, struct message *message)
{
    for (unsigned step = 0; step < REPLAY_SOURCE_STEPS_MAX; step++) {
        int error = reader_next(source->reader, source->until, message, NULL);
        if (error == ERR_TRUNCATED)
            source->expected = source->until;
        if (error)
            return error;
        check_gap(source, message->offset);
        if (is_wanted(source, message))
            return 0;
    }
    return ERR_BUSY;
}

uint64_t replay_source_passed(const struct replay_source *source)
{
    return source->expected == UINT64_MAX ? reader_offset(source->reader) : source->expected;
}
