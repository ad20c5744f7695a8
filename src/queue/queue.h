/* The durable tier's interface: what the pipeline sees of the journal, and later of RabbitMQ and Kafka.
 *
 * Delivery is at least once. A backend says in `capabilities` what it lacks. What each must do is tested through this
 * interface (tests/unit/test_embedded_queue.c).
 *
 * A queue has any number of threads that accept messages, each with a `queue_producer` of its own, one consumer thread (fetch) and any
 * number of settling threads. A settling thread opens a `queue_writer` of its
 * own; what it appends in one `queue_commit` becomes durable in this order: results, dead letters, outcomes. So an outcome on
 * disk always has its result on disk. */
#ifndef QUEUE_QUEUE_H
#define QUEUE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/message.h"

enum queue_capability { QUEUE_REPLAY = 1, QUEUE_ORDERED = 2, QUEUE_PRIORITIES = 4, QUEUE_LIVE_RESULTS = 8 };

enum queue_outcome { QUEUE_COMPLETED = 1, QUEUE_DUPLICATE = 2, QUEUE_DEAD_LETTERED = 3 };

/* Messages of one fetch; they stay valid until queue_batch_release. */
struct queue_batch {
    struct queue *queue;
    size_t count;
    const struct message *messages; /* in order of arrival */
    const bool *settled;            /* [count]: already has its outcome; delivered only so that join state can be rebuilt */
};

/* Where a message of a fetched batch came from, so that it can be settled after the batch is gone. */
struct queue_position {
    uint64_t offset;
};

struct queue_counts { /* of the consumed stream; accepted = completed + duplicates + dead_lettered + pending at any instant */
    uint64_t accepted, completed, duplicates, dead_lettered, pending;
    uint64_t unread; /* part of pending: not fetched yet */
};

struct queue_dead_letter {
    struct queue_position position;
    const char *reason;            /* a short stable word, e.g. "unmatched"; one of the rows of queue/reasons.def */
    const char *stage;             /* which stage gave up, e.g. "join" */
    const char *error;             /* for a person; UTF-8, zero-terminated */
    const struct message *message; /* topic, payload, time as accepted; may be NULL: the queue reads it again by its offset */
};

/* Where an accepted message goes. */
enum queue_destination {
    QUEUE_CONSUMED, /* to the consumer: it is to have an outcome */
    QUEUE_KEPT,     /* it is kept, and nobody is told of it */
    QUEUE_NOTED     /* it is no message, but what who accepts messages from other brokers has to know after a restart */
};

/* What was appended goes off by itself only when more than QUEUE_GATHERED_MIN would gather. A record takes QUEUE_RECORD_OVERHEAD at most
 * besides topic, properties and payload. */
enum { QUEUE_GATHERED_MIN = 512 << 10, QUEUE_RECORD_OVERHEAD = 256 };

/* What a queue holds, for those who read it in order from a place of their own on (struct queue_view). */
enum queue_content { QUEUE_CONTENT_CONSUMED, QUEUE_CONTENT_KEPT, QUEUE_CONTENT_NOTED, QUEUE_CONTENT_RESULTS, QUEUE_CONTENT_COUNT };

/* Who reads from a place of his own on, and so decides what may be removed. */
enum queue_holder {
    QUEUE_HOLDER_BROKERS,  /* what is known of other brokers */
    QUEUE_HOLDER_SESSIONS, /* clients that take up later where they were */
    QUEUE_HOLDERS
};

/* Of a message that has to be known again: in which session it came, and the how manieth of all of them it was and its packet identifier
 * there. It is stored with the message, in one record, so that either both are on disk or none. The numbers of our sessions with other
 * brokers are odd, those of our own clients even. All zero: nothing of that kind has to be known. */
struct queue_origin {
    uint64_t session; /* never 0 */
    uint64_t sequence;
    uint16_t packet_id; /* 0: QoS 0 and 1 */
};

static inline bool queue_origin_is_broker(const struct queue_origin *origin)
{
    return origin->session % 2 == 1;
}

/* The way in. Of one thread; what it appends is sent off together and becomes durable in order. */
struct queue_producer;

struct queue_producer_ops {
    void (*close)(struct queue_producer *producer); /* waits until what was sent off is durable and notify has returned */
    /* `token` (0: none) comes back when the message is durable. ERR_NO_MEMORY, ERR_LIMIT (too large); nothing is appended then. */
    int (*append)(struct queue_producer *producer, enum queue_destination to, const struct message *message, uint64_t token);
    int (*append_from)(struct queue_producer *producer, enum queue_destination to, const struct message *message,
                       const struct queue_origin *origin, uint64_t token);
    void (*submit)(struct queue_producer *producer); /* sends off what was appended */
    /* Calls `each` with the tokens of what has become durable since the last poll, in order of append. */
    void (*poll)(struct queue_producer *producer, void (*each)(void *context, const uint64_t *tokens, size_t count), void *context);
    size_t (*backlog)(const struct queue_producer *producer);  /* bytes sent off and not durable yet; for back-pressure */
    size_t (*gathered)(const struct queue_producer *producer); /* bytes appended and not sent off */
};

struct queue_producer {
    const struct queue_producer_ops *ops;
};

/* Reads what is durable, in order of offset. Of one thread, which may have to wait for the disk. */
struct queue_view;

struct queue_view_ops {
    void (*close)(struct queue_view *view);
    /* The next message, borrowed until the next call; *origin (may be NULL) all zero where it has none. ERR_TRUNCATED: there is none yet;
     * else an error of the disk. */
    int (*next)(struct queue_view *view, struct message *message, struct queue_origin *origin);
};

struct queue_view {
    const struct queue_view_ops *ops;
};

struct queue;
struct queue_writer;

typedef void queue_on_result(void *context, const struct message *result, size_t source_count);

struct queue_ops {
    const char *name;
    unsigned capabilities; /* bits of enum queue_capability */
    void (*close)(struct queue *queue);

    /* For a thread that accepts messages. `notify` is called on a thread of the queue whenever something of this producer has become
     * durable; it wakes the owner, who polls, and must not block. */
    int (*producer_open)(struct queue *queue, void (*notify)(void *context), void *context, struct queue_producer **producer);

    /* Consumer thread. Waits up to timeout_ms for messages beyond what was fetched. Returns 0 with *batch (count may be 0 after a
     * time-out: nothing is waiting), or an error. */
    int (*fetch)(struct queue *queue, size_t bytes_max, unsigned timeout_ms, struct queue_batch **batch);
    void (*batch_free)(struct queue_batch *batch);
    /* Makes a waiting fetch return at once; any thread. */
    void (*interrupt)(struct queue *queue);
    /* Reads one message of the consumed stream again (settling threads). *copy is malloc'd with its topic, payload and properties
     * behind it; free() it. NULL in backends without QUEUE_REPLAY. */
    int (*read_again)(struct queue *queue, struct queue_position position, struct message **copy);
    /* Calls `each` for the last `count_max` results in order, with how many sources were given with it, before the first fetch. May be
     * NULL. */
    int (*recent_results)(struct queue *queue, uint64_t count_max, queue_on_result *each, void *context);
    /* How often it has begun or ended that messages are accepted and yet cannot be fetched, because there is no space to make them durable:
     * odd while it lasts. Any thread; may be NULL. */
    uint64_t (*holds)(struct queue *queue);
    /* From the first message that is kept and whose offset is >= from. */
    int (*view_open)(struct queue *queue, enum queue_content content, uint64_t from, struct queue_view **view);
    /* Offsets of the first kept message and behind the last durable one; any thread. */
    void (*extent)(struct queue *queue, enum queue_content content, uint64_t *first, uint64_t *next);
    /* Nothing at or beyond `offset` is removed for all that this holder needs. Which holders there are is said when the queue is opened;
     * each holds everything (0) until it has called, but QUEUE_CONTENT_NOTED is the brokers' alone. Any thread. */
    void (*hold)(struct queue *queue, enum queue_content content, enum queue_holder holder, uint64_t offset);
    /* From its return on this holder's `notify` is called on a thread of the queue whenever the durable end of what it holds of _CONSUMED,
     * _KEPT or _RESULTS has moved, once `extent` and views show it; it must not block. NULL: it watches no more, and `notify` is not
     * running when that returns. Any thread, but not from within a `notify`. */
    void (*watch)(struct queue *queue, enum queue_holder holder, void (*notify)(void *context), void *context);
    /* Every position is counted once; any thread. */
    void (*counts)(struct queue *queue, struct queue_counts *counts);

    /* Settling threads. `done` is called with `token` for each committed writer turn once it is durable, on a thread of the queue. */
    int (*writer_open)(struct queue *queue, struct queue_writer **writer);
    void (*writer_close)(struct queue_writer *writer);
    /* A result message, to be published once it is durable unless it has MESSAGE_WITHHELD; `sources` are the offsets that it answers (given
     * with the last result of a set only, else NULL, 0). */
    int (*result)(struct queue_writer *writer, const struct message *message, const uint64_t *sources, size_t source_count);
    /* Also settles the position. A message that had to be read again and is gone (queue_message_is_gone) is settled as damaged. */
    int (*dead_letter)(struct queue_writer *writer, const struct queue_dead_letter *letter);
    int (*settle)(struct queue_writer *writer, struct queue_position position, enum queue_outcome outcome);
    /* Sends all of this turn off; blocks while the queue is full. `done` may be NULL. */
    int (*commit)(struct queue_writer *writer, void (*done)(void *token, int error), void *token);
};

struct queue {
    const struct queue_ops *ops;
};

/* Whether an error of read_again says that nobody will ever read the message again, however often he tries. */
static inline bool queue_message_is_gone(int error)
{
    return error == ERR_NOT_FOUND || error_class(error) == ERROR_CLASS_DATA;
}

/* Any thread. */
static inline void queue_batch_release(struct queue_batch *batch)
{
    batch->queue->ops->batch_free(batch);
}

#endif
