/* A scribe: the threads that write the groups of some of the streams (journal.h tells what a group is).
 *
 * There are two scribes, so that what waits for its acknowledgement does not wait for the syncs of what the pipeline writes about older
 * messages. They share nothing but counters. A producer belongs to one of them: that of the stream to which it appends first.
 *
 * A scribe has one writer or several. A writer is a thread that takes a group from its beginning to its end: gathers it, writes it, syncs
 * it, and tells the producers. They write one after the other, in the order of the groups, and tell in that order; only their syncs
 * overlap, for a disk takes the next write while it flushes the last. Each writer syncs through a handle of its own, since the system tells
 * each handle, once, that pages could not be written: a sync that another one has told cannot pass as a success.
 *
 * While the disk is short (space.h) groups are made of what is pressing only; the rest stays submitted, in its order. */
#ifndef JOURNAL_SCRIBE_H
#define JOURNAL_SCRIBE_H

#include <pthread.h>
#include <stdatomic.h>

#include "journal/stream.h"

/* A stretch of a chunk whose records all belong to one stream. */
struct chunk_run {
    struct journal_stream *stream;
    size_t start, bytes;
    size_t records;
};

struct journal_chunk {
    struct journal_chunk *next;
    struct journal_producer *producer;
    uint8_t *bytes;
    size_t length, capacity;
    uint64_t *tokens;
    size_t token_count, token_capacity;
    struct chunk_run *runs;
    size_t run_count, run_capacity;
    unsigned release_after; /* scribe: index of the stream after which it may be told durable */
};

struct chunk_list {
    struct journal_chunk *first, *last;
    size_t count;
};

struct journal_producer {
    struct journal *journal;
    struct scribe *scribe; /* of the streams that it appends to; NULL until the first append */
    bool pressing;         /* and so are they */
    void (*notify)(void *context);
    void *context;
    struct journal_chunk *open;    /* owner's */
    struct compressor *compressor; /* owner's; NULL until a payload is packed */
    uint8_t *packed;               /* owner's: the last payload that was */
    size_t packed_capacity;
    pthread_mutex_t lock;
    pthread_cond_t drained;
    unsigned waiting;
    struct chunk_list idle;    /* under lock: chunks to use again */
    struct chunk_list durable; /* under lock */
    _Atomic size_t backlog;
    bool touched; /* under lock: its scribe is about to tell it */
    struct journal_producer *touched_next;
    unsigned release_after; /* scribe: of its newest chunk in the group */
};

/* What the scribes of a journal have in common. */
struct scribe_shared {
    pthread_mutex_t lock;
    struct histogram sync;    /* written under lock */
    _Atomic unsigned stalled; /* how many wait for the disk; written under lock */
    /* Under lock, monotonic: since when one waits; when that was said last (0: never); whether it was said of this time. */
    uint64_t stalled_ns, said_ns;
    bool told;
    atomic_bool ends_behind; /* something became durable since the keeper noted how far the streams have come (ends.h) */
};

enum { SCRIBE_PARTS_MAX = 1024 };

/* What a writer has to do with one stream. */
struct writer_stream {
    uint64_t bytes;      /* of the group's records; 0: it has none of this stream */
    uint64_t end_offset; /* behind them */
    int file;            /* its own handle of the stream's segment, -1: none */
    uint64_t file_salt;  /* of that segment */
    _Alignas(8) uint8_t mark[FORMAT_MARK_SIZE];
};

struct writer {
    struct scribe *scribe;
    pthread_t thread;
    bool running;
    struct chunk_list group; /* at first what was submitted before the start */
    uint64_t number;         /* of the group, from 0 */
    uint64_t started_ns;
    bool care;                                         /* the keeper has something to do */
    bool abandoned;                                    /* the group is given up */
    bool early;                                        /* it is what was sent off before the start */
    struct writer_stream streams[JOURNAL_STREAMS_MAX]; /* as scribe.streams */
};

struct scribe {
    const struct journal_options *options;
    struct journal_stream *streams[JOURNAL_STREAMS_MAX]; /* in the order in which a group is written */
    unsigned stream_count;
    void (*wake_keeper)(struct journal *journal);
    struct journal *journal;

    struct writer writers[JOURNAL_WRITERS_MAX]; /* [writer_count] */
    unsigned writer_count;

    pthread_mutex_t lock;
    pthread_cond_t arrived; /* there is something to write, and nobody writes */
    pthread_cond_t told;    /* `ended` has gone on */
    pthread_cond_t pressed; /* `pressing` was set */
    struct chunk_list submitted;
    size_t sent_before_start; /* of these: chunks that make a group of their own */
    unsigned sleeping;        /* writers that wait for `arrived` */
    bool writing, stopping;   /* a writer has the turn to write */
    bool pressing;            /* something was submitted that does not wait for room since that was last looked for */
    uint64_t begun, ended;    /* groups */
    struct iovec *parts;      /* [SCRIBE_PARTS_MAX], whose turn it is to write */
    _Atomic uint64_t group_count, byte_count;
    atomic_bool abandoned;       /* it is not to wait for space any more */
    bool gave_up;                /* whose turn it is to write: it has not */
    atomic_bool stalled;         /* it waits for the disk */
    atomic_uint_fast64_t stalls; /* how often that has begun or ended */
    uint64_t disk_free_min;      /* 0: it writes whatever is left */
    bool is_short, holds_back;   /* whose turn it is to write: the disk was when last asked; so there is something that waits for room */
    uint64_t looked_ns,
        looked_at;       /* whose turn it is to write: when it last asked how much is free (monotonic; 0: never), byte_count then */
    uint64_t until_look; /* bytes of it until the next */
    struct scribe_shared *shared;
};

/* In zeroed memory with writer_count set. fini throws away what was submitted and never written; start and stop may be left out before it.
 */
int scribe_init(struct scribe *scribe);
void scribe_fini(struct scribe *scribe);
int scribe_start(struct scribe *scribe);
bool scribe_step(struct scribe *scribe); /* journal_step_group */
void scribe_stop(struct scribe *scribe); /* writes what was submitted first */

void scribe_submit(struct scribe *scribe, struct journal_chunk *chunk); /* takes the chunk; any thread */

void chunk_list_push(struct chunk_list *list, struct journal_chunk *chunk);
struct journal_chunk *chunk_list_pop(struct chunk_list *list); /* NULL: empty */
void chunk_list_destroy(struct chunk_list *list);
void chunk_destroy(struct journal_chunk *chunk); /* accepts NULL */

#endif
