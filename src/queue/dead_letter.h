/* A dead letter on disk: the message as it was accepted, and as the record's properties a JSON object that says why it was given
 * up: {"reason","stage","error","stream","offset","time_ns","attempts"}. */
#ifndef QUEUE_DEAD_LETTER_H
#define QUEUE_DEAD_LETTER_H

#include "base/buffer.h"
#include "base/message.h"

struct dead_letter {
    char reason[32], stage[32], stream[64];
    char error[512];
    uint64_t offset, time_ns; /* of the message in its stream */
    unsigned attempts;
};

/* Appends the properties. */
int dead_letter_encode(const struct dead_letter *letter, struct buffer *out);

/* Reads them back; missing fields stay empty. ERR_CORRUPT when they are no JSON object. */
int dead_letter_decode(const struct message *record, struct dead_letter *letter);

/* The number of its reason (ledger.h), INTERNAL when it cannot be read. */
unsigned dead_letter_reason(const struct message *record);

#endif
