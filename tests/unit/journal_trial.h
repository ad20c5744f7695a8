/* A process with a journal on a simulated disk, and what that journal has promised.
 *
 * The trial appends records that can be told from one another, steps the journal, and notes what became durable. A reading of what is on a
 * disk is then held against it: every durable record is there with its content and its offset; every record there was appended, and is
 * there once; the offsets have no gap; nothing that was once found to be lost comes back; retention took no more than it may. */
#ifndef TESTS_UNIT_JOURNAL_TRIAL_H
#define TESTS_UNIT_JOURNAL_TRIAL_H

#include <setjmp.h>

#include "journal/journal.h"
#include "simulated_disk.h"

enum { TRIAL_STREAMS = 3, TRIAL_UNTRIMMED = 2, TRIAL_PRODUCERS = 2, TRIAL_SEGMENT_SIZE = 64 << 10 };

enum trial_state {
    TRIAL_SENT,    /* may be there after a crash */
    TRIAL_DURABLE, /* must be */
    TRIAL_GONE     /* must not: it was not there after a crash */
};

struct trial_record {
    enum trial_state state;
    uint32_t payload_length;
    uint64_t offset; /* of a durable one */
    unsigned read;   /* the last reading that met it */
};

struct trial_stream {
    struct trial_record *records; /* [count], by serial number */
    size_t count, capacity;
    uint64_t guard; /* the highest that was set */
    uint64_t next;  /* offset that the next durable record will have */
};

struct trial {
    struct simulated_disk *disk; /* owned */
    struct trial_stream streams[TRIAL_STREAMS];
    struct random_source random;
    unsigned readings;
    uint64_t segment_size;
    uint32_t keeper_one_in; /* of the group thread's writes and syncs one has the keeper at work beside it */
    int compression_level;  /* 0: none */
    unsigned writers;       /* groups that may be under way at once */
    bool with_large;        /* some records are larger than a chunk of the journal */

    struct journal *journal;
    struct journal_stream *journal_streams[TRIAL_STREAMS];
    struct journal_producer *producers[TRIAL_PRODUCERS];
    struct trial_shown {
        struct trial *trial;
        unsigned stream;
    } shown[TRIAL_STREAMS]; /* contexts */
    bool in_group, in_keeper;

    /* What is to happen at the disk's calls. */
    void (*on_call)(struct trial *trial, const struct simulated_call *call); /* after each that could change something; may be NULL */
    void *on_call_context;
    uint64_t calls_sum; /* of all calls so far: the same for the same seed */
    unsigned fail_in;   /* so many calls of fail_kind from now one fails with fail_error; 0: none */
    int fail_error;     /* an errno; 0: EIO */
    enum simulated_kind fail_kind;
    bool fail_keeper; /* only of the calls that the keeper makes while a group is written */
    bool may_die;     /* else it is an error when the journal gives up */
    jmp_buf died;     /* where trial_turns and trial_close continue then */
};

/* Ends the test with a message, and says how to run the seed again. */
#define TRIAL_CHECK(condition, ...)                                                                                                        \
    do {                                                                                                                                   \
        if (!(condition))                                                                                                                  \
            trial_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                                                                       \
    } while (0)
void trial_fail(const char *file, int line, const char *condition, const char *format, ...) __attribute__((format(printf, 4, 5), noreturn));

/* Runs `run` with each seed: SPINDLE_FAULT_SEED alone, or else SPINDLE_FAULT_RUNS (default_runs) seeds from 1 on. */
void trial_seeds(unsigned default_runs, void (*run)(uint64_t seed));

/* A trial on an empty disk, and one on what a crash at this moment leaves, with the same promises. trial_fini frees both. */
void trial_init(struct trial *trial, uint64_t seed);
void trial_init_crashed(struct trial *crashed, const struct trial *trial, uint64_t seed);
void trial_fini(struct trial *trial);

/* The machine crashes, and the trial goes on with what is left. */
void trial_crash(struct trial *trial);

/* Starts a journal. Returns its error, with nothing open. */
int trial_open(struct trial *trial);

/* Ends in order. False: as trial_turns. */
bool trial_close(struct trial *trial);
void trial_kill(struct trial *trial); /* the process is gone, what the system holds of its files is not */

/* Some appends, groups and keeper's turns, as chance will have it. False: the journal has given up (may_die), and is to be killed. */
bool trial_turns(struct trial *trial, unsigned turns);

/* Reads all streams and holds them against the promises. Without `damaged` no damage may be told; with it durable records may be missing,
 * but only those that are told, and all of those. trial_adopt also makes what was read the promise for the future: after a recovery. */
void trial_read(struct trial *trial, bool damaged);
void trial_adopt(struct trial *trial, bool damaged);

/* The folder of a stream. */
void trial_folder(unsigned stream, char folder[64]);

#endif
