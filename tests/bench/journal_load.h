/* A journal under load, for the programs that measure one: a stream, and a producer that runs ahead of the journal thread by a bounded
 * number of bytes, so that the journal thread always has the next group. */
#ifndef BENCH_JOURNAL_LOAD_H
#define BENCH_JOURNAL_LOAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/histogram.h"
#include "base/random.h"
#include "journal/journal.h"

enum { LOAD_PAYLOAD = 256, LOAD_AHEAD_GROUPS = 8, LOAD_AHEAD_MIN = 1 << 20, LOAD_SEGMENT = 128 << 20 };

struct journal_load {
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    struct message message;
    size_t record_bytes, group_bytes, ahead_bytes;
    pthread_mutex_t lock;
    pthread_cond_t behind; /* the journal thread has worked off half of what it was ahead */
    bool waiting;
    bool timed; /* tokens are times of append, to be recorded when durable */
    struct histogram commit_ns;
    uint8_t payload[LOAD_PAYLOAD];
};

static inline void load_must(int error, const char *what)
{
    if (error) {
        fprintf(stderr, "%s: %s\n", what, error_text(error));
        exit(1);
    }
}

static inline double load_seconds(uint64_t since_ns)
{
    return (double)(clock_monotonic_ns() - since_ns) / 1e9;
}

static inline void load_sleep_until(uint64_t monotonic_ns)
{
    struct timespec until = {.tv_sec = (time_t)(monotonic_ns / 1000000000u), .tv_nsec = (long)(monotonic_ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static inline void load_record_commit(void *context, const struct journal_batch *batch)
{
    struct journal_load *load = context;
    uint64_t now_ns = clock_monotonic_ns();
    for (size_t i = 0; i < batch->token_count; i++)
        histogram_record(&load->commit_ns, now_ns - batch->tokens[i]);
}

static inline void load_notify(void *context)
{
    struct journal_load *load = context;
    if (load->timed)
        journal_producer_poll(load->producer, load_record_commit, load);
    pthread_mutex_lock(&load->lock);
    if (load->waiting && journal_producer_backlog(load->producer) <= load->ahead_bytes / 2) {
        load->waiting = false;
        pthread_cond_signal(&load->behind);
    }
    pthread_mutex_unlock(&load->lock);
}

/* Opens the journal in `folder`. group_bytes: of the largest group; retention_size as for journal_stream_options; timed: for
 * load_append_paced, not for load_append_group. Ends the program when that fails. */
static inline void load_open(struct journal_load *load, const char *folder, size_t group_bytes, uint64_t retention_size, bool timed)
{
    *load = (struct journal_load){.group_bytes = group_bytes, .timed = timed};
    struct random_source random = {.state = 1};
    for (size_t i = 0; i < LOAD_PAYLOAD; i++)
        load->payload[i] = (uint8_t)random_u64(&random);
    load->message =
        (struct message){.topic = "bench/topic/of/20byte", .topic_length = 20, .payload = load->payload, .payload_length = LOAD_PAYLOAD};
    load->record_bytes = format_record_size(&load->message, 0);
    load->ahead_bytes = group_bytes * LOAD_AHEAD_GROUPS > LOAD_AHEAD_MIN ? group_bytes * LOAD_AHEAD_GROUPS : LOAD_AHEAD_MIN;
    pthread_mutex_init(&load->lock, NULL);
    pthread_cond_init(&load->behind, NULL);
    struct journal_options options = {.disk = disk_posix(), .folder = folder, .segment_size = LOAD_SEGMENT, .group_bytes_max = group_bytes};
    struct journal_stream_options stream = {.name = "bench", .retention_size = retention_size};
    load_must(journal_open(&load->journal, &options), folder);
    load_must(journal_stream_add(load->journal, &stream, &load->stream), folder);
}

static inline void load_open_producer(struct journal_load *load)
{
    load_must(journal_producer_open(load->journal, load_notify, load, &load->producer), "journal_producer_open");
}

/* The last notice has returned when it returns. */
static inline void load_close_producer(struct journal_load *load)
{
    journal_producer_close(load->producer);
    load->producer = NULL;
}

static inline void load_start(struct journal_load *load)
{
    load_must(journal_start(load->journal), "journal_start");
}

static inline void load_ignore(void *context, const struct journal_batch *batch)
{
    (void)context;
    (void)batch;
}

/* Appends one group and sends it off; first waits while too much is on its way. */
static inline void load_append_group(struct journal_load *load)
{
    journal_producer_poll(load->producer, load_ignore, NULL);
    if (journal_producer_backlog(load->producer) >= load->ahead_bytes) {
        pthread_mutex_lock(&load->lock);
        load->waiting = journal_producer_backlog(load->producer) > load->ahead_bytes / 2;
        while (load->waiting)
            pthread_cond_wait(&load->behind, &load->lock);
        pthread_mutex_unlock(&load->lock);
    }
    load->message.time_ns = clock_wall_ns();
    for (size_t bytes = load->record_bytes; bytes <= load->group_bytes; bytes += load->record_bytes)
        load_must(journal_append(load->producer, load->stream, &load->message, NULL, 0, 0), "journal_append");
    journal_submit(load->producer);
}

/* Appends `rate` records a second, each a group of its own unless the disk is behind, for `seconds` or until *stop (may be NULL). Their
 * commit times go into load->commit_ns. */
static inline void load_append_paced(struct journal_load *load, double rate, double seconds, atomic_bool *stop)
{
    uint64_t interval_ns = (uint64_t)(1e9 / rate), due_ns = clock_monotonic_ns(), end_ns = due_ns + (uint64_t)(seconds * 1e9);
    load_open_producer(load);
    for (; due_ns < end_ns && !(stop && atomic_load(stop)); due_ns += interval_ns) {
        load_sleep_until(due_ns);
        load->message.time_ns = clock_wall_ns();
        load_must(journal_append(load->producer, load->stream, &load->message, NULL, 0, clock_monotonic_ns()), "journal_append");
        journal_submit(load->producer);
    }
    load_close_producer(load);
}

static inline void load_close(struct journal_load *load)
{
    journal_producer_close(load->producer);
    journal_close(load->journal);
    pthread_cond_destroy(&load->behind);
    pthread_mutex_destroy(&load->lock);
}

#endif
