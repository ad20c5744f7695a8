/* What may go by size and by age, what never does, and clocks that are wrong. */
#include "journal_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>

#include "base/clock.h"
#include "journal/retention.h"
#include "journal/stream.h"
#include "simulated_disk.h"

#define SECOND_NS 1000000000ull
#define HOUR_NS   (3600 * SECOND_NS)
#define DAY_NS    (24 * HOUR_NS)
#define YEAR_NS   (365 * DAY_NS)

enum { PAYLOAD = 20000, SEGMENT = 64 << 10, A_SEGMENT = 2 /* records of PAYLOAD in a segment */, DEADLINE_S = 20 };

/* ---- the rules ---- */

static const uint64_t noon_ns = 1800000000 * SECOND_NS;

#define SEGMENT(first_offset, size, at_ns)                                                                                                 \
    {                                                                                                                                      \
        .base_offset = first_offset, .bytes = size, .created_ns = at_ns                                                                    \
    }

static struct retention_look look(struct retention *retention, const struct stream_segment *segments, size_t count, uint64_t wall_ns)
{
    return retention_look(retention, segments, count, wall_ns, 7 * DAY_NS);
}

static void a_segment_goes_when_size_or_age_says_so(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns + HOUR_NS),
                                              SEGMENT(20, 60, noon_ns + 2 * HOUR_NS)};
    struct retention none = {0}, size = {.size = 110}, larger = {.size = 111}, age = {.age_ns = DAY_NS},
                     both = {.size = 111, .age_ns = DAY_NS};
    uint64_t due_ns = noon_ns + HOUR_NS + DAY_NS; /* the second was begun an hour after noon */
    assert_false(look(&none, segments, 3, due_ns).retire);
    assert_int_equal(look(&none, segments, 3, due_ns).look_in_ns, UINT64_MAX);
    assert_true(look(&size, segments, 3, noon_ns).retire);
    assert_false(look(&larger, segments, 3, due_ns).retire);
    assert_false(look(&age, segments, 3, due_ns - 1).retire);
    assert_true(look(&age, segments, 3, due_ns).retire);
    assert_true(look(&both, segments, 3, due_ns).retire);
    both.size = 110;
    assert_true(look(&both, segments, 3, noon_ns).retire);
}

static void the_newest_segment_never_goes(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns)};
    struct retention both = {.size = 1, .age_ns = 1};
    assert_false(look(&both, segments, 1, noon_ns + YEAR_NS).retire);
    assert_false(look(&both, segments, 0, noon_ns + YEAR_NS).retire);
    assert_int_equal(look(&both, segments, 1, noon_ns + YEAR_NS).look_in_ns, UINT64_MAX);
}

static void it_is_looked_at_when_it_is_due_and_each_hour(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns)};
    struct retention age = {.age_ns = DAY_NS};
    assert_int_equal(look(&age, segments, 2, noon_ns).look_in_ns, HOUR_NS);
    assert_int_equal(look(&age, segments, 2, noon_ns + DAY_NS - 5).look_in_ns, 5);
}

static void a_clock_that_is_set_back_retires_nothing(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns + HOUR_NS),
                                              SEGMENT(20, 60, noon_ns + 2 * HOUR_NS)};
    struct retention age = {.age_ns = DAY_NS};
    assert_false(look(&age, segments, 3, noon_ns - 10 * YEAR_NS).retire);
    assert_false(look(&age, segments, 3, 0).retire);
}

static void a_stamp_that_is_lost_or_in_the_future_is_made_up_for_by_the_next(void **state)
{
    (void)state;
    struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns + 10 * YEAR_NS), SEGMENT(20, 60, 0),
                                        SEGMENT(30, 70, noon_ns + HOUR_NS)};
    struct retention age = {.age_ns = DAY_NS};
    assert_false(look(&age, segments, 4, noon_ns + HOUR_NS + DAY_NS - 1).retire);
    assert_true(look(&age, segments, 4, noon_ns + HOUR_NS + DAY_NS).retire);
    assert_false(look(&age, segments, 3, noon_ns + HOUR_NS + DAY_NS).retire); /* nothing tells */
}

static void a_clock_that_leaps_ahead_is_told_and_waited_for(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns), SEGMENT(20, 60, noon_ns)};
    struct retention age = {.age_ns = 30 * DAY_NS};
    uint64_t leapt_ns = noon_ns + 10 * YEAR_NS, at_ns = 7 * DAY_NS;
    struct retention_look first = retention_look(&age, segments, 3, leapt_ns, at_ns);
    assert_true(first.tell && !first.retire);
    assert_int_equal(first.hold_ns, DAY_NS);
    assert_int_equal(first.ended_ns, noon_ns);
    struct retention_look later = retention_look(&age, segments, 3, leapt_ns + DAY_NS - 5, at_ns + DAY_NS - 5);
    assert_true(!later.tell && !later.retire);
    assert_int_equal(later.look_in_ns, 5);

    struct retention righted = age;
    assert_false(retention_look(&righted, segments, 3, noon_ns + DAY_NS, at_ns + DAY_NS).retire); /* the clock was set right */
    struct retention_look again = retention_look(&righted, segments, 3, leapt_ns, at_ns + 2 * DAY_NS);
    assert_true(again.tell && !again.retire); /* another leap is waited for as long */

    assert_true(retention_look(&age, segments, 3, leapt_ns + DAY_NS, at_ns + DAY_NS).retire); /* it was not */
    assert_true(retention_look(&age, segments + 1, 2, leapt_ns + DAY_NS, at_ns + DAY_NS).retire);
}

/* The stamps of a while are too old, and the clock is right again. */
static void a_clock_that_was_behind_for_a_while_retires_nothing(void **state)
{
    (void)state;
    struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns - 30 * HOUR_NS),
                                        SEGMENT(20, 60, noon_ns + HOUR_NS)};
    struct retention age = {.age_ns = DAY_NS};
    assert_false(look(&age, segments, 2, noon_ns + HOUR_NS).retire);
    assert_false(look(&age, segments, 3, noon_ns + HOUR_NS + DAY_NS - 1).retire);
    assert_true(look(&age, segments, 3, noon_ns + HOUR_NS + DAY_NS).retire);
    segments[1].created_ns = DAY_NS; /* 1970: it is not told of either */
    assert_false(look(&age, segments, 3, noon_ns + HOUR_NS).tell);
}

/* Each start tells again and holds for a day, but somebody has seen that day pass. */
static void what_is_held_goes_though_no_process_lives_as_long(void **state)
{
    (void)state;
    uint64_t start_ns = noon_ns + 15 * DAY_NS; /* after a long stop */
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns - HOUR_NS), SEGMENT(10, 50, noon_ns), SEGMENT(20, 60, start_ns),
                                              SEGMENT(30, 70, start_ns + DAY_NS)};
    struct retention first = {.age_ns = 7 * DAY_NS}, second = first;
    assert_false(retention_look(&first, segments, 3, start_ns, DAY_NS).retire);
    assert_false(retention_look(&first, segments, 3, start_ns + DAY_NS - 1, DAY_NS).retire);
    assert_true(retention_look(&second, segments, 4, start_ns + DAY_NS, DAY_NS).retire);
    assert_int_equal(second.told_ns, 0);
}

static void what_cannot_be_removed_is_not_tried_without_end(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns)};
    struct retention age = {.age_ns = HOUR_NS};
    assert_true(retention_look(&age, segments, 2, noon_ns + DAY_NS, DAY_NS).tell);
    struct retention_look over = retention_look(&age, segments, 2, noon_ns + DAY_NS + HOUR_NS, DAY_NS + HOUR_NS);
    assert_true(over.retire);
    assert_int_equal(over.look_in_ns, HOUR_NS);
}

static void a_leap_does_not_hold_what_size_retires_nor_longer_than_the_age(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns)};
    struct retention both = {.size = 50, .age_ns = HOUR_NS};
    struct retention_look first = look(&both, segments, 2, noon_ns + YEAR_NS);
    assert_true(first.retire);
    assert_int_equal(first.hold_ns, HOUR_NS);
}

static void what_the_guard_holds_is_counted(void **state)
{
    (void)state;
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns), SEGMENT(20, 60, noon_ns + HOUR_NS),
                                              SEGMENT(30, 70, noon_ns + DAY_NS)};
    struct retention size = {.size = 130}, age = {.age_ns = HOUR_NS}, none = {0};
    assert_int_equal(retention_held(&size, segments, 4, 0, noon_ns), 150); /* 130 are kept without the first two */
    assert_int_equal(retention_held(&size, segments, 4, 9, noon_ns), 150);
    assert_int_equal(retention_held(&size, segments, 4, 10, noon_ns), 50); /* the first is about to go */
    assert_int_equal(retention_held(&size, segments, 4, 25, noon_ns), 0);
    assert_int_equal(retention_held(&age, segments, 4, 0, noon_ns + 2 * HOUR_NS), 150);
    assert_int_equal(retention_held(&none, segments, 4, 0, noon_ns + YEAR_NS), 0);
    assert_int_equal(retention_held(&size, segments, 0, 0, noon_ns), 0);
}

static const struct retention_trim everything = {.before = UINT64_MAX, .until_ns = UINT64_MAX};

static void assert_plan(struct retention_trim trim, uint64_t guard, size_t named, size_t removable)
{
    const struct stream_segment segments[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns), SEGMENT(20, 60, noon_ns + HOUR_NS),
                                              SEGMENT(30, 70, noon_ns + DAY_NS)};
    struct retention_plan plan = retention_plan(&trim, segments, 4, guard);
    assert_int_equal(plan.named, named);
    assert_int_equal(plan.removable, removable);
}

static void what_is_asked_for_goes_when_all_limits_name_it(void **state)
{
    (void)state;
    struct retention_trim before = everything, old = everything, size = everything, tail = everything;
    before.before = 20;
    old.until_ns = noon_ns + HOUR_NS;
    size.keep_size = 130;
    tail.keep_count = 2;
    assert_plan(everything, UINT64_MAX, 3, 3);
    assert_plan(before, UINT64_MAX, 2, 2);
    before.before = 19;
    assert_plan(before, UINT64_MAX, 1, 1);
    before.before = 9;
    assert_plan(before, UINT64_MAX, 0, 0);
    assert_plan(old, UINT64_MAX, 2, 2);
    old.until_ns--;
    assert_plan(old, UINT64_MAX, 1, 1);
    assert_plan(size, UINT64_MAX, 2, 2);
    size.keep_size++;
    assert_plan(size, UINT64_MAX, 1, 1);
    size.before = 9;
    assert_plan(size, UINT64_MAX, 0, 0);
    assert_plan(everything, 20, 3, 2);
    assert_plan(everything, 19, 3, 1);
    assert_plan(everything, 0, 3, 0);
    assert_plan(tail, UINT64_MAX, 3, 2);
    tail.keep_count = 9;
    assert_plan(tail, UINT64_MAX, 3, 0);
    assert_int_equal(retention_plan(&everything, NULL, 0, UINT64_MAX).named, 0);
}

/* What was made before the segment in front of it was made while the clock was wrong, and tells nothing; nor does a lost stamp. */
static void what_is_asked_for_by_age_needs_a_stamp(void **state)
{
    (void)state;
    const struct stream_segment behind[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, noon_ns - 1)},
                                lost[] = {SEGMENT(0, 100, noon_ns), SEGMENT(10, 50, 0)};
    struct retention_trim old = everything;
    old.until_ns = noon_ns + DAY_NS;
    assert_int_equal(retention_plan(&old, behind, 2, UINT64_MAX).named, 0);
    assert_int_equal(retention_plan(&old, lost, 2, UINT64_MAX).named, 0);
    assert_int_equal(retention_plan(&everything, lost, 2, UINT64_MAX).named, 1);
}

/* ---- in a journal ---- */

static uint64_t wall_ns, monotonic_ns;

static uint64_t read_wall(void)
{
    return wall_ns;
}

static uint64_t read_monotonic(void)
{
    return monotonic_ns;
}

static void pass(uint64_t ns)
{
    wall_ns += ns;
    monotonic_ns += ns;
}

struct kept {
    struct simulated_disk *disk;
    struct journal_stream_options options;
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
};

static void open_kept(struct kept *kept)
{
    static const struct journal_clock clock = {read_wall, read_monotonic};
    struct journal_options options = {
        .disk = simulated_disk_table(kept->disk), .folder = "/data", .segment_size = SEGMENT, .clock = &clock, .stepped = true};
    assert_int_equal(journal_open(&kept->journal, &options), 0);
    assert_int_equal(journal_stream_add(kept->journal, &kept->options, &kept->stream), 0);
    assert_int_equal(journal_start(kept->journal), 0);
    assert_int_equal(journal_producer_open(kept->journal, no_notice, NULL, &kept->producer), 0);
}

static void begin(struct kept *kept, struct journal_stream_options options)
{
    wall_ns = noon_ns;
    monotonic_ns = HOUR_NS;
    options.name = "kept";
    *kept = (struct kept){.disk = simulated_disk_create(1), .options = options};
    open_kept(kept);
}

static void close_kept(struct kept *kept)
{
    journal_producer_close(kept->producer);
    journal_close(kept->journal);
}

static void end(struct kept *kept)
{
    close_kept(kept);
    simulated_disk_destroy(kept->disk);
}

static void keep(struct kept *kept)
{
    while (journal_step_keeper(kept->journal))
        continue;
}

static void write_records(struct kept *kept, unsigned count)
{
    static const uint8_t payload[PAYLOAD];
    for (unsigned i = 0; i < count; i++) {
        struct message message = {
            .time_ns = wall_ns, .topic = "t", .topic_length = 1, .payload = payload, .payload_length = sizeof payload};
        assert_int_equal(journal_append(kept->producer, kept->stream, &message, NULL, 0, 0), 0);
        journal_submit(kept->producer);
        assert_true(journal_step_group(kept->journal));
        keep(kept);
    }
}

static struct journal_stream_stats stats_of(struct kept *kept)
{
    struct journal_stream_stats stats;
    journal_stream_stats(kept->stream, &stats);
    return stats;
}

static void what_is_old_goes_though_nothing_is_written(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = DAY_NS});
    write_records(&kept, A_SEGMENT);
    pass(HOUR_NS);
    write_records(&kept, A_SEGMENT);
    pass(HOUR_NS);
    write_records(&kept, A_SEGMENT); /* the third was begun two hours after noon */
    assert_int_equal(stats_of(&kept).segment_count, 3);
    pass(DAY_NS - HOUR_NS - 1);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 0);
    assert_int_equal(kept.stream->look_at_ns, monotonic_ns + 1);
    pass(1);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, A_SEGMENT);
    assert_int_equal(kept.stream->look_at_ns, monotonic_ns + HOUR_NS);
    pass(HOUR_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 2 * A_SEGMENT);
    assert_int_equal(kept.stream->look_at_ns, UINT64_MAX); /* nothing to come back for */
    pass(YEAR_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).segment_count, 1);
    end(&kept);
}

static void age_is_known_again_after_a_restart(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = DAY_NS});
    write_records(&kept, A_SEGMENT);
    pass(HOUR_NS);
    write_records(&kept, 1); /* in the second */
    close_kept(&kept);
    pass(HOUR_NS);
    open_kept(&kept);
    keep(&kept);
    assert_int_equal(stats_of(&kept).segment_count, 3);
    pass(DAY_NS - HOUR_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, A_SEGMENT);
    pass(HOUR_NS - 1); /* what was last written before the stop counts from the start */
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, A_SEGMENT);
    pass(1);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, A_SEGMENT + 1);
    end(&kept);
}

static void the_slowest_cursor_holds_what_size_and_age_would_retire(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = HOUR_NS, .retention_size = 1, .guarded = true});
    write_records(&kept, 4 * A_SEGMENT);
    pass(HOUR_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 0); /* the cursor stands at 0 */
    assert_int_equal(stats_of(&kept).held_bytes, stats_of(&kept).bytes - kept.stream->segments[3].bytes);
    for (uint64_t cursor = 1; cursor <= 4 * A_SEGMENT; cursor++) {
        journal_stream_set_guard(kept.stream, cursor);
        keep(&kept);
        uint64_t segment = cursor / A_SEGMENT < 3 ? cursor / A_SEGMENT : 3;
        assert_int_equal(stats_of(&kept).first_offset, segment * A_SEGMENT);
        assert_int_equal(stats_of(&kept).held_bytes > 0, segment < 3);
    }
    end(&kept);
}

static void a_cursor_that_is_late_lets_go_after_the_hold(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = HOUR_NS, .guarded = true});
    write_records(&kept, 2 * A_SEGMENT);
    pass(DAY_NS);
    keep(&kept);
    assert_int_equal(kept.stream->look_at_ns, UINT64_MAX); /* it is woken by the guard */
    journal_stream_set_guard(kept.stream, 2 * A_SEGMENT);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 0);
    assert_int_equal(kept.stream->look_at_ns, monotonic_ns + HOUR_NS);
    pass(HOUR_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, A_SEGMENT);
    end(&kept);
}

static void a_clock_that_leaps_does_not_empty_a_stream(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = 30 * DAY_NS});
    write_records(&kept, 4 * A_SEGMENT);
    wall_ns += 10 * YEAR_NS;
    keep(&kept);
    close_kept(&kept);
    open_kept(&kept); /* nor does a start with the wrong clock */
    keep(&kept);
    pass(HOUR_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 0);
    wall_ns -= 10 * YEAR_NS;
    pass(DAY_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 0);
    pass(30 * DAY_NS); /* the right clock */
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 3 * A_SEGMENT); /* the segment of the start has a stamp in the future */
    end(&kept);
}

static void a_segment_that_fills_slowly_is_left_when_it_is_old(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = DAY_NS});
    write_records(&kept, 1);
    pass(DAY_NS - 1);
    write_records(&kept, 1);
    assert_int_equal(stats_of(&kept).segment_count, 1);
    pass(1);
    write_records(&kept, 1);
    assert_int_equal(stats_of(&kept).segment_count, 2);
    pass(DAY_NS);
    keep(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 2); /* the first record is two days old */
    end(&kept);
}

static void a_segment_that_was_empty_for_long_is_not_left_at_once(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = DAY_NS});
    pass(10 * DAY_NS);
    write_records(&kept, 2);
    assert_int_equal(stats_of(&kept).segment_count, 1);
    pass(DAY_NS);
    write_records(&kept, 1);
    assert_int_equal(stats_of(&kept).segment_count, 2);
    end(&kept);
}

/* ---- on request ---- */

static struct journal_trimmed ask(struct kept *kept, struct retention_trim trim, bool dry_run, int expected)
{
    struct journal_trimmed trimmed;
    assert_int_equal(journal_stream_trim(kept->stream, &trim, dry_run, &trimmed), expected);
    return trimmed;
}

static void what_is_asked_for_is_removed_and_a_dry_run_says_the_same(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.retention_age_ns = 0});
    write_records(&kept, 5 * A_SEGMENT);
    uint64_t bytes = kept.stream->segments[0].bytes + kept.stream->segments[1].bytes;
    struct retention_trim trim = everything;
    trim.before = 2 * A_SEGMENT + 1;
    struct journal_trimmed plan = ask(&kept, trim, true, 0);
    assert_int_equal(stats_of(&kept).segment_count, 5);
    struct journal_trimmed done = ask(&kept, trim, false, 0);
    assert_int_equal(plan.count, 2);
    assert_int_equal(done.count, 2);
    assert_memory_equal(plan.bases, done.bases, 2 * sizeof *plan.bases);
    assert_int_equal(done.bases[1], A_SEGMENT);
    assert_int_equal(plan.bytes, bytes);
    assert_int_equal(done.bytes, bytes);
    assert_int_equal(plan.first_offset, 2 * A_SEGMENT);
    assert_int_equal(done.first_offset, 2 * A_SEGMENT);
    assert_true(!done.more && !done.kept_back && !plan.more && !plan.kept_back);
    assert_int_equal(stats_of(&kept).first_offset, 2 * A_SEGMENT);
    assert_false(kept.stream->has_spare); /* its space was asked for */
    assert_int_equal(ask(&kept, trim, false, 0).count, 0);
    free(plan.bases);
    free(done.bases);
    close_kept(&kept);
    open_kept(&kept);
    assert_int_equal(stats_of(&kept).first_offset, 2 * A_SEGMENT);
    done = ask(&kept, everything, false, 0);
    assert_int_equal(done.count, 3); /* and the newest stays */
    assert_int_equal(stats_of(&kept).segment_count, 1);
    free(done.bases);
    end(&kept);
}

static void a_request_never_passes_the_guard(void **state)
{
    (void)state;
    struct kept kept;
    begin(&kept, (struct journal_stream_options){.guarded = true});
    write_records(&kept, 4 * A_SEGMENT);
    struct journal_trimmed done = ask(&kept, everything, false, 0);
    assert_int_equal(done.count, 0);
    assert_int_equal(done.kept_back, 3);
    assert_null(done.bases);
    journal_stream_set_guard(kept.stream, 2 * A_SEGMENT + 1);
    done = ask(&kept, everything, false, 0);
    assert_int_equal(done.count, 2);
    assert_int_equal(done.kept_back, 1);
    assert_int_equal(done.first_offset, 2 * A_SEGMENT);
    assert_int_equal(stats_of(&kept).first_offset, 2 * A_SEGMENT);
    free(done.bases);
    end(&kept);
}

struct refusal {
    enum simulated_kind kind;
    unsigned after, calls; /* how many pass before one is refused */
};

static int refuse_one(void *context, const struct simulated_call *call)
{
    struct refusal *refusal = context;
    return call->kind == refusal->kind && refusal->calls++ == refusal->after ? -EIO : 0;
}

static void what_the_disk_refuses_is_told_with_what_had_gone(void **state)
{
    (void)state;
    static const enum simulated_kind kinds[] = {SIMULATED_REMOVE, SIMULATED_SYNC_FOLDER};
    for (unsigned i = 0; i < 2; i++) {
        struct kept kept;
        struct refusal refusal = {.kind = kinds[i], .after = 1};
        begin(&kept, (struct journal_stream_options){.guarded = false});
        write_records(&kept, 5 * A_SEGMENT);
        simulated_disk_set_hooks(kept.disk, &(struct simulated_hooks){.before = refuse_one, .context = &refusal});
        struct journal_trimmed done = ask(&kept, everything, false, ERR_IO);
        assert_int_equal(done.count, 1 + i);
        assert_int_equal(done.first_offset, (1 + i) * A_SEGMENT);
        free(done.bases);
        /* After a folder that could not be synced nothing goes until the next start. */
        done = ask(&kept, everything, false, i ? ERR_IO : 0);
        assert_int_equal(done.count, i ? 0 : 3);
        free(done.bases);
        simulated_disk_set_hooks(kept.disk, &(struct simulated_hooks){0});
        end(&kept);
    }
}

/* ---- with threads and clocks that run ---- */

struct running {
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
};

static void start_running(struct running *running, struct disk *disk, struct journal_stream_options options)
{
    struct journal_options journal = {.disk = disk, .folder = test_folder, .segment_size = SEGMENT, .compression_level = 1};
    options.name = "s";
    assert_int_equal(journal_open(&running->journal, &journal), 0);
    assert_int_equal(journal_stream_add(running->journal, &options, &running->stream), 0);
    struct journal_trimmed trimmed;
    assert_int_equal(journal_stream_trim(running->stream, &everything, false, &trimmed), ERR_BUSY); /* not yet */
    assert_int_equal(journal_start(running->journal), 0);
    assert_int_equal(journal_producer_open(running->journal, no_notice, NULL, &running->producer), 0);
}

static void write_running(struct running *running, unsigned count)
{
    static const uint8_t payload[PAYLOAD];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = sizeof payload};
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(journal_append(running->producer, running->stream, &message, NULL, 0, 0), 0);
        journal_submit(running->producer);
        journal_producer_wait(running->producer, 0);
    }
}

struct asking {
    struct running *running;
    pthread_t thread;
    uint64_t count, bytes, last;
    int error;
    bool ordered;
};

static void *ask_without_end(void *context)
{
    struct asking *asking = context;
    asking->ordered = true;
    while (!asking->error) {
        struct journal_trimmed trimmed;
        asking->error = journal_stream_trim(asking->running->stream, &everything, false, &trimmed);
        asking->count += trimmed.count;
        for (size_t i = 0; i < trimmed.count; i++) {
            asking->ordered = asking->ordered && (asking->last < trimmed.bases[i] || trimmed.bases[i] == 0);
            asking->last = trimmed.bases[i];
        }
        free(trimmed.bases);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    return NULL;
}

/* Beside writing, compression and a reader; each segment is told to one of them, and a stop ends both. */
static void two_that_ask_at_once_share_what_goes(void **state)
{
    (void)state;
    struct running running;
    struct asking both[2];
    start_running(&running, disk_posix(), (struct journal_stream_options){.guarded = false});
    for (unsigned i = 0; i < 2; i++) {
        both[i] = (struct asking){.running = &running};
        assert_int_equal(pthread_create(&both[i].thread, NULL, ask_without_end, &both[i]), 0);
    }
    struct reader *reader;
    assert_int_equal(journal_stream_reader(running.stream, 0, &reader), 0);
    struct message message;
    uint64_t next = 0;
    for (unsigned i = 0; i < 40; i++) {
        write_running(&running, 2 * A_SEGMENT);
        while (reader_next(reader, journal_stream_durable(running.stream), &message, NULL) == 0) {
            assert_true(message.offset >= next);
            next = message.offset + 1;
        }
    }
    assert_int_equal(next, 80 * A_SEGMENT); /* it was overtaken perhaps, and lost its way nowhere */
    reader_close(reader);
    journal_producer_close(running.producer);
    struct journal_stream_stats stats;
    for (unsigned i = 0; i < DEADLINE_S * 1000; i++) {
        journal_stream_stats(running.stream, &stats);
        if (stats.segment_count == 1)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(stats.segment_count, 1);
    journal_stop(running.journal);
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(both[i].thread, NULL);
        assert_int_equal(both[i].error, ERR_BUSY);
        assert_true(both[i].ordered);
    }
    assert_int_equal(both[0].count + both[1].count, 79);
    journal_close(running.journal);
}

/* A disk whose removals wait for the test. */
static sem_t may_remove;
static atomic_uint removals_waited;

static int remove_late(struct disk *disk, const char *path)
{
    (void)disk;
    if (strstr(path, "/0000")) {
        atomic_fetch_add(&removals_waited, 1);
        sem_wait(&may_remove);
    }
    return disk_posix()->ops->remove(disk_posix(), path);
}

static void *allow_late(void *context)
{
    (void)context;
    while (atomic_load(&removals_waited) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    uint64_t end_ns = clock_monotonic_ns() + (JOURNAL_TRIM_WORK_MS + 50) * UINT64_C(1000000);
    while (clock_monotonic_ns() < end_ns)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    sem_post(&may_remove);
    return NULL;
}

static void a_slow_disk_does_not_hold_who_asks_for_long(void **state)
{
    (void)state;
    struct disk_ops ops = *disk_posix()->ops;
    ops.remove = remove_late;
    struct disk late = *disk_posix();
    late.ops = &ops;
    assert_int_equal(sem_init(&may_remove, 0, 0), 0);
    struct running running;
    start_running(&running, &late, (struct journal_stream_options){.guarded = false});
    write_running(&running, 4 * A_SEGMENT);
    struct journal_trimmed trimmed;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, allow_late, NULL), 0);
    assert_int_equal(journal_stream_trim(running.stream, &everything, false, &trimmed), 0); /* JOURNAL_TRIM_WORK_MS */
    assert_true(trimmed.count == 1 && trimmed.more && trimmed.first_offset == A_SEGMENT);
    free(trimmed.bases);
    pthread_join(thread, NULL);
    uint64_t begun_ns = clock_monotonic_ns();
    assert_int_equal(journal_stream_trim(running.stream, &everything, false, &trimmed), ERR_BUSY); /* JOURNAL_TRIM_WAIT_MS */
    assert_true(clock_monotonic_ns() - begun_ns >= JOURNAL_TRIM_WAIT_MS * UINT64_C(1000000));
    assert_int_equal(trimmed.count, 0);
    free(trimmed.bases);
    for (unsigned i = 0; i < 8; i++)
        sem_post(&may_remove);
    assert_int_equal(journal_stream_trim(running.stream, &everything, false, &trimmed), 0); /* with what was under way */
    assert_int_equal(trimmed.first_offset, 3 * A_SEGMENT);
    free(trimmed.bases);
    journal_producer_close(running.producer);
    journal_close(running.journal);
    sem_destroy(&may_remove);
}

static void an_idle_keeper_comes_back_when_something_is_old(void **state)
{
    (void)state;
    struct journal *journal;
    struct journal_stream *stream;
    struct journal_producer *producer;
    struct journal_options options = {.disk = disk_posix(), .folder = test_folder, .segment_size = SEGMENT};
    assert_int_equal(journal_open(&journal, &options), 0);
    struct journal_stream_options named = {.name = "s", .retention_age_ns = SECOND_NS / 2};
    assert_int_equal(journal_stream_add(journal, &named, &stream), 0);
    assert_int_equal(journal_start(journal), 0);
    assert_int_equal(journal_producer_open(journal, no_notice, NULL, &producer), 0);
    static const uint8_t payload[PAYLOAD];
    struct message message = {.topic = "t", .topic_length = 1, .payload = payload, .payload_length = sizeof payload};
    for (unsigned i = 0; i < 4 * A_SEGMENT; i++) {
        assert_int_equal(journal_append(producer, stream, &message, NULL, 0, 0), 0);
        journal_submit(producer);
        journal_producer_wait(producer, 0);
    }
    struct journal_stream_stats stats = {.segment_count = 2};
    for (unsigned i = 0; i < DEADLINE_S * 1000 && stats.segment_count > 1; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        journal_stream_stats(stream, &stats);
    }
    assert_int_equal(stats.segment_count, 1);
    journal_producer_close(producer);
    journal_close(journal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_segment_goes_when_size_or_age_says_so),
        cmocka_unit_test(the_newest_segment_never_goes),
        cmocka_unit_test(it_is_looked_at_when_it_is_due_and_each_hour),
        cmocka_unit_test(a_clock_that_is_set_back_retires_nothing),
        cmocka_unit_test(a_stamp_that_is_lost_or_in_the_future_is_made_up_for_by_the_next),
        cmocka_unit_test(a_clock_that_leaps_ahead_is_told_and_waited_for),
        cmocka_unit_test(a_clock_that_was_behind_for_a_while_retires_nothing),
        cmocka_unit_test(what_is_held_goes_though_no_process_lives_as_long),
        cmocka_unit_test(what_cannot_be_removed_is_not_tried_without_end),
        cmocka_unit_test(a_leap_does_not_hold_what_size_retires_nor_longer_than_the_age),
        cmocka_unit_test(what_the_guard_holds_is_counted),
        cmocka_unit_test(what_is_asked_for_goes_when_all_limits_name_it),
        cmocka_unit_test(what_is_asked_for_by_age_needs_a_stamp),
        cmocka_unit_test(what_is_asked_for_is_removed_and_a_dry_run_says_the_same),
        cmocka_unit_test(a_request_never_passes_the_guard),
        cmocka_unit_test(what_the_disk_refuses_is_told_with_what_had_gone),
        cmocka_unit_test(what_is_old_goes_though_nothing_is_written),
        cmocka_unit_test(age_is_known_again_after_a_restart),
        cmocka_unit_test(the_slowest_cursor_holds_what_size_and_age_would_retire),
        cmocka_unit_test(a_cursor_that_is_late_lets_go_after_the_hold),
        cmocka_unit_test(a_clock_that_leaps_does_not_empty_a_stream),
        cmocka_unit_test(a_segment_that_fills_slowly_is_left_when_it_is_old),
        cmocka_unit_test(a_segment_that_was_empty_for_long_is_not_left_at_once),
        cmocka_unit_test_setup_teardown(two_that_ask_at_once_share_what_goes, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(a_slow_disk_does_not_hold_who_asks_for_long, test_folder_make, test_folder_remove),
        cmocka_unit_test_setup_teardown(an_idle_keeper_comes_back_when_something_is_old, test_folder_make, test_folder_remove),
    };
    return cmocka_run_group_tests_name("retention", tests, NULL, NULL);
}
