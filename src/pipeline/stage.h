/* A stage: what the pipeline must know of one kind of work. Drilling is one; the pipeline itself knows none.
 *
 * A stage names the key and side of a message from its topic, parses it, and answers a complete set. It has no sockets, files,
 * threads or clock: time comes in as numbers. route(), parse() and complete() are called by many workers at once (each with its
 * own scratch); for one key they are called by one worker at a time, in order of arrival. */
#ifndef PIPELINE_STAGE_H
#define PIPELINE_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/message.h"
#include "base/metrics.h"

enum { STAGE_SIDES_MAX = 4, STAGE_ERROR_TEXT_MAX = 256, STAGE_ID_MAX = 64, STAGE_STAMP_MAX = 64 };

enum stage_verdict {
    STAGE_TAKE,   /* key and side are set */
    STAGE_IGNORE, /* not this stage's business: completed as it is */
    STAGE_REJECT  /* dead letter with `reason` and `error` */
};

/* Why a message is refused: a row of queue/reasons.def and a text for a person (what, where, what was expected). */
struct stage_refusal {
    const char *reason; /* static word */
    char error[STAGE_ERROR_TEXT_MAX];
};

struct stage_route {
    enum stage_verdict verdict;
    const char *key; /* borrowed from the topic; for drilling "toolbox/tool" */
    uint32_t key_length;
    uint8_t side; /* 0 .. side_count-1 */
};

/* One parsed message while it waits for its set. Filled by parse(), given back with item_free(). */
struct stage_item {
    char stamp[STAGE_STAMP_MAX]; /* what the messages of a set share beside the key; zero-terminated */
    char id[STAGE_ID_MAX];       /* cross-check within the set; "" when unknown */
    bool id_is_hint; /* the id is a likely one only: it finds its set, but does not keep the item from one that lacks its side */
    bool broken;     /* refused, yet its stamp could be read: it is dead-lettered, and its set is answered with an error */
    uint8_t side;
    size_t held_bytes; /* memory behind data */
    void *data;        /* the stage's; NULL when broken */
};

/* What a complete set gives. The pipeline clears it before each call. Each output is kept in `results`, by which the set is known after a
 * restart, and published unless it is withheld. */
struct stage_output {
    struct buffer topic[2], payload[2]; /* [count] */
    unsigned count;                     /* 1 or 2 */
    bool withheld;                      /* nobody is to see it: it is kept and not published */
    int error;                          /* nothing could be written, count is 0: the messages of the set become dead letters */
    const char *outcome;                /* static word for the metrics, e.g. "estimated", "error", "skipped" */
};

/* What a read-back answer says of its set. A set whose ids disagreed has two names, each with the sides of its id and those without. */
struct stage_answered {
    const char *key; /* borrowed from the topic */
    uint32_t key_length;
    char stamp[STAGE_STAMP_MAX];
    unsigned name_count; /* 1 or 2 */
    struct {
        char id[STAGE_ID_MAX];
        unsigned sides; /* bit mask of those known to have been there */
    } names[2];
};

struct stage;

struct stage_ops {
    const char *name;
    unsigned side_count;
    unsigned required; /* bit mask of the sides without which a set is not complete; the others are waited for during the grace */
    const char *const *side_names; /* [side_count] */
    const char *const *outcomes;   /* the words of stage_output.outcome, ended by NULL; each is shown from the start */

    /* Per-worker memory (parsers, arrays), so that the hot path allocates nothing. */
    int (*scratch_create)(struct stage *stage, void **scratch);
    void (*scratch_destroy)(struct stage *stage, void *scratch);

    /* From the topic alone. With STAGE_REJECT *refusal is filled. */
    void (*route)(struct stage *stage, const char *topic, uint32_t topic_length, struct stage_route *route, struct stage_refusal *refusal);

    /* Returns 0 with *item, or an error of class DATA with *refusal. With item->broken set *refusal is filled as well. The item
     * outlives the message: what it needs of it is copied. A message may be parsed twice, on different workers, and must then give
     * the same: content that waits long is dropped to save memory and read again. */
    int (*parse)(struct stage *stage, void *scratch, const struct stage_route *route, const struct message *message,
                 struct stage_item *item, struct stage_refusal *refusal);
    void (*item_free)(struct stage *stage, struct stage_item *item);

    /* Whether two items of the same key, whose stamps differ, belong to one set all the same (near in compatibility mode), not looking
     * at ids. It is not asked about equal stamps. NULL when only equal stamps belong together. */
    bool (*same_set)(struct stage *stage, const struct stage_item *a, const struct stage_item *b);

    /* Whether two items of one side have the same content. */
    bool (*same_content)(struct stage *stage, const struct stage_item *a, const struct stage_item *b);

    /* Answers a set. items[side] is NULL where none came; broken items have no data. Ids may disagree, when no other partner came in
     * time. now_ns is monotonic. Never fails: what cannot be estimated is an answer too. */
    void (*complete)(struct stage *stage, void *scratch, const char *key, uint32_t key_length,
                     const struct stage_item *const items[STAGE_SIDES_MAX], uint64_t now_ns, struct stage_output *output);

    /* Reads back a message that complete() produced, so that finished sets are known after a restart. True with *answered for the last
     * message of a set alone, because a crash may have cut off what comes behind the first; false for anything it does not recognise. */
    bool (*identify)(struct stage *stage, void *scratch, const struct message *result, struct stage_answered *answered);

    void (*collect)(struct stage *stage, struct metrics_writer *writer); /* may be NULL */
};

struct stage {
    const struct stage_ops *ops;
};

#endif
