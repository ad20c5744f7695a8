/* Why a message becomes a dead letter: the rows of reasons.def and their numbers. */
#ifndef QUEUE_REASON_H
#define QUEUE_REASON_H

enum reason {
    REASON_NONE,
#define REASON(id, word, help) REASON_##id,
#include "queue/reasons.def"
#undef REASON
    REASON_COUNT
};

/* The word of a reason ("" for NONE and unknown numbers), its help, and the number of a word (INTERNAL for an unknown one). */
const char *reason_word(unsigned reason);
const char *reason_help(unsigned reason);
unsigned reason_parse(const char *word);

#endif
