/* The follower's thread and what is asked of it.
 *
 * A round: how far the streams are durable, what was asked, a turn for each sweep. What becomes durable after something was asked is read
 * in a later round than that is taken up in: so a subscription misses nothing that was appended after it was made. */
#include "sessions/follower.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "sessions/follower_parts.h"

enum { FOLLOWER_INDEX_FIRST = 64 };

const enum queue_content follower_contents[FOLLOWER_CONTENTS] = {QUEUE_CONTENT_CONSUMED, QUEUE_CONTENT_KEPT, QUEUE_CONTENT_RESULTS};

/* ---- asking ---- */

static void ask(struct follower_command *command)
{
    struct follower *follower = command->member->follower;
    pthread_mutex_lock(&follower->lock);
    if (!command->queued) {
        command->queued = true;
        command->next = NULL;
        *follower->last = command;
        follower->last = &command->next;
        if (atomic_load(&follower->sleeping))
            pthread_cond_signal(&follower->wake);
    }
    pthread_mutex_unlock(&follower->lock);
}

int follower_join(struct follower *follower, const struct follower_join *join, struct follower_member **out)
{
    struct follower_member *member = calloc(1, sizeof *member + join->again_count * sizeof *join->again);
    if (!member)
        return ERR_NO_MEMORY;
    member->follower = follower;
    member->join = (struct follower_command){.member = member, .asked = FOLLOWER_JOIN};
    member->grant = (struct follower_command){.member = member, .asked = FOLLOWER_GRANT};
    member->leave = (struct follower_command){.member = member, .asked = FOLLOWER_LEAVE};
    member->loop = join->loop;
    member->connection = join->connection;
    member->generation = join->generation;
    member->places = join->places;
    member->again_count = join->again_count;
    if (join->again_count)
        memcpy(member->again, join->again, join->again_count * sizeof *join->again);
    atomic_store(&member->starved, true); /* the first grant lets it begin */
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        member->seats[i].member = member;
        follower_seat_set(&member->seats[i], NULL, follower_again_place(member, i));
    }
    ask(&member->join);
    *out = member;
    return 0;
}

static struct follower_subscription *make_subscription(struct follower_member *member, enum follower_asked asked, const char *filter,
                                                       size_t length)
{
    struct follower_subscription *subscription = calloc(1, sizeof *subscription + length + 1);
    if (!subscription)
        return NULL;
    subscription->command = (struct follower_command){.member = member, .asked = asked};
    subscription->length = (uint32_t)length;
    memcpy(subscription->filter, filter, length);
    return subscription;
}

int follower_subscribe(struct follower_member *member, const char *filter, size_t length, const struct router_subscription *how,
                       const struct follower_places *from)
{
    struct follower_subscription *subscription = make_subscription(member, FOLLOWER_SUBSCRIBE, filter, length);
    if (!subscription)
        return ERR_NO_MEMORY;
    subscription->how = *how;
    subscription->from = *from;
    ask(&subscription->command);
    return 0;
}

int follower_unsubscribe(struct follower_member *member, const char *filter, size_t length)
{
    struct follower_subscription *subscription = make_subscription(member, FOLLOWER_UNSUBSCRIBE, filter, length);
    if (!subscription)
        return ERR_NO_MEMORY;
    ask(&subscription->command);
    return 0;
}

void follower_grant(struct follower_member *member, uint64_t messages, uint64_t bytes)
{
    atomic_store(&member->granted_bytes, bytes);
    atomic_store(&member->granted_messages, messages);
    if (atomic_load(&member->starved) && messages > atomic_load(&member->handed) && bytes && atomic_exchange(&member->starved, false))
        ask(&member->grant);
}

void follower_begin(struct follower_member *member)
{
    if (atomic_exchange(&member->starved, false))
        ask(&member->grant);
}

void follower_leave(struct follower_member *member)
{
    ask(&member->leave);
}

void follower_passed(const struct follower_member *member, uint64_t *handed, struct follower_places *places)
{
    struct follower_places passed;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        const struct follower_seat *seat = &member->seats[i];
        uint32_t version;
        do {
            version = atomic_load(&seat->version);
            passed.at[i] = atomic_load(&seat->place);
            const struct follower_sweep *sweep = atomic_load(&seat->passes);
            uint64_t position = sweep ? atomic_load(&sweep->position) : 0;
            if (position > passed.at[i])
                passed.at[i] = position;
        } while (version % 2 || version != atomic_load(&seat->version));
    }
    *handed = atomic_load(&member->handed); /* last: all that lies before the places is in it */
    *places = passed;
}

void follower_status(struct follower *follower, struct follower_status *status)
{
    *status = (struct follower_status){.members = atomic_load(&follower->member_count),
                                       .sweeps = atomic_load(&follower->sweep_count),
                                       .read = atomic_load(&follower->read_count),
                                       .handed = atomic_load(&follower->handed_count),
                                       .gone = atomic_load(&follower->gone_count)};
}

/* ---- what was asked is done ---- */

static void add_member(struct follower *follower, struct follower_member *member)
{
    DL_APPEND(follower->members, member);
    atomic_fetch_add(&follower->member_count, 1);
}

static void remove_member(struct follower *follower, struct follower_member *member)
{
    if (member->resends)
        follower_sweep_close(member->resends);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        follower_seat_park(&follower->streams[i], &member->seats[i]);
    DL_DELETE(follower->members, member);
    atomic_fetch_sub(&follower->member_count, 1);
    follower_member_free(member);
}

static void take_grant(struct follower_member *member)
{
    if (member->resends)
        member->resends->stands = false;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        if (member->seats[i].sweep)
            member->seats[i].sweep->stands = false;
    follower_resume(member);
}

static void take(struct follower *follower, struct follower_command *command)
{
    struct follower_subscription *subscription = (struct follower_subscription *)(void *)command; /* if it is one */
    switch (command->asked) {
    case FOLLOWER_JOIN:
        add_member(follower, command->member);
        break;
    case FOLLOWER_SUBSCRIBE:
        follower_subscription_add(command->member, subscription);
        break;
    case FOLLOWER_UNSUBSCRIBE:
        follower_subscription_remove(command->member, subscription->filter, subscription->length);
        free(subscription);
        break;
    case FOLLOWER_GRANT:
        take_grant(command->member);
        break;
    case FOLLOWER_LEAVE:
        remove_member(follower, command->member);
        break;
    }
}

/* One by one under the lock: a grant may be asked for again as soon as it was taken. */
static struct follower_command *next_command(struct follower *follower)
{
    pthread_mutex_lock(&follower->lock);
    struct follower_command *command = follower->first;
    if (command) {
        follower->first = command->next;
        if (!follower->first)
            follower->last = &follower->first;
        command->queued = false;
    }
    pthread_mutex_unlock(&follower->lock);
    return command;
}

static void take_commands(struct follower *follower)
{
    struct follower_command *command;
    while ((command = next_command(follower)))
        take(follower, command);
}

/* ---- the thread ---- */

static void look_at_ends(struct follower *follower)
{
    struct queue *queue = follower->options.queue;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        uint64_t first;
        queue->ops->extent(queue, follower_contents[i], &first, &follower->streams[i].limit);
    }
}

/* A turn for each. Returns whether there is more to do at once; else *until_ns is when to try again. */
static bool take_turns(struct follower *follower, uint64_t *until_ns)
{
    bool more = false;
    size_t sweeps = 0;
    *until_ns = UINT64_MAX;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        struct follower_stream *stream = &follower->streams[i];
        follower_stream_serve(stream);
        for (unsigned s = 0; s < FOLLOWER_SWEEPS; s++) {
            struct follower_sweep *sweep = &stream->sweeps[s];
            if (!sweep->stream || sweep->stands)
                continue;
            if (sweep->retry_ns <= follower->now_ns)
                more |= sweep->resends ? follower_again_turn(sweep) : follower_sweep_turn(sweep);
            if (sweep->stream && !sweep->stands && sweep->retry_ns > follower->now_ns && sweep->retry_ns < *until_ns)
                *until_ns = sweep->retry_ns;
        }
        more |= follower_stream_serves(stream);
        sweeps += follower_stream_behind(stream);
    }
    atomic_store(&follower->sweep_count, sweeps);
    return more;
}

/* Returns false when the thread is to end. */
static bool rest(struct follower *follower, bool more, uint64_t until_ns)
{
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u), .tv_nsec = (long)(until_ns % 1000000000u)};
    bool late = more;
    pthread_mutex_lock(&follower->lock);
    atomic_store(&follower->sleeping, true);
    while (!late && !follower->first && !follower->stopping && !atomic_load(&follower->news)) {
        if (until_ns == UINT64_MAX)
            pthread_cond_wait(&follower->wake, &follower->lock);
        else
            late = pthread_cond_timedwait(&follower->wake, &follower->lock, &until) != 0;
    }
    atomic_store(&follower->sleeping, false);
    bool stopping = follower->stopping;
    pthread_mutex_unlock(&follower->lock);
    return !stopping;
}

static void *run(void *context)
{
    struct follower *follower = context;
    bool more;
    uint64_t until_ns;
    do {
        if (atomic_exchange(&follower->news, false))
            look_at_ends(follower);
        take_commands(follower);
        follower->now_ns = clock_monotonic_ns();
        more = take_turns(follower, &until_ns);
    } while (rest(follower, more, until_ns));
    return NULL;
}

static void note_news(void *context)
{
    struct follower *follower = context;
    atomic_store(&follower->news, true);
    if (!atomic_load(&follower->sleeping))
        return;
    pthread_mutex_lock(&follower->lock);
    pthread_cond_signal(&follower->wake);
    pthread_mutex_unlock(&follower->lock);
}

int follower_start(struct follower **out, const struct follower_options *options)
{
    struct follower *follower = calloc(1, sizeof *follower);
    if (!follower)
        return ERR_NO_MEMORY;
    follower->index_mask = FOLLOWER_INDEX_FIRST - 1;
    follower->index = calloc(FOLLOWER_INDEX_FIRST, sizeof(struct follower_subscription *));
    if (!follower->index) {
        free(follower);
        return ERR_NO_MEMORY;
    }
    follower->options = *options;
    follower->last = &follower->first;
    atomic_store(&follower->news, true);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        follower->streams[i].follower = follower;
        follower->streams[i].index = i;
    }
    pthread_mutex_init(&follower->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&follower->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    options->queue->ops->watch(options->queue, QUEUE_HOLDER_SESSIONS, note_news, follower);
    if (pthread_create(&follower->thread, NULL, run, follower)) {
        options->queue->ops->watch(options->queue, QUEUE_HOLDER_SESSIONS, NULL, NULL);
        pthread_cond_destroy(&follower->wake);
        pthread_mutex_destroy(&follower->lock);
        free(follower->index);
        free(follower);
        return ERR_IO;
    }
    *out = follower;
    return 0;
}

void follower_stop(struct follower *follower)
{
    if (!follower)
        return;
    follower->options.queue->ops->watch(follower->options.queue, QUEUE_HOLDER_SESSIONS, NULL, NULL);
    pthread_mutex_lock(&follower->lock);
    follower->stopping = true;
    pthread_cond_signal(&follower->wake);
    pthread_mutex_unlock(&follower->lock);
    pthread_join(follower->thread, NULL);
    take_commands(follower);
    while (follower->members)
        remove_member(follower, follower->members);
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++) {
        router_cache_destroy(follower->streams[i].cache);
        router_destroy(follower->streams[i].router);
    }
    free(follower->index);
    free(follower->targets);
    pthread_cond_destroy(&follower->wake);
    pthread_mutex_destroy(&follower->lock);
    free(follower);
}
