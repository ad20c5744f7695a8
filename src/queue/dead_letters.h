/* What is done with the dead letters of an embedded queue: they are put back, or dropped.
 *
 * A dead letter is never changed. Putting it back appends its message, with its history, to the consumed stream: a message like any other,
 * newly accepted. Nobody puts one back but who calls this. It is marked in memory once the message is durable, and on disk when the
 * consumer reads it (ledger.h). So a crash at any moment leaves it either open or put back once. One thread. */
#ifndef QUEUE_DEAD_LETTERS_H
#define QUEUE_DEAD_LETTERS_H

#include "queue/dead_letter.h"
#include "queue/queue.h"

enum { DEAD_LETTERS_TURN_MAX = 1024, DEAD_LETTERS_TURN_BYTES = 4 << 20 }; /* a turn is full with so many, or with so many bytes */

struct dead_letters;

int dead_letters_open(struct dead_letters **letters, struct queue *embedded);

/* Before journal_close. Accepts NULL. */
void dead_letters_close(struct dead_letters *letters);

/* 0, or why nothing may be changed now: ERR_BUSY (messages from before the start are still being read again, or the disk has not taken the
 * turn before). */
int dead_letters_ready(struct dead_letters *letters);

bool dead_letters_is_open(struct dead_letters *letters, uint64_t offset);

/* Adds an open one to the turn: `record` as it was read from the stream. ERR_LIMIT when it does not fit into a record any more. */
int dead_letters_requeue(struct dead_letters *letters, const struct message *record);
int dead_letters_purge(struct dead_letters *letters, uint64_t offset);

bool dead_letters_turn_is_full(const struct dead_letters *letters);

/* Makes the turn durable. ERR_BUSY when the disk does not take it in time: it will be done when the disk does, unless the process ends
 * before. */
int dead_letters_commit(struct dead_letters *letters, unsigned timeout_ms);

#endif
