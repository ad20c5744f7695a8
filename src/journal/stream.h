/* The files of one stream: recovery, the segment being written, the one prepared for after it, and retention.
 *
 * The scribe writes; the keeper thread zeroes ahead, prepares and removes. What both touch is under `lock`, which is
 * never held across a system call but for the short step that changes names. */
#ifndef JOURNAL_STREAM_H
#define JOURNAL_STREAM_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "journal/journal.h"
#include "journal/retention.h"

enum { STREAM_ZERO_STEP = 1 << 20, STREAM_ZERO_AHEAD = 8 << 20, STREAM_ZERO_FIRST = 1 << 20, STREAM_PAGE_SIZE = 4096 };
enum { STREAM_PATH_MAX = JOURNAL_PATH_MAX + 40 }; /* bytes of a path in the folder of a stream, with its zero */

/* `clock` NULL: the system's. */
static inline uint64_t journal_wall_ns(const struct journal_clock *clock)
{
    return clock ? clock->wall_ns() : clock_wall_ns();
}

static inline uint64_t journal_monotonic_ns(const struct journal_clock *clock)
{
    return clock ? clock->monotonic_ns() : clock_monotonic_ns();
}

struct journal_stream {
    struct disk *disk;
    char name[FORMAT_STREAM_NAME_MAX + 1];
    char folder[JOURNAL_PATH_MAX];
    uint64_t segment_size;
    const struct journal_clock *clock; /* NULL: the system's */
    uint64_t disk_free_min;            /* nothing is written ahead into the last of the disk (space.h) */
    uint64_t key;                      /* format.h */
    size_t pack_from;
    uint64_t known_first;            /* offset before which records may have been removed (ends.h); FORMAT_BEGINNING_UNKNOWN */
    uint64_t known_end;              /* offset behind the last that was written by what "ends" says (ends.h); 0: nothing is known */
    bool guarded, pressing, stepped; /* as in journal_options */
    struct journal *journal;
    unsigned index, scribe; /* of the stream in the journal; who writes it */
    unsigned place;         /* of the stream in its scribe */
    void (*notify)(void *context);
    void *notify_context;
    void (*on_record)(void *context, const struct message *record);
    void *on_record_context;

    /* The scribe's. */
    int file;                   /* -1: none yet, since the disk was full at the start */
    char path[STREAM_PATH_MAX]; /* of `file` */
    uint64_t position;          /* where the next group goes */
    uint64_t salt;
    uint64_t next_offset; /* of the next record to be written */
    uint64_t begun_ns;    /* monotonic: when the first group went into the segment; only with a limit of age */

    _Atomic uint64_t durable; /* offset behind the last durable record */
    _Atomic uint64_t guard;
    _Atomic uint64_t retire_at; /* the keeper is to be woken when the guard comes to it; UINT64_MAX: it need not */
    _Atomic uint64_t shrink_at; /* the same, for compression */
    struct shrink *shrink;      /* the keeper's, the same for all streams; NULL: nothing is compressed */

    uint64_t look_at_ns; /* the keeper's, monotonic: when it is to look at retention again; UINT64_MAX: when it is woken */

    pthread_mutex_t lock;
    pthread_cond_t zero_done;
    struct retention retention;
    struct stream_segment *segments; /* oldest first; the last is being written */
    size_t segment_count, segment_capacity;
    uint64_t position_seen; /* position, for the keeper */
    uint64_t zeroed_to;     /* bytes of the active file that hold data or zeros already */
    bool zeroing;           /* the keeper writes zeros behind zeroed_to right now */
    int left_file;          /* the segment that was full, to be closed by the keeper; -1: none */
    bool left_unread;       /* somebody has still to read it */
    int next_file;          /* prepared segment, -1: none */
    uint64_t next_zeroed_to;
    bool has_spare;         /* "spare.seg": a retired segment, to be made into the next one */
    bool retention_stopped; /* the disk failed at it */
    bool zeroing_failed;    /* no more zeroing ahead in this segment (for example: disk full) */
    bool shrinking_failed;  /* no more compressing until the next segment is begun */
    struct trim_job *trim;  /* what somebody waits for (trim.c); NULL: nothing */
    bool has_keeper;        /* its thread runs */
    pthread_cond_t trimmed; /* monotonic; with `trim` and has_keeper */
};

/* Recovers what is there and begins a new segment, behind known_end if the files end before it. On a full disk that is left to the first
 * group. */
int stream_open(struct journal_stream *stream);
void stream_close(struct journal_stream *stream);

/* Between open and the first group: goes on at an offset behind the end (journal_stream_skip). */
int stream_skip(struct journal_stream *stream, uint64_t offset);

/* Scribe. Whether a group of `bytes` goes into the segment: it fits, and this one has not been written to for as long as a record is to be
 * kept. Otherwise it is to begin a new one, once all that was written is durable. A negative error: nothing has changed. */
bool stream_has_room(struct journal_stream *stream, uint64_t bytes);
int stream_begin_segment(struct journal_stream *stream);

/* Scribe. Zeros to be written behind a group of `bytes`, up to the end of its last page: only a page that is written whole need not be
 * read first when the file was used before. The next group is written over them. */
uint64_t stream_padding(const struct journal_stream *stream, uint64_t bytes);

/* Scribe. Claims [position, position + bytes) and the padding against the keeper's zeroing. Returns whether the keeper has something to
 * do. */
bool stream_claim(struct journal_stream *stream, uint64_t bytes);

/* Tells the operator of damage; a reader_on_damage whose context is the stream. */
void stream_say_damage(void *context, const struct reader_damage *damage);

/* Keeper thread: whether so many bytes may be written ahead of need, or for thrift: not into the last of the disk (space.h). */
bool stream_may_write_ahead(const struct journal_stream *stream, uint64_t bytes);

/* Any thread, without the lock of a stream: there may be something to do (journal.c). */
void journal_wake_keeper(struct journal *journal);

/* Keeper thread: does one piece of what is needed. `full`: a scribe waits for space, so what is retired is not kept to be used again, and
 * nothing is written ahead. Returns true when there was something to do; otherwise look_at_ns says when to come back. */
bool stream_keep(struct journal_stream *stream, bool full);

#endif
