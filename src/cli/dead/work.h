/* Putting dead letters back, or dropping them: what `spindle dead requeue|purge` and the HTTP interface have in common. */
#ifndef CLI_DEAD_WORK_H
#define CLI_DEAD_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "cli/dead/filter.h"
#include "queue/dead_letters.h"
#include "queue/queue.h"

enum dead_action { DEAD_REQUEUE, DEAD_PURGE };

enum {
    DEAD_LIMIT_MAX = 10000,    /* dead letters of one request */
    DEAD_TIME_MAX_MS = 1000,   /* a request that has looked for so long stops, and says where to go on */
    DEAD_COMMIT_WAIT_MS = 5000 /* how long the disk is waited for */
};

struct dead_request {
    enum dead_action action;
    struct dead_filter filter;
    bool all;      /* an empty filter is meant */
    bool force;    /* also those that were tried too often */
    bool dry_run;  /* count only */
    uint64_t from; /* goes on here */
    uint64_t end;  /* and ends before this offset, so that what fails again meanwhile is not taken again */
    uint32_t limit;
};

/* Everything of an action, not confirmed. */
void dead_request_init(struct dead_request *request, enum dead_action action);

/* From the body of a request. ERR_INVALID with a sentence. */
int dead_request_read(struct dead_request *request, const void *json, size_t length, char message[VALUE_MESSAGE_MAX]);

/* Appends it as such a body. */
int dead_request_write(const struct dead_request *request, struct buffer *out);

struct dead_done {
    uint64_t matched, done, refused; /* open ones that match; requeued or purged; tried too often, and left */
    uint64_t next;                   /* where to go on, when there is more */
    uint64_t end;                    /* the end that holds: give it to the next request */
    bool more;
};

int dead_done_write(const struct dead_request *request, const struct dead_done *done, struct buffer *out);
int dead_done_read(struct dead_done *done, const void *json, size_t length);

/* Does one request, or a part of it. *done says what was done also when an error ended it: ERR_BUSY (not now; `letters` says when), or of
 * the journal. */
int dead_work(struct queue *queue, struct dead_letters *letters, const struct dead_request *request, unsigned attempts_max,
              struct dead_done *done);

#endif
