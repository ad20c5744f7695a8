#include "queue/holds.h"

/* Under the lock, so that of two holders that move at once the later sets the guard for both. */
static void set_guard(struct holds *holds, enum queue_content content)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < HOLDS_COUNT; i++)
        if (holds->at[content][i] < least)
            least = holds->at[content][i];
    if (holds->streams[content])
        journal_stream_set_guard(holds->streams[content], least);
}

void holds_init(struct holds *holds, struct journal_stream *const streams[QUEUE_CONTENT_COUNT], unsigned holders, uint64_t cursor)
{
    pthread_mutex_init(&holds->lock, NULL);
    for (enum queue_content content = 0; content < QUEUE_CONTENT_COUNT; content++) {
        holds->streams[content] = streams[content];
        for (unsigned i = 0; i < QUEUE_HOLDERS; i++)
            holds->at[content][i] = holders & 1u << i ? 0 : UINT64_MAX;
        holds->at[content][HOLDS_LEDGER] = content == QUEUE_CONTENT_CONSUMED ? cursor : UINT64_MAX;
        if (content == QUEUE_CONTENT_NOTED)
            holds->at[content][QUEUE_HOLDER_SESSIONS] = UINT64_MAX;
        set_guard(holds, content);
    }
}

void holds_fini(struct holds *holds)
{
    pthread_mutex_destroy(&holds->lock);
}

void holds_move(struct holds *holds, enum queue_content content, unsigned holder, uint64_t offset)
{
    pthread_mutex_lock(&holds->lock);
    holds->at[content][holder] = offset;
    set_guard(holds, content);
    pthread_mutex_unlock(&holds->lock);
}
