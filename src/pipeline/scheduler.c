#include "pipeline/scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"

static const struct lane_standing nothing = {.deadline_ns = UINT64_MAX, .oldest = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};

static void condition_init(pthread_cond_t *condition)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &attributes);
    pthread_condattr_destroy(&attributes);
}

int scheduler_init(struct scheduler *scheduler, struct queue *queue)
{
    *scheduler = (struct scheduler){
        .earliest_ns = UINT64_MAX, .alarm_ns = UINT64_MAX, .queue = queue, .can_put_aside = queue->ops->read_again != NULL};
    scheduler->entries = calloc(SCHEDULER_ENTRIES_MAX + SCHEDULER_ASIDE_MAX, sizeof(struct lane_entry));
    if (!scheduler->entries)
        return ERR_NO_MEMORY;
    STAILQ_INIT(&scheduler->unused);
    for (unsigned i = 0; i < LANE_COUNT; i++) {
        STAILQ_INIT(&scheduler->lanes[i].entries);
        scheduler->lanes[i].standing = nothing;
    }
    pthread_mutex_init(&scheduler->lock, NULL);
    condition_init(&scheduler->work);
    condition_init(&scheduler->alarm);
    condition_init(&scheduler->room);
    virtual_clock_init(&scheduler->clock, clock_monotonic_ns());
    return 0;
}

static void wait_until(struct scheduler *scheduler, pthread_cond_t *condition, uint64_t deadline_ns)
{
    if (deadline_ns == UINT64_MAX) {
        pthread_cond_wait(condition, &scheduler->lock);
        return;
    }
    struct timespec deadline = {.tv_sec = (time_t)(deadline_ns / 1000000000u), .tv_nsec = (long)(deadline_ns % 1000000000u)};
    pthread_cond_timedwait(condition, &scheduler->lock, &deadline);
}

/* ---- lanes that are ready ---- */

static void ready_set(struct scheduler *scheduler, unsigned lane)
{
    scheduler->ready[lane / 64] |= (uint64_t)1 << lane % 64;
}

static bool is_running(const struct scheduler *scheduler, unsigned lane)
{
    return scheduler->running[lane / 64] >> lane % 64 & 1;
}

/* The next lane in turn that is ready and not running; LANE_COUNT when there is none. */
static unsigned ready_find(const struct scheduler *scheduler)
{
    enum { WORDS = LANE_COUNT / 64 };
    unsigned word = scheduler->next_lane / 64, shift = scheduler->next_lane % 64;
    for (unsigned i = 0; i <= WORDS; i++) {
        uint64_t bits = scheduler->ready[word] & ~scheduler->running[word];
        if (i == 0)
            bits &= UINT64_MAX << shift;
        if (bits)
            return word * 64 + (unsigned)__builtin_ctzll(bits);
        word = (word + 1) % WORDS;
    }
    return LANE_COUNT;
}

/* The keeper is disturbed last: another would have to take over. */
static void wake_worker(struct scheduler *scheduler)
{
    if (scheduler->idle > (scheduler->has_keeper ? 1u : 0u))
        pthread_cond_signal(&scheduler->work);
    else if (scheduler->has_keeper)
        pthread_cond_signal(&scheduler->alarm);
}

/* ---- time ---- */

static bool is_held(const struct scheduler *scheduler)
{
    return scheduler->holds & 1;
}

/* Each time that the queue begins or ceases to hold messages back, waiting begins anew. */
static void look_at_holds(struct scheduler *scheduler)
{
    uint64_t holds = scheduler->queue->ops->holds ? scheduler->queue->ops->holds(scheduler->queue) : 0;
    if (holds == scheduler->holds)
        return;
    scheduler->holds = holds;
    scheduler->restarted_ns = virtual_clock_restart(&scheduler->clock, clock_monotonic_ns());
}

static uint64_t now(struct scheduler *scheduler)
{
    look_at_holds(scheduler);
    if (is_held(scheduler))
        return scheduler->clock.now_ns;
    return scheduler->caught_up ? virtual_clock_catch_up(&scheduler->clock, clock_monotonic_ns()) : scheduler->clock.now_ns;
}

/* From here on it moves only with what is read. */
static void stop_clock(struct scheduler *scheduler)
{
    now(scheduler);
    scheduler->caught_up = false;
}

/* Makes the lanes ready whose deadline has come. */
static void handle_deadlines(struct scheduler *scheduler)
{
    if (scheduler->stopping || scheduler->earliest_ns == UINT64_MAX)
        return;
    uint64_t now_ns = now(scheduler), earliest_ns = UINT64_MAX;
    if (scheduler->earliest_ns > now_ns)
        return;
    for (unsigned i = 0; i < LANE_COUNT; i++) {
        uint64_t *deadline_ns = &scheduler->lanes[i].standing.deadline_ns;
        if (*deadline_ns <= now_ns) {
            ready_set(scheduler, i);
            *deadline_ns = UINT64_MAX; /* the lane will give a new one back */
        } else if (*deadline_ns < earliest_ns) {
            earliest_ns = *deadline_ns;
        }
    }
    scheduler->earliest_ns = earliest_ns;
}

static void wake_keeper_if_earlier(struct scheduler *scheduler)
{
    if (scheduler->caught_up && scheduler->has_keeper && scheduler->earliest_ns < scheduler->alarm_ns)
        pthread_cond_signal(&scheduler->alarm);
}

static void wait_for_work(struct scheduler *scheduler)
{
    scheduler->idle++;
    if (scheduler->has_keeper) {
        pthread_cond_wait(&scheduler->work, &scheduler->lock);
    } else {
        scheduler->has_keeper = true;
        scheduler->alarm_ns = scheduler->caught_up && !scheduler->stopping ? scheduler->earliest_ns : UINT64_MAX;
        if (scheduler->alarm_ns != UINT64_MAX && is_held(scheduler))
            scheduler->alarm_ns = clock_monotonic_ns() + SCHEDULER_HOLD_LOOK_MS * UINT64_C(1000000);
        wait_until(scheduler, &scheduler->alarm, scheduler->alarm_ns);
        scheduler->has_keeper = false;
        scheduler->alarm_ns = UINT64_MAX;
    }
    scheduler->idle--;
}

/* ---- batches ---- */

static void drop_reference(struct scheduler *scheduler, struct lane_batch *batch, struct lane_batch_list *released)
{
    if (--batch->references == 0) {
        scheduler->batch_bytes -= batch->bytes;
        STAILQ_INSERT_TAIL(released, batch, released);
    }
}

/* Outside the lock: the queue may take its own. */
static void release_all(struct lane_batch_list *released)
{
    while (!STAILQ_EMPTY(released)) {
        struct lane_batch *batch = STAILQ_FIRST(released);
        STAILQ_REMOVE_HEAD(released, released);
        queue_batch_release(batch->batch);
        free(batch);
    }
}

static void entry_recycle(struct scheduler *scheduler, struct lane_mailbox *mailbox, struct lane_entry *entry,
                          struct lane_batch_list *released)
{
    mailbox->count--;
    mailbox->bytes -= entry->bytes;
    if (entry->batch) {
        drop_reference(scheduler, entry->batch, released);
    } else {
        mailbox->aside_count--;
        scheduler->aside_count--;
    }
    STAILQ_INSERT_HEAD(&scheduler->unused, entry, next); /* the one used last is in the cache */
    scheduler->entry_count--;
}

/* Used entries come first, and the array is entered no further than needed: an idle pipeline touches little of it. */
static struct lane_entry *entry_take(struct scheduler *scheduler)
{
    struct lane_entry *entry = STAILQ_FIRST(&scheduler->unused);
    if (entry)
        STAILQ_REMOVE_HEAD(&scheduler->unused, next);
    else
        entry = &scheduler->entries[scheduler->entry_count];
    scheduler->entry_count++;
    return entry;
}

void scheduler_fini(struct scheduler *scheduler)
{
    if (!scheduler->entries)
        return;
    struct lane_batch_list released = STAILQ_HEAD_INITIALIZER(released);
    for (unsigned i = 0; i < LANE_COUNT; i++) {
        struct lane_entry *entry;
        while ((entry = STAILQ_FIRST(&scheduler->lanes[i].entries))) {
            STAILQ_REMOVE_HEAD(&scheduler->lanes[i].entries, next);
            entry_recycle(scheduler, &scheduler->lanes[i], entry, &released);
        }
    }
    release_all(&released);
    free(scheduler->entries);
    pthread_cond_destroy(&scheduler->room);
    pthread_cond_destroy(&scheduler->alarm);
    pthread_cond_destroy(&scheduler->work);
    pthread_mutex_destroy(&scheduler->lock);
}

/* ---- the consumer ---- */

/* Whether a lane has `sixteenths` of its share of entries or bytes. A batch counts for each lane that refers to it, so when all lanes are
 * behind each has many bytes; a share of them is used up by whoever has that share of the entries too, and only when bytes get scarce. */
static bool share_used(const struct scheduler *scheduler, const struct lane_mailbox *mailbox, unsigned sixteenths)
{
    unsigned held = mailbox->count - mailbox->aside_count, all_held = scheduler->entry_count - scheduler->aside_count;
    return held >= LANE_ENTRIES_MAX / 16 * sixteenths || (mailbox->bytes >= LANE_BYTES_MAX / 16 * sixteenths &&
                                                          scheduler->batch_bytes >= SCHEDULER_BYTES_MAX / 2 && held >= all_held / 8);
}

/* Whether the consumer need not wait any longer. It begins to wait at a bound and ends well below it: woken for each slice that is
 * given back, it and the workers would do little else than wake one another. */
static bool has_room(const struct scheduler *scheduler)
{
    unsigned held = scheduler->entry_count - scheduler->aside_count;
    switch (scheduler->consumer_waits) {
    case WAITS_FOR_BYTES:
        return scheduler->batch_bytes <= SCHEDULER_BYTES_MAX / 8 * 7;
    case WAITS_FOR_ENTRY:
        return held <= SCHEDULER_ENTRIES_MAX / 16 * 15 &&
               (!share_used(scheduler, scheduler->full_mailbox, 15) ||
                (scheduler->can_put_aside && scheduler->aside_count <= SCHEDULER_ASIDE_MAX / 16 * 15));
    default:
        return false;
    }
}

static void consumer_wait(struct scheduler *scheduler, enum consumer_wait reason)
{
    scheduler->consumer_waits = reason;
    while (!scheduler->stopping && !has_room(scheduler))
        pthread_cond_wait(&scheduler->room, &scheduler->lock);
    scheduler->consumer_waits = WAITS_FOR_NOTHING;
}

bool scheduler_wait_for_room(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    if (scheduler->batch_bytes >= SCHEDULER_BYTES_MAX)
        consumer_wait(scheduler, WAITS_FOR_BYTES);
    bool go_on = !scheduler->stopping;
    pthread_mutex_unlock(&scheduler->lock);
    return go_on;
}

void scheduler_pause(struct scheduler *scheduler, uint64_t span_ns)
{
    uint64_t deadline_ns = clock_monotonic_ns() + span_ns;
    pthread_mutex_lock(&scheduler->lock);
    stop_clock(scheduler);
    while (!scheduler->stopping && clock_monotonic_ns() < deadline_ns)
        wait_until(scheduler, &scheduler->room, deadline_ns);
    pthread_mutex_unlock(&scheduler->lock);
}

void scheduler_catch_up(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    if (!scheduler->stopping) {
        scheduler->caught_up = true;
        wake_keeper_if_earlier(scheduler);
    }
    pthread_mutex_unlock(&scheduler->lock);
}

void scheduler_open_batch(struct scheduler *scheduler, struct lane_batch *batch, struct queue_batch *fetched)
{
    size_t bytes = 0;
    for (size_t i = 0; i < fetched->count; i++) {
        const struct message *message = &fetched->messages[i];
        bytes += sizeof *message + message->topic_length + message->properties_length + message->payload_length;
    }
    *batch = (struct lane_batch){.batch = fetched, .references = 1};
    batch->bytes = bytes > SCHEDULER_BATCH_BYTES ? bytes : SCHEDULER_BATCH_BYTES;
    pthread_mutex_lock(&scheduler->lock);
    stop_clock(scheduler);
    scheduler->batch_bytes += batch->bytes;
    pthread_mutex_unlock(&scheduler->lock);
}

static bool wait_for_entry(struct scheduler *scheduler, struct lane_mailbox *mailbox)
{
    bool no_room_aside = !scheduler->can_put_aside || scheduler->aside_count == SCHEDULER_ASIDE_MAX;
    if (scheduler->entry_count - scheduler->aside_count == SCHEDULER_ENTRIES_MAX || (no_room_aside && share_used(scheduler, mailbox, 16))) {
        wake_worker(scheduler);
        scheduler->full_mailbox = mailbox;
        consumer_wait(scheduler, WAITS_FOR_ENTRY);
    }
    return !scheduler->stopping;
}

/* Fills in to whom a taken entry belongs and what it holds: its batch, or nothing when the lane has used up its share. */
static void entry_charge(struct scheduler *scheduler, struct lane_mailbox *mailbox, struct lane_entry *entry, struct lane_batch *batch)
{
    bool aside = scheduler->can_put_aside && share_used(scheduler, mailbox, 16);
    mailbox->count++;
    entry->bytes = 0;
    if (aside) {
        entry->batch = NULL;
        entry->message = NULL;
        entry->key = NULL;
        mailbox->aside_count++;
        scheduler->aside_count++;
        return;
    }
    entry->batch = batch;
    batch->references++;
    if (mailbox->bytes == 0 || mailbox->last_batch != batch)
        entry->bytes = batch->bytes;
    mailbox->bytes += entry->bytes;
    mailbox->last_batch = batch;
}

bool scheduler_push(struct scheduler *scheduler, struct lane_batch *batch, const struct lane_entry *entries, size_t count)
{
    bool woke = false, go_on = true;
    pthread_mutex_lock(&scheduler->lock);
    uint64_t monotonic_ns = clock_monotonic_ns(), wall_ns = clock_wall_ns();
    for (size_t i = 0; i < count; i++) {
        const struct lane_entry *pushed = &entries[i];
        unsigned lane = (unsigned)(pushed->key_hash % LANE_COUNT);
        struct lane_mailbox *mailbox = &scheduler->lanes[lane];
        if (pushed->key && !(go_on = wait_for_entry(scheduler, mailbox)))
            break;
        uint64_t time_ns = pushed->message->time_ns;
        uint64_t arrival_ns = virtual_clock_read(&scheduler->clock, monotonic_ns, wall_ns, time_ns);
        if (!pushed->key)
            continue;
        struct lane_entry *entry = entry_take(scheduler);
        *entry = *pushed;
        entry->offset = pushed->message->offset;
        entry->arrival_ns = arrival_ns;
        entry->origin_ns = virtual_clock_origin(&scheduler->clock, monotonic_ns, wall_ns, time_ns);
        entry_charge(scheduler, mailbox, entry, batch);
        STAILQ_INSERT_TAIL(&mailbox->entries, entry, next);
        ready_set(scheduler, lane);
        woke |= !is_running(scheduler, lane);
    }
    if (woke || scheduler->earliest_ns <= scheduler->clock.now_ns)
        wake_worker(scheduler); /* which wakes the next, if there is more than it can do */
    pthread_mutex_unlock(&scheduler->lock);
    return go_on;
}

void scheduler_close_batch(struct scheduler *scheduler, struct lane_batch *batch)
{
    struct lane_batch_list released = STAILQ_HEAD_INITIALIZER(released);
    pthread_mutex_lock(&scheduler->lock);
    drop_reference(scheduler, batch, &released);
    pthread_mutex_unlock(&scheduler->lock);
    release_all(&released);
}

/* ---- workers ---- */

static void give_back(struct scheduler *scheduler, struct slice *slice)
{
    struct lane_mailbox *mailbox = &scheduler->lanes[slice->lane];
    struct lane_batch_list released = STAILQ_HEAD_INITIALIZER(released);
    struct lane_entry *entry;
    while ((entry = STAILQ_FIRST(&slice->done))) {
        STAILQ_REMOVE_HEAD(&slice->done, next);
        entry_recycle(scheduler, mailbox, entry, &released);
    }
    STAILQ_CONCAT(&slice->entries, &mailbox->entries);
    STAILQ_CONCAT(&mailbox->entries, &slice->entries);
    mailbox->standing = slice->standing;
    if (slice->standing.deadline_ns < scheduler->earliest_ns) {
        scheduler->earliest_ns = slice->standing.deadline_ns;
        wake_keeper_if_earlier(scheduler);
    }
    scheduler->running[slice->lane / 64] &= ~((uint64_t)1 << slice->lane % 64);
    if (mailbox->count)
        ready_set(scheduler, slice->lane);
    slice->has_lane = false;
    if (has_room(scheduler))
        pthread_cond_signal(&scheduler->room);
    if (!STAILQ_EMPTY(&released)) {
        pthread_mutex_unlock(&scheduler->lock);
        release_all(&released);
        pthread_mutex_lock(&scheduler->lock);
    }
}

static unsigned find_oldest(const struct scheduler *scheduler, enum relief relief)
{
    unsigned found = LANE_COUNT;
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; i < LANE_COUNT; i++) {
        uint64_t here = scheduler->lanes[i].standing.oldest[relief - 1];
        if (here < oldest && !is_running(scheduler, i)) {
            oldest = here;
            found = i;
        }
    }
    return found;
}

static void take(struct scheduler *scheduler, struct slice *slice, unsigned lane, enum relief relief)
{
    struct lane_mailbox *mailbox = &scheduler->lanes[lane];
    *slice = (struct slice){.has_lane = true, .lane = lane, .relief = relief, .join_options = scheduler->join_options};
    STAILQ_INIT(&slice->entries);
    STAILQ_INIT(&slice->done);
    scheduler->running[lane / 64] |= (uint64_t)1 << lane % 64;
    mailbox->standing = nothing; /* until it is given back */
    slice->now_ns = now(scheduler);
    slice->restarted_ns = scheduler->restarted_ns;
    if (relief != RELIEF_NONE)
        return;
    scheduler->ready[lane / 64] &= ~((uint64_t)1 << lane % 64);
    scheduler->next_lane = (lane + 1) % LANE_COUNT;
    for (unsigned i = 0; i < SLICE_ENTRIES_MAX && !STAILQ_EMPTY(&mailbox->entries); i++) {
        struct lane_entry *entry = STAILQ_FIRST(&mailbox->entries);
        STAILQ_REMOVE_HEAD(&mailbox->entries, next);
        STAILQ_INSERT_TAIL(&slice->entries, entry, next);
    }
    slice->drained = STAILQ_EMPTY(&mailbox->entries) && !scheduler->stopping;
}

bool scheduler_next(struct scheduler *scheduler, struct slice *slice, enum relief relief)
{
    pthread_mutex_lock(&scheduler->lock);
    if (slice->has_lane)
        give_back(scheduler, slice);
    unsigned lane = LANE_COUNT;
    for (;;) {
        if (scheduler->aborting)
            break;
        if (relief != RELIEF_NONE && (lane = find_oldest(scheduler, relief)) < LANE_COUNT)
            break;
        relief = RELIEF_NONE;
        handle_deadlines(scheduler);
        if ((lane = ready_find(scheduler)) < LANE_COUNT)
            break;
        if (scheduler->stopping && scheduler->consumer_gone)
            break;
        wait_for_work(scheduler);
    }
    if (lane < LANE_COUNT) {
        take(scheduler, slice, lane, relief);
        bool more = ready_find(scheduler) < LANE_COUNT;
        if (scheduler->idle && (more || (!scheduler->has_keeper && scheduler->earliest_ns != UINT64_MAX)))
            wake_worker(scheduler);
    }
    pthread_mutex_unlock(&scheduler->lock);
    return lane < LANE_COUNT;
}

/* ---- anyone ---- */

static void wake_everyone(struct scheduler *scheduler)
{
    pthread_cond_broadcast(&scheduler->work);
    pthread_cond_broadcast(&scheduler->alarm);
    pthread_cond_broadcast(&scheduler->room);
}

void scheduler_configure(struct scheduler *scheduler, const struct join_options *options)
{
    pthread_mutex_lock(&scheduler->lock);
    scheduler->join_options = *options;
    memset(scheduler->ready, 0xff, sizeof scheduler->ready);
    wake_worker(scheduler);
    pthread_mutex_unlock(&scheduler->lock);
}

void scheduler_consumer_ended(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    scheduler->consumer_gone = true;
    wake_everyone(scheduler);
    pthread_mutex_unlock(&scheduler->lock);
}

void scheduler_stop(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    scheduler->stopping = true;
    stop_clock(scheduler);
    wake_everyone(scheduler);
    pthread_mutex_unlock(&scheduler->lock);
}

void scheduler_abort(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    scheduler->stopping = true;
    scheduler->aborting = true;
    wake_everyone(scheduler);
    pthread_mutex_unlock(&scheduler->lock);
}

unsigned scheduler_depth(struct scheduler *scheduler)
{
    pthread_mutex_lock(&scheduler->lock);
    unsigned depth = scheduler->entry_count;
    pthread_mutex_unlock(&scheduler->lock);
    return depth;
}
