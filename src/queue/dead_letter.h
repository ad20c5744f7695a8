/* A dead letter on disk: the message as it was accepted, and as the record's properties a JSON object that says why it was given
 * up: {"reason","stage","error","stream","offset","time_ns","attempts","first_offset","first_time_ns","previous_reason"}. Behind a zero
 * byte follow the message's own properties, if it had any.
 *
 * A requeued message (MESSAGE_REQUEUED) carries its history the same way: the object of the dead letter that it was, with the number of the
 * attempt that it is now, and "dead_letter", the offset of that dead letter. */
#ifndef QUEUE_DEAD_LETTER_H
#define QUEUE_DEAD_LETTER_H

#include <stdbool.h>

#include "base/buffer.h"
#include "base/message.h"

#define DEAD_LETTER_NO_PLACE UINT64_MAX

struct dead_letter {
    char reason[32], stage[32], stream[64];
    char error[512];
    uint64_t offset, time_ns;             /* of the message in its stream */
    unsigned attempts;                    /* how often it was tried, this time included */
    uint64_t first_offset, first_time_ns; /* where the message was accepted for the first time */
    char previous_reason[32];             /* of the time before; "": it was the first */
    uint64_t place;                       /* of a requeued message: the dead letter in `dead-letters`; else DEAD_LETTER_NO_PLACE */
};

/* Appends the properties of a record; `own` (may be empty) are those of the message itself. ERR_LIMIT, ERR_NO_MEMORY. */
int dead_letter_encode(const struct dead_letter *letter, const uint8_t *own, uint32_t own_length, struct buffer *out);

/* Reads them back; missing texts and numbers stay empty, and what was written before there were histories is its own first time.
 * ERR_CORRUPT when they are no JSON object. */
int dead_letter_decode(const struct message *record, struct dead_letter *letter);

/* The properties of the message itself, of a dead letter or a requeued message. */
void dead_letter_own_properties(const struct message *record, const uint8_t **own, uint32_t *own_length);

/* The properties with which a message of a consumed stream was published: without the history of one that was requeued. */
void message_published_properties(const struct message *message, const uint8_t **published, uint32_t *length);

/* What a message becomes that is given up now: *letter gets everything but the reason, the stage and the error. Borrows nothing. */
void dead_letter_begin(struct dead_letter *letter, const struct message *message, const char *stream);

/* Whether a message that was requeued had been refused for its content, or lost by a failure of ours: so that, if its set was answered, it
 * was answered without it. */
bool dead_letter_was_refused(const struct message *message);

/* The number of its reason (reason.h), INTERNAL when it cannot be read. */
unsigned dead_letter_reason(const struct message *record);

#endif
