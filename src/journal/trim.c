#include "journal/trim.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/error.h"

/* Under the stream's lock; on the stack of whoever waits for it. */
struct trim_job {
    uint64_t until;   /* first offset of the first segment that stays */
    uint64_t stop_ns; /* monotonic: from then on no other segment is begun with */
    struct journal_trimmed *trimmed;
    bool done;
    int error;
};

/* ---- the keeper's part ---- */

static bool has_more(const struct journal_stream *stream, uint64_t until)
{
    return stream->segment_count > 1 && stream->segments[0].base_offset < until;
}

static void finish(struct journal_stream *stream, int error)
{
    stream->trim->done = true;
    stream->trim->error = error;
    pthread_cond_broadcast(&stream->trimmed);
}

bool trim_is_asked(struct journal_stream *stream)
{
    struct trim_job *job = stream->trim;
    if (!job || job->done)
        return false;
    if (stream->retention_stopped)
        finish(stream, ERR_IO);
    else if (!has_more(stream, job->until))
        finish(stream, 0);
    return !job->done;
}

/* Also what retention had begun to remove: who was told that it would go counts on it. */
void trim_note(struct journal_stream *stream)
{
    struct trim_job *job = stream->trim;
    if (!job || job->done || stream->segments[0].base_offset >= job->until)
        return;
    job->trimmed->bases[job->trimmed->count++] = stream->segments[0].base_offset;
    job->trimmed->bytes += stream->segments[0].bytes;
    if (clock_monotonic_ns() >= job->stop_ns)
        finish(stream, 0);
}

void trim_fail(struct journal_stream *stream, int error)
{
    if (stream->trim && !stream->trim->done)
        finish(stream, error);
}

void trim_allow(struct journal *journal, bool has_keeper)
{
    struct journal_stream *stream;
    for (unsigned i = 0; (stream = journal_stream_at(journal, i)); i++) {
        pthread_mutex_lock(&stream->lock);
        stream->has_keeper = has_keeper;
        pthread_cond_broadcast(&stream->trimmed);
        pthread_mutex_unlock(&stream->lock);
    }
}

/* ---- who asks ---- */

/* Under lock. False when the time is over, or nobody would do the work. */
static bool wait(struct journal_stream *stream, uint64_t end_ns)
{
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000u), .tv_nsec = (long)(end_ns % 1000000000u)};
    return stream->has_keeper && pthread_cond_timedwait(&stream->trimmed, &stream->lock, &end) != ETIMEDOUT;
}

/* Under lock, but while it waits. */
static int await(struct journal_stream *stream, struct trim_job *job, uint64_t end_ns)
{
    stream->trim = job;
    pthread_mutex_unlock(&stream->lock);
    if (stream->stepped)
        while (!job->done)
            journal_step_keeper(stream->journal);
    else
        journal_wake_keeper(stream->journal);
    pthread_mutex_lock(&stream->lock);
    while (!job->done && wait(stream, end_ns))
        continue;
    stream->trim = NULL;
    pthread_cond_broadcast(&stream->trimmed); /* the place is free */
    return job->done ? job->error : job->trimmed->count ? 0 : ERR_BUSY;
}

/* Under lock: what may go, oldest first. */
static int plan(const struct journal_stream *stream, const struct retention_trim *trim, struct journal_trimmed *trimmed, size_t *count)
{
    struct retention_plan plan =
        retention_plan(trim, stream->segments, stream->segment_count, stream->guarded ? atomic_load(&stream->guard) : UINT64_MAX);
    *count = plan.removable;
    trimmed->kept_back = plan.named - plan.removable;
    if (plan.removable)
        trimmed->bases = malloc(plan.removable * sizeof *trimmed->bases);
    return plan.removable && !trimmed->bases ? ERR_NO_MEMORY : 0;
}

static void only_tell(const struct journal_stream *stream, size_t count, struct journal_trimmed *trimmed)
{
    for (; trimmed->count < count; trimmed->count++) {
        trimmed->bases[trimmed->count] = stream->segments[trimmed->count].base_offset;
        trimmed->bytes += stream->segments[trimmed->count].bytes;
    }
}

int journal_stream_trim(struct journal_stream *stream, const struct retention_trim *trim, bool dry_run, struct journal_trimmed *trimmed)
{
    uint64_t now_ns = clock_monotonic_ns(), end_ns = now_ns + JOURNAL_TRIM_WAIT_MS * UINT64_C(1000000);
    struct trim_job job = {.trimmed = trimmed};
    size_t count = 0;
    *trimmed = (struct journal_trimmed){0};
    pthread_mutex_lock(&stream->lock);
    while (stream->trim && !dry_run && wait(stream, end_ns))
        continue;
    int error = (stream->trim && !dry_run) || !(stream->has_keeper || stream->stepped) ? ERR_BUSY : plan(stream, trim, trimmed, &count);
    if (!error && dry_run) {
        only_tell(stream, count, trimmed);
    } else if (!error && count) {
        job.until = stream->segments[count].base_offset;
        job.stop_ns = clock_monotonic_ns() + JOURNAL_TRIM_WORK_MS * UINT64_C(1000000);
        error = await(stream, &job, end_ns);
        trimmed->more = !error && has_more(stream, job.until);
    }
    size_t left = dry_run ? trimmed->count : 0;
    trimmed->first_offset = stream->segment_count ? stream->segments[left].base_offset : journal_stream_durable(stream);
    pthread_mutex_unlock(&stream->lock);
    return error;
}
