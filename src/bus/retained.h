/* The retained messages: of each topic the last one that was published to be kept (MQTT 5 section 3.3.1.3), in memory (retained_tree.h)
 * and, where there is a stream for them, on disk.
 *
 * The stream's order is the order in which messages were put: both happen under one lock, so a start finds what was there. It grows with
 * each of them; what is still valid is written again, a little with each message, so that what lies before can go: the stream stays within
 * a few times what is kept. Any thread may call any function. */
#ifndef BUS_RETAINED_H
#define BUS_RETAINED_H

#include "bus/retained_tree.h"
#include "journal/journal.h"

struct retained_options {
    uint32_t messages_max;         /* 0: RETAINED_MESSAGES_MAX_DEFAULT */
    size_t bytes_max;              /* in memory; 0: RETAINED_BYTES_MAX_DEFAULT */
    size_t backlog_max;            /* bytes on their way to the disk, beyond which QoS 0 is not taken; 0: RETAINED_BACKLOG_MAX_DEFAULT */
    size_t slack;                  /* bytes that the stream may hold in vain at least; 0: RETAINED_SLACK_DEFAULT */
    struct journal *journal;       /* started; NULL: in memory only */
    struct journal_stream *stream; /* guarded, of the same scribe as the streams of publishes and before them, so that a message is durable
                                    * here when its publish is acknowledged */
};

enum {
    RETAINED_MESSAGES_MAX_DEFAULT = 1000000,
    RETAINED_BYTES_MAX_DEFAULT = 256 << 20,
    RETAINED_BACKLOG_MAX_DEFAULT = 64 << 20,
    RETAINED_SLACK_DEFAULT = 16 << 20,
    RETAINED_PASSING_MAX = 80, /* messages that are never written, beside messages_max */
    RETAINED_SWEEP = 65536     /* slots that one retained_expire looks at */
};

struct retained;

/* Takes up what the stream holds. What does not fit into the limits is left out, and the operator is told. Returns 0, ERR_NO_MEMORY,
 * ERR_IO or an error of the reader. */
int retained_open(const struct retained_options *options, struct retained **out);
void retained_close(struct retained *retained); /* before the journal; accepts NULL */

/* Puts a copy of the message in the place of the topic's former one; one without payload removes that. *number gets which put it was, from
 * 1 on. It goes to the stream with the next retained_flush, which is to come before the publish itself is sent off. Returns 0, ERR_LIMIT
 * (the topic's message is what it was: no room), ERR_BUSY (the same: QoS 0, and too much is on its way to the disk) or ERR_NO_MEMORY (a
 * start may find another than there is now). */
int retained_put(struct retained *retained, const struct message *message, uint64_t *number);

/* The same for what the next start need not find: it is not written, and has a limit of its own in place of messages_max. */
int retained_put_passing(struct retained *retained, const struct message *message, uint64_t *number);

void retained_flush(struct retained *retained); /* sends off what was put */

/* Between the two nothing is put. Returns the number of the last put before. */
uint64_t retained_hold(struct retained *retained);
void retained_let_go(struct retained *retained);

/* As retained_tree_find. */
int retained_find(struct retained *retained, const char *filter, size_t length, struct retained_list *list);

/* The messages of `count` handles, each with a reference for the caller; NULL where one was replaced, removed, or has expired by wall_ns.
 */
void retained_take(struct retained *retained, const struct retained_handle *handles, size_t count, uint64_t wall_ns,
                   struct retained_message **messages);

/* Removes messages that have expired; a part of them all with each call. Returns how many. */
uint32_t retained_expire(struct retained *retained, uint64_t wall_ns);

struct retained_status {
    uint32_t count; /* but what is passing */
    size_t bytes;
};
void retained_status(struct retained *retained, struct retained_status *status);

#endif
