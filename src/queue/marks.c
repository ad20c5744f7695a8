#include "queue/marks.h"

#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "queue/dead_letter.h"

void marks_init(struct marks *marks)
{
    pthread_mutex_init(&marks->lock, NULL);
    ledger_init(&marks->ledger);
}

void marks_fini(struct marks *marks)
{
    ledger_fini(&marks->ledger);
    pthread_mutex_destroy(&marks->lock);
}

int marks_set(struct marks *marks, uint64_t dead_letter, enum ledger_mark mark)
{
    pthread_mutex_lock(&marks->lock);
    int settled = ledger_settle(&marks->ledger, dead_letter, (enum queue_outcome)mark, REASON_NONE);
    pthread_mutex_unlock(&marks->lock);
    return settled;
}

bool marks_is_set(struct marks *marks, uint64_t dead_letter)
{
    pthread_mutex_lock(&marks->lock);
    bool set = ledger_is_settled(&marks->ledger, dead_letter);
    pthread_mutex_unlock(&marks->lock);
    return set;
}

int marks_apply(struct marks *marks, const struct message *record)
{
    pthread_mutex_lock(&marks->lock);
    int error = ledger_apply(&marks->ledger, record);
    pthread_mutex_unlock(&marks->lock);
    return error;
}

void marks_counts(struct marks *marks, uint64_t accepted, struct queue_counts *counts)
{
    pthread_mutex_lock(&marks->lock);
    ledger_counts(&marks->ledger, accepted, counts);
    counts->duplicates = accepted - counts->completed - counts->pending;
    pthread_mutex_unlock(&marks->lock);
}

int marks_checkpoint(struct marks *marks, uint64_t first_kept, uint64_t applied, struct buffer *out)
{
    pthread_mutex_lock(&marks->lock);
    ledger_forget(&marks->ledger, first_kept);
    int error = ledger_checkpoint_encode(&marks->ledger, applied, out);
    pthread_mutex_unlock(&marks->lock);
    return error;
}

int marks_append(struct journal_producer *producer, struct journal_stream *outcomes, const uint64_t *dead_letters, size_t count,
                 enum ledger_mark mark)
{
    uint64_t entries[MARKS_RECORD_MAX];
    for (size_t i = 0; i < count; i++)
        entries[i] = ledger_entry(dead_letters[i], (enum queue_outcome)mark, REASON_NONE);
    struct message record = {
        .time_ns = clock_wall_ns(),
        .topic = ledger_marks_stream,
        .topic_length = (uint32_t)strlen(ledger_marks_stream),
        .payload = (const uint8_t *)entries,
        .payload_length = (uint32_t)(count * sizeof entries[0]),
    };
    return journal_append(producer, outcomes, &record, NULL, 0, 0);
}

int marks_take_requeued(struct marks *marks, struct journal_producer *producer, struct journal_stream *outcomes,
                        const struct message *messages, size_t count)
{
    uint64_t places[MARKS_RECORD_MAX];
    size_t place_count = 0;
    struct dead_letter letter;
    for (size_t i = 0; i < count; i++)
        if (messages[i].flags & MESSAGE_REQUEUED && dead_letter_decode(&messages[i], &letter) == 0 && letter.place != DEAD_LETTER_NO_PLACE)
            places[place_count++] = letter.place;
    if (place_count == 0)
        return 0;
    int error = marks_append(producer, outcomes, places, place_count, LEDGER_MARK_REQUEUED);
    journal_submit(producer);
    for (size_t i = 0; i < place_count && !error; i++) {
        int set = marks_set(marks, places[i], LEDGER_MARK_REQUEUED);
        error = set < 0 ? set : 0;
    }
    return error;
}
