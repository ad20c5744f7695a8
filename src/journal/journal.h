/* The journal: durable streams, written in groups.
 *
 *   journal_open -> journal_stream_add (each stream, in the order in which a group is to become durable) -> journal_start
 *
 * A thread that appends has a producer of its own. It encodes records straight into the producer's open chunk (no lock, no
 * allocation), and sends the chunk off once a turn. A scribe takes all chunks that have arrived, gives the records
 * their offsets, writes each stream's part with one call, syncs, and then tells each producer. While it does, the next group gathers; so
 * nobody waits for a timer, and a group is as large as what arrived meanwhile.
 *
 * There are two scribes, with streams, producers and groups of their own; neither waits for the other. So messages that arrive do not wait
 * for the syncs of what is written about older ones. A producer appends to streams of one scribe only.
 *
 * The first scribe has several groups on their way at once (scribe.h): the next is written while the last is synced. Nothing tells which of
 * them reaches the disk first, so its streams must not speak of each other. The second has one: within a group streams are written and
 * synced in the order in which they were added, each before the next, and the next group is written after the last one's syncs. So what a
 * later stream says of an earlier one is true on disk at every instant.
 *
 * While the disk is short what the first scribe has been sent waits, but for what is pressing: that overtakes it. So what a pressing stream
 * says may be durable before what was sent off earlier, never later than what was sent off later. A producer appends to pressing streams
 * only, or to none.
 *
 * Groups are told durable in their order. A chunk is as soon as the last of its own streams is, and every chunk that its producer has sent
 * off before it: a producer is told in the order of submission. */
#ifndef JOURNAL_JOURNAL_H
#define JOURNAL_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/histogram.h"
#include "base/message.h"
#include "journal/disk.h"
#include "journal/reader.h"
#include "journal/retention.h"
#include "journal/space.h"

enum journal_durability {
    JOURNAL_DURABLE_DISK,  /* told durable after fdatasync */
    JOURNAL_DURABLE_OS,    /* after write: survives the process, not the machine */
    JOURNAL_DURABLE_MEMORY /* as OS here; whoever appends does not wait to be told */
};

enum {
    JOURNAL_SCRIBES = 2,
    JOURNAL_WRITERS = 3,
    JOURNAL_WRITERS_MAX = FORMAT_OPEN_GROUPS_MAX,
    JOURNAL_STREAMS_MAX = 16,
    JOURNAL_CHUNK_SIZE = 1 << 20, /* bytes of records that an open chunk takes before it goes off by itself */
    JOURNAL_GROUP_BYTES_MAX = 32 << 20,
    JOURNAL_PATH_MAX = 4096
};

/* For tests that move the time. */
struct journal_clock {
    uint64_t (*wall_ns)(void);      /* as clock_wall_ns */
    uint64_t (*monotonic_ns)(void); /* as clock_monotonic_ns, and > 0 */
};

struct journal_options {
    struct disk *disk;
    const char *folder;    /* made when missing; locked for this process */
    uint64_t segment_size; /* bytes of a segment file, >= 64 KiB */
    unsigned writers;      /* groups of the first scribe that may be on their way to the disk at once; 0: JOURNAL_WRITERS, 1 when stepped */
    size_t group_bytes_max; /* a group ends before the chunk that would make it larger; 0: JOURNAL_GROUP_BYTES_MAX */
    enum journal_durability durability;
    const struct journal_clock *clock; /* for retention and for looks at the disk's space; NULL: the system's */
    uint64_t disk_free_min;            /* bytes: the first scribe waits while less is free (space.h); 0: it never does */
    int compression_level;             /* 1 to 19: closed segments are compressed (frames.h); 0: they stay as they are */
    /* Called once when the disk fails for good (a write or sync error other than a full disk): the only honest thing left is to stop the
     * process and read again what is really there. Does not return. NULL: diagnostics, then abort(). */
    void (*fatal)(const char *text);
    bool stepped; /* journal_start starts no threads: the caller does their work, see journal_step_group */
};

struct journal;
struct journal_stream;
struct journal_producer;

int journal_open(struct journal **journal, const struct journal_options *options);

struct journal_stream_options {
    const char *name;
    uint64_t segment_size;     /* 0: the journal's */
    uint64_t retention_size;   /* bytes kept at least, older segments are recycled; 0: all */
    uint64_t retention_age_ns; /* segments whose newest record is older are recycled; 0: none (retention.h) */
    unsigned scribe;           /* who writes it: 0 or 1 */
    size_t pack_from;          /* payloads of at least this many bytes are stored compressed, where that makes them smaller; 0: none */
    bool guarded;              /* nothing at or beyond journal_stream_set_guard() is removed; the guard starts at 0 */
    bool pressing; /* while the disk is short of journal_options.disk_free_min it is written all the same, out of turn (space.h) */
};

/* Opens and recovers a stream. Damage that recovery passes over is reported by diagnostics. */
int journal_stream_add(struct journal *journal, const struct journal_stream_options *options, struct journal_stream **stream);

/* Starts the threads. What was sent off before is a group of its own, the first. */
int journal_start(struct journal *journal);

/* The turns of the scribes and the keeper, for tests that must run the same way each time: a stepped journal does on the caller's thread
 * what they would do, with the same code. A group is what was sent off so far; a full disk is tried again at once; fatal() may leave by
 * longjmp, and then the journal may only be closed. step_keeper may be called from within the disk's write and sync of a step_group, as the
 * keeper runs beside the scribe. Both return whether there was something to do. Nothing may wait for a producer of a stepped journal. */
bool journal_step_group(struct journal *journal);
bool journal_step_keeper(struct journal *journal);

/* For a stop: a scribe that waits for space, now or later, gives up what it has not made durable and all that comes after it. Nobody is
 * told of that, so nothing of it is acknowledged; its producers' backlogs become empty. A scribe whose writes succeed goes on. Returns
 * whether all of them wait. Any thread. */
bool journal_abandon(struct journal *journal);

/* Writes what has been sent off and ends the threads: no callback runs any more, nothing can be appended. */
void journal_stop(struct journal *journal);

/* Stops, and closes everything. Producers must be closed before. Accepts NULL. */
void journal_close(struct journal *journal);

/* ---- streams ---- */

const char *journal_stream_name(const struct journal_stream *stream);
const char *journal_stream_folder(const struct journal_stream *stream);
uint64_t journal_stream_durable(const struct journal_stream *stream); /* offset behind the last durable record; any thread */
void journal_stream_set_guard(struct journal_stream *stream, uint64_t offset);

/* Between journal_stream_add and journal_start: the stream goes on at `offset`, and those from its end up to there are lost: readers report
 * them as damage. An offset that the stream has passed changes nothing. Returns 0, or why no segment could be begun. */
int journal_stream_skip(struct journal_stream *stream, uint64_t offset);

/* Called on the stream's scribe after its durable offset has advanced. One per stream; set before journal_start. */
void journal_stream_on_durable(struct journal_stream *stream, void (*notify)(void *context), void *context);

/* Called on the stream's scribe for each record that has become durable, in order of offset, before producers are told; must not block.
 * One per stream; set before journal_start. Not for a stream whose payloads are packed. */
void journal_stream_on_record(struct journal_stream *stream, void (*each)(void *context, const struct message *record), void *context);

/* How often writing to the stream has begun or ended to wait for space: odd while it waits. Any thread. */
uint64_t journal_stream_stalls(const struct journal_stream *stream);

struct journal_stream_stats {
    uint64_t first_offset, durable_offset, segment_count, bytes;
    uint64_t held_bytes; /* of segments that retention would remove, were it not for the guard */
};
void journal_stream_stats(struct journal_stream *stream, struct journal_stream_stats *stats);

enum { JOURNAL_TRIM_WORK_MS = 1000, JOURNAL_TRIM_WAIT_MS = 5000 };

struct journal_trimmed {
    uint64_t *bases; /* [count]: first offsets of what was removed, oldest first; malloc'd, NULL when there is none */
    size_t count;
    uint64_t bytes;        /* of these */
    uint64_t first_offset; /* of what is left */
    size_t kept_back;      /* named segments that stay: the guard or keep_count holds them */
    bool more;             /* the time was over before all was done */
};

/* Has the keeper remove the oldest segments that `trim` names, as retention does: what retention has begun to remove meanwhile counts too.
 * Nothing at or beyond the guard goes, nor the newest segment. Blocks until that is done, or JOURNAL_TRIM_WORK_MS have passed and something
 * has gone, or JOURNAL_TRIM_WAIT_MS whatever has; one at a time for each stream, later ones wait as long. `dry_run`: says what would go,
 * at once. Any thread but the keeper and the scribes. *trimmed is set in any case, and says what had gone when an error ended it: ERR_BUSY
 * (nothing has gone in the time, or the journal is not started or stops), ERR_NO_MEMORY, or of the disk. */
int journal_stream_trim(struct journal_stream *stream, const struct retention_trim *trim, bool dry_run, struct journal_trimmed *trimmed);

/* A reader on the stream of a running journal; read only below journal_stream_durable(). Damage is told to the operator; a reader `at` a
 * place (NULL: none is known) tells it when it is to: not where it goes where another has been. */
int journal_stream_reader(struct journal_stream *stream, uint64_t from, struct reader **reader);
int journal_stream_reader_at(struct journal_stream *stream, const struct reader_place *place, uint64_t from, bool tells,
                             struct reader **reader);

/* ---- producers ---- */

/* `notify` is called on the scribe whenever chunks of this producer have become durable; it should wake the owner, who
 * then calls journal_producer_poll. It must not block. */
int journal_producer_open(struct journal *journal, void (*notify)(void *context), void *context, struct journal_producer **producer);

/* Waits until what was sent off is durable and notify has returned; before journal_close. Accepts NULL. Not on a scribe. */
void journal_producer_close(struct journal_producer *producer);

/* Encodes a record into the open chunk. `token` (0: none) comes back when it is durable. ERR_NO_MEMORY, ERR_LIMIT (record too large);
 * nothing is appended then. */
int journal_append(struct journal_producer *producer, struct journal_stream *stream, const struct message *message, const uint64_t *sources,
                   size_t source_count, uint64_t token);

/* Sends the open chunk off, if there is one. */
void journal_submit(struct journal_producer *producer);

/* A token that comes back when all is durable that anybody has sent off to the stream's scribe so far, but for what is pressing. For a
 * producer of no pressing stream. ERR_NO_MEMORY. */
int journal_fence(struct journal_producer *producer, const struct journal_stream *stream, uint64_t token);

/* What came with a chunk that has become durable. */
struct journal_batch {
    const uint64_t *tokens; /* [token_count], in order of append */
    size_t token_count;
};
/* Calls `each` for every chunk that became durable since the last poll, in order of submission. One thread at a time, which may be
 * another than the one that appends. */
void journal_producer_poll(struct journal_producer *producer, void (*each)(void *context, const struct journal_batch *batch),
                           void *context);

/* Bytes sent off and not durable yet; for back-pressure. Any thread. */
size_t journal_producer_backlog(const struct journal_producer *producer);

/* Bytes in the open chunk; the owner's thread. */
size_t journal_producer_gathered(const struct journal_producer *producer);

/* Blocks until the backlog is at most `bytes`. Not for loop threads, nor for a scribe. */
void journal_producer_wait(struct journal_producer *producer, size_t bytes);

/* ---- state ---- */

struct journal_stats {
    uint64_t groups, bytes;
    const struct histogram *sync; /* ns of write and sync of a group, all its streams; live */
    bool stalled;                 /* appends wait, for example because the disk is full */
    struct space space;           /* of the disk, now; while it is short, the streams of the first scribe wait */
};
void journal_stats(struct journal *journal, struct journal_stats *stats);

struct disk *journal_disk(const struct journal *journal);
enum journal_durability journal_durability(const struct journal *journal);

struct journal_stream *journal_stream_at(struct journal *journal, unsigned index); /* in order of adding; NULL behind the last */

struct metrics_writer;
void journal_collect(struct journal *journal, struct metrics_writer *writer);

#endif
