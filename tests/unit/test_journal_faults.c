/* The journal on a disk that fails on purpose: what it promises holds after a crash at any call, and whatever the disk does.
 *
 * Each test runs some seeds; SPINDLE_FAULT_RUNS=n runs n of them, SPINDLE_FAULT_SEED=s the one that a failure has named;
 * SPINDLE_FAULT_TEST=t runs only the tests whose names match, with * and ?. */
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "journal_trial.h"

/* ---- a crash after every call ---- */

/* What on_call is to do in a journal that starts on what a crash has left. */
struct second_crash {
    unsigned in; /* calls until the disk crashes once more; 0: it does not */
};

static void crash_again(struct trial *trial, const struct simulated_call *call);

/* A journal starts on what the crash has left, works, and ends. */
static void restart(struct trial *crashed)
{
    struct random_source *random = &crashed->random;
    struct second_crash second = {.in = random_below(random, 3) ? 0 : 1 + random_below(random, 40)};
    trial_read(crashed, false); /* as `verify` and `cat` would, of a folder that nobody has recovered */
    if (second.in) {
        crashed->on_call = crash_again;
        crashed->on_call_context = &second;
    }
    int error = trial_open(crashed);
    TRIAL_CHECK(error == 0, "no start after a crash: %s", error_text(error));
    trial_adopt(crashed, false);
    trial_turns(crashed, random_below(random, 5));
    if (random_below(random, 2)) {
        trial_close(crashed);
        trial_read(crashed, false);
    }
    crashed->on_call = NULL;
}

static void crash_again(struct trial *trial, const struct simulated_call *call)
{
    (void)call;
    struct second_crash *second = trial->on_call_context;
    if (second->in == 0 || --second->in)
        return;
    struct trial crashed;
    trial_init_crashed(&crashed, trial, random_u64(&trial->random));
    trial_read(&crashed, false);
    int error = trial_open(&crashed);
    TRIAL_CHECK(error == 0, "no start after a second crash: %s", error_text(error));
    trial_adopt(&crashed, false);
    trial_turns(&crashed, 2);
    trial_close(&crashed);
    trial_read(&crashed, false);
    trial_fini(&crashed);
}

static void crash_here(struct trial *trial, const struct simulated_call *call)
{
    (void)call;
    struct random_source *seeds = trial->on_call_context;
    struct trial crashed;
    trial_init_crashed(&crashed, trial, random_u64(seeds));
    restart(&crashed);
    trial_fini(&crashed);
}

static void crash_everywhere(uint64_t seed)
{
    struct trial trial;
    trial_init(&trial, seed);
    trial.with_large = seed % 3 == 0;
    struct random_source seeds = {~seed};
    for (unsigned lives = 0; lives < 3; lives++) {
        trial.compression_level = (int)((seed + lives) % 2);
        trial.on_call = crash_here;
        trial.on_call_context = &seeds;
        simulated_disk_set_short(trial.disk, seed % 2 ? 20 : 0);
        TRIAL_CHECK(trial_open(&trial) == 0, "no start");
        trial_adopt(&trial, false);
        trial_turns(&trial, 30);
        if (lives % 2) {
            trial_close(&trial);
            trial_read(&trial, false);
        } else {
            trial_crash(&trial);
        }
    }
    trial_fini(&trial);
}

static void after_a_crash_at_any_call_every_promise_holds(void **state)
{
    (void)state;
    trial_seeds(3, crash_everywhere);
}

/* ---- what the runs are made of ---- */

/* What a run's calls have done to segments, and whether each had its name for good before it was written to. */
struct habits {
    unsigned rolls, from_prepared, from_next, retired, removed, reused, compressed;
    char unsynced[SIMULATED_PATH_MAX]; /* a segment whose folder has not been synced since it got its name */
};

static bool ends_with(const char *path, const char *name)
{
    size_t length = strlen(path), wanted = strlen(name);
    return length >= wanted && strcmp(path + length - wanted, name) == 0;
}

static bool is_segment(const char *path)
{
    uint64_t base_offset;
    return segment_name_parse(strrchr(path, '/') + 1, &base_offset);
}

static void watch(struct trial *trial, const struct simulated_call *call)
{
    struct habits *habits = trial->on_call_context;
    bool compressed = call->kind == SIMULATED_RENAME && ends_with(call->path, "/compressed.seg");
    habits->compressed += compressed;
    if (call->kind == SIMULATED_RENAME && is_segment(call->to) && !compressed) {
        habits->rolls++;
        habits->from_prepared += ends_with(call->path, "/prepared.seg");
        habits->from_next += ends_with(call->path, "/next.seg");
        snprintf(habits->unsynced, sizeof habits->unsynced, "%s", call->to);
    }
    habits->retired += call->kind == SIMULATED_RENAME && is_segment(call->path) && ends_with(call->to, "/spare.seg");
    habits->reused += call->kind == SIMULATED_RENAME && ends_with(call->path, "/spare.seg");
    habits->removed += call->kind == SIMULATED_REMOVE && is_segment(call->path);
    size_t length = strlen(call->path);
    if (call->kind == SIMULATED_SYNC_FOLDER && strncmp(habits->unsynced, call->path, length) == 0 && habits->unsynced[length] == '/')
        habits->unsynced[0] = 0;
    TRIAL_CHECK(call->kind != SIMULATED_WRITE || strcmp(call->path, habits->unsynced) != 0, "%s has no name for good yet", call->path);
}

static uint64_t run_watched(uint64_t seed, int compression_level, struct habits *habits)
{
    struct trial trial;
    trial_init(&trial, seed);
    trial.compression_level = compression_level;
    for (unsigned lives = 0; lives < 3; lives++) {
        trial.on_call = watch;
        trial.on_call_context = habits;
        TRIAL_CHECK(trial_open(&trial) == 0, "no start");
        trial_adopt(&trial, false);
        trial_turns(&trial, 30);
        trial_crash(&trial);
    }
    trial_fini(&trial);
    return trial.calls_sum;
}

static struct habits all_runs;

static void watch_a_run(uint64_t seed)
{
    run_watched(seed, 0, &all_runs);
}

static void a_segment_has_its_name_for_good_before_a_record_goes_into_it(void **state)
{
    (void)state;
    trial_seeds(3, watch_a_run);
    if (getenv("SPINDLE_FAULT_SEED"))
        return; /* one run need not have all of them */
    assert_true(all_runs.rolls > 30 && all_runs.from_prepared > 3 && all_runs.from_next > 30);
    assert_true(all_runs.retired && all_runs.removed && all_runs.reused);
}

/* What the other tests mean when they switch compression on. */
static void watch_compression(uint64_t seed)
{
    struct habits habits = {0};
    run_watched(seed, 1, &habits);
    TRIAL_CHECK(habits.compressed > 9, "only %u segments are compressed", habits.compressed);
}

static void closed_segments_are_compressed_while_the_rest_goes_on(void **state)
{
    (void)state;
    trial_seeds(3, watch_compression);
}

static void run_twice(uint64_t seed)
{
    struct habits habits = {0};
    for (int compression_level = 0; compression_level < 2; compression_level++) {
        uint64_t first = run_watched(seed, compression_level, &habits);
        TRIAL_CHECK(run_watched(seed, compression_level, &habits) == first, "the second run was another one");
    }
}

static void the_same_seed_makes_the_same_calls(void **state)
{
    (void)state;
    trial_seeds(3, run_twice);
}

/* ---- calls that fail ---- */

/* The process has died, or is killed; with or without the machine. */
static void end_badly(struct trial *trial)
{
    trial->fail_in = 0;
    if (random_below(&trial->random, 2))
        trial_kill(trial);
    else
        trial_crash(trial);
    trial_read(trial, false);
}

static void start_again(struct trial *trial, bool damaged)
{
    int error = trial_open(trial);
    if (error)
        error = trial_open(trial); /* what had been armed has failed */
    TRIAL_CHECK(error == 0, "no start: %s", error_text(error));
    trial_adopt(trial, damaged);
}

static void fail_sometimes(uint64_t seed)
{
    static const enum simulated_kind kinds[] = {SIMULATED_SYNC,   SIMULATED_SYNC,        SIMULATED_WRITE,  SIMULATED_CREATE,
                                                SIMULATED_RENAME, SIMULATED_SYNC_FOLDER, SIMULATED_REMOVE, SIMULATED_TRUNCATE};
    struct trial trial;
    trial_init(&trial, seed);
    trial.may_die = true;
    start_again(&trial, false);
    for (unsigned lives = 0; lives < 12; lives++) {
        trial.compression_level = (int)random_below(&trial.random, 2);
        trial.fail_kind = kinds[random_below(&trial.random, sizeof kinds / sizeof *kinds)];
        trial.fail_keeper = random_below(&trial.random, 3) == 0;
        trial.fail_in =
            1 + random_below(&trial.random,
                             !trial.fail_keeper && (trial.fail_kind == SIMULATED_WRITE || trial.fail_kind == SIMULATED_SYNC) ? 40 : 6);
        if (!trial_turns(&trial, 10) || random_below(&trial.random, 2) || !trial_close(&trial))
            end_badly(&trial);
        start_again(&trial, false);
    }
    trial_fini(&trial);
}

static void after_a_call_that_fails_every_promise_holds(void **state)
{
    (void)state;
    trial_seeds(60, fail_sometimes);
}

/* The system tells each handle of a failed sync once. If the keeper shared the group thread's, it would take the bad news away from it. */
static void a_sync_that_fails_for_the_keeper_fails_for_the_group(uint64_t seed)
{
    struct trial trial;
    trial_init(&trial, seed);
    trial.segment_size = 64 << 20; /* much to be zeroed ahead */
    trial.keeper_one_in = 1;
    trial.may_die = trial.fail_keeper = true;
    trial.fail_kind = SIMULATED_SYNC;
    trial.fail_in = 2; /* the keeper's first turn is beside the group's write, its second beside the group's sync */
    start_again(&trial, false);
    TRIAL_CHECK(!trial_turns(&trial, 20), "the group's sync has not failed");
    trial_crash(&trial);
    trial_read(&trial, false);
    start_again(&trial, false);
    trial_fini(&trial);
}

static void the_keeper_does_not_swallow_a_failed_sync(void **state)
{
    (void)state;
    trial_seeds(3, a_sync_that_fails_for_the_keeper_fails_for_the_group);
}

/* ---- damage ---- */

static void segment_path(unsigned stream, uint64_t base_offset, char path[SIMULATED_PATH_MAX])
{
    char folder[64], name[32];
    trial_folder(stream, folder);
    segment_name(base_offset, name);
    snprintf(path, SIMULATED_PATH_MAX, "%s/%s", folder, name);
}

static void newest_segment(struct trial *trial, unsigned stream, char path[SIMULATED_PATH_MAX])
{
    char folder[64];
    trial_folder(stream, folder);
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(simulated_disk_table(trial->disk), folder, &bases, &count), 0);
    segment_path(stream, bases[count - 1], path);
    free(bases);
}

/* A segment of the stream and the bytes in it that hold something but for a seal: without that nobody can tell damage in the last group
 * from a torn end. */
static uint64_t draw_segment(struct trial *trial, unsigned stream, char path[SIMULATED_PATH_MAX], bool *last)
{
    char folder[64];
    trial_folder(stream, folder);
    uint64_t *bases;
    size_t count;
    assert_int_equal(segment_list(simulated_disk_table(trial->disk), folder, &bases, &count), 0);
    size_t pick = random_below(&trial->random, (uint32_t)count);
    *last = pick + 1 == count;
    segment_path(stream, bases[pick], path);
    free(bases);
    return (uint64_t)simulated_disk_file_size(trial->disk, path) - (*last ? FORMAT_RECORD_HEADER_SIZE : 0);
}

static void damage_sometimes(uint64_t seed)
{
    struct trial trial;
    trial_init(&trial, seed);
    for (unsigned lives = 0; lives < 2; lives++) {
        trial.compression_level = (int)random_below(&trial.random, 2);
        start_again(&trial, false);
        trial_turns(&trial, 15);
        TRIAL_CHECK(trial_close(&trial), "the journal gave up");
    }
    trial_adopt(&trial, false);
    for (uint32_t places = 1 + random_below(&trial.random, 4); places > 0; places--) {
        char path[SIMULATED_PATH_MAX];
        bool last;
        unsigned stream = random_below(&trial.random, TRIAL_STREAMS);
        uint64_t size = draw_segment(&trial, stream, path, &last);
        uint64_t position = random_below(&trial.random, (uint32_t)size);
        /* In a stream without retention: a bad page of a segment that is used again would lie behind the newest record. */
        if (stream == TRIAL_UNTRIMMED && !last && random_below(&trial.random, 3))
            simulated_disk_make_unreadable(trial.disk, path, position);
        else
            simulated_disk_flip(trial.disk, path, position * 8 + random_below(&trial.random, 8));
    }
    trial_read(&trial, true);
    start_again(&trial, true);
    trial_turns(&trial, 5);
    trial_read(&trial, true);
    trial_crash(&trial);
    trial_read(&trial, true);
    start_again(&trial, true);
    trial_fini(&trial);
}

/* What cannot be read may be acknowledged. It is no torn end, to be cut off and forgotten. */
static void unreadable_end(uint64_t seed)
{
    struct trial trial;
    trial_init(&trial, seed);
    start_again(&trial, false);
    do
        trial_turns(&trial, 1);
    while (trial.streams[0].next < 3);
    trial_kill(&trial);
    char path[SIMULATED_PATH_MAX];
    newest_segment(&trial, 0, path);
    uint64_t position = FORMAT_SEGMENT_HEADER_SIZE; /* so that all pages with records are unreadable */
    for (; position < (uint64_t)simulated_disk_file_size(trial.disk, path); position += SIMULATED_PAGE_SIZE)
        simulated_disk_make_unreadable(trial.disk, path, position);
    assert_int_equal(trial_open(&trial), ERR_IO);
    assert_int_equal(trial_open(&trial), ERR_IO);
    simulated_disk_heal(trial.disk, path);
    start_again(&trial, false);
    trial_fini(&trial);
}

static void what_cannot_be_read_is_not_cut_off(void **state)
{
    (void)state;
    trial_seeds(3, unreadable_end);
}

static void damage_is_told_exactly_and_the_rest_is_intact(void **state)
{
    (void)state;
    trial_seeds(40, damage_sometimes);
}

/* ---- a full disk ---- */

static void crash_now_and_then(struct trial *trial, const struct simulated_call *call)
{
    struct random_source *seeds = trial->on_call_context;
    if (random_below(seeds, 8) == 0)
        crash_here(trial, call);
}

static void fill_sometimes(uint64_t seed)
{
    struct trial trial;
    trial_init(&trial, seed);
    struct random_source seeds = {~seed};
    trial.on_call = crash_now_and_then;
    trial.on_call_context = &seeds;
    for (unsigned lives = 0; lives < 3; lives++) {
        trial.compression_level = (int)((seed + lives) % 2);
        int error = trial_open(&trial);
        while (error == ERR_NO_SPACE) /* there is no place for a folder */
            error = trial_open(&trial);
        TRIAL_CHECK(error == 0, "no start: %s", error_text(error));
        trial_adopt(&trial, false);
        for (unsigned i = 0; i < 8; i++) {
            simulated_disk_fill(trial.disk, random_below(&trial.random, 30));
            trial_turns(&trial, 3);
        }
        trial_close(&trial);
        trial_read(&trial, false);
    }
    trial_fini(&trial);
}

static void a_full_disk_loses_nothing_and_writing_goes_on_afterwards(void **state)
{
    (void)state;
    trial_seeds(3, fill_sometimes);
}

/* The prepared segment has its name, but a folder on a full disk cannot be synced. */
static void fail_sync_of_name(struct trial *trial, const struct simulated_call *call)
{
    unsigned *failed = trial->on_call_context;
    if (call->kind == SIMULATED_RENAME && ends_with(call->path, "/prepared.seg") && is_segment(call->to)) {
        trial->fail_in = 1;
        ++*failed;
    }
}

static void refuse_sync_of_names(uint64_t seed)
{
    struct trial trial;
    unsigned failed = 0;
    trial_init(&trial, seed);
    start_again(&trial, false);
    trial.fail_kind = SIMULATED_SYNC_FOLDER;
    trial.fail_error = ENOSPC;
    trial.on_call = fail_sync_of_name;
    trial.on_call_context = &failed;
    for (unsigned i = 0; i < 20 && !failed; i++)
        TRIAL_CHECK(trial_turns(&trial, 10), "the journal gave up");
    TRIAL_CHECK(failed > 0, "no prepared segment was used");
    TRIAL_CHECK(trial_turns(&trial, 10), "the journal gave up");
    trial.on_call = NULL;
    trial.fail_in = 0;
    TRIAL_CHECK(trial_close(&trial), "the journal gave up");
    trial_read(&trial, false);
    start_again(&trial, false);
    trial_turns(&trial, 10);
    trial_crash(&trial);
    trial_read(&trial, false);
    trial_fini(&trial);
}

static void a_name_that_cannot_be_synced_on_a_full_disk_is_given_again(void **state)
{
    (void)state;
    trial_seeds(3, refuse_sync_of_names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_a_crash_at_any_call_every_promise_holds),
        cmocka_unit_test(a_segment_has_its_name_for_good_before_a_record_goes_into_it),
        cmocka_unit_test(closed_segments_are_compressed_while_the_rest_goes_on),
        cmocka_unit_test(the_same_seed_makes_the_same_calls),
        cmocka_unit_test(after_a_call_that_fails_every_promise_holds),
        cmocka_unit_test(the_keeper_does_not_swallow_a_failed_sync),
        cmocka_unit_test(damage_is_told_exactly_and_the_rest_is_intact),
        cmocka_unit_test(what_cannot_be_read_is_not_cut_off),
        cmocka_unit_test(a_name_that_cannot_be_synced_on_a_full_disk_is_given_again),
        cmocka_unit_test(a_full_disk_loses_nothing_and_writing_goes_on_afterwards),
    };
    cmocka_set_test_filter(getenv("SPINDLE_FAULT_TEST"));
    return cmocka_run_group_tests_name("journal faults", tests, NULL, NULL);
}
