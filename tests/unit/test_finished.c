#include "unit.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "pipeline/finished.h"

static struct set_name name(const char *key, const char *stamp, const char *id)
{
    return (struct set_name){
        .key = key, .key_length = (uint32_t)strlen(key), .key_hash = set_key_hash(key, (uint32_t)strlen(key)), .stamp = stamp, .id = id};
}

static void add(struct finished *finished, uint64_t sequence, const char *key, const char *stamp, const char *id, unsigned sides)
{
    struct set_name added = name(key, stamp, id);
    assert_int_equal(finished_add(finished, sequence, &added, sides), 0);
}

static unsigned find(const struct finished *finished, const char *key, const char *stamp, const char *id, unsigned side)
{
    struct set_name asked = name(key, stamp, id);
    return finished_find(finished, &asked, side, FINISHED_ANY_FIT);
}

static unsigned find_same_id(const struct finished *finished, const char *key, const char *stamp, const char *id, unsigned side)
{
    struct set_name asked = name(key, stamp, id);
    return finished_find(finished, &asked, side, FINISHED_SAME_ID);
}

static void test_finds_by_key_stamp_and_id(void **state)
{
    (void)state;
    struct finished finished;
    finished_init(&finished, 10);
    assert_int_equal(find(&finished, "k", "s", "1", 0), 0); /* empty */
    add(&finished, 0, "k", "s", "1", 3);
    assert_int_equal(find(&finished, "k", "s", "1", 0), FINISHED_WITH_SIDE);
    assert_int_equal(find(&finished, "k", "s", "1", 2), FINISHED_WITHOUT_SIDE);
    assert_int_equal(find(&finished, "k", "s", "2", 0), 0);
    assert_int_equal(find(&finished, "k", "s", "", 0), FINISHED_WITH_SIDE);
    assert_int_equal(find(&finished, "k", "t", "1", 0), 0);
    assert_int_equal(find(&finished, "kk", "s", "1", 0), 0);
    assert_int_equal(find(&finished, "ks", "", "1", 0), 0); /* key and stamp do not run together */
    finished_fini(&finished);
}

static void test_same_id_must_be_known_on_both_sides(void **state)
{
    (void)state;
    struct finished finished;
    finished_init(&finished, 10);
    add(&finished, 0, "k", "s", "", 3);
    assert_int_equal(find_same_id(&finished, "k", "s", "1", 0), 0);
    assert_int_equal(find_same_id(&finished, "k", "s", "", 0), 0);
    assert_int_equal(find(&finished, "k", "s", "1", 0), FINISHED_WITH_SIDE);
    add(&finished, 1, "k", "s", "1", 3);
    assert_int_equal(find_same_id(&finished, "k", "s", "1", 0), FINISHED_WITH_SIDE);
    finished_fini(&finished);
}

static void test_two_sets_of_one_stamp_tell_both(void **state)
{
    (void)state;
    struct finished finished;
    finished_init(&finished, 10);
    add(&finished, 0, "k", "s", "1", 7);
    add(&finished, 1, "k", "s", "2", 3);
    assert_int_equal(find(&finished, "k", "s", "", 2), FINISHED_WITH_SIDE | FINISHED_WITHOUT_SIDE);
    assert_int_equal(find(&finished, "k", "s", "1", 2), FINISHED_WITH_SIDE);
    assert_int_equal(find(&finished, "k", "s", "2", 2), FINISHED_WITHOUT_SIDE);
    finished_fini(&finished);
}

static void test_forgets_the_oldest_beyond_its_limit(void **state)
{
    (void)state;
    struct finished finished;
    char stamp[16];
    finished_init(&finished, 100);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(stamp, sizeof stamp, "%u", i);
        add(&finished, i, "k", stamp, "", 3);
        assert_true(finished_count(&finished) <= 100);
    }
    assert_int_equal(finished_count(&finished), 100);
    assert_int_equal(finished_oldest(&finished), 900);
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(stamp, sizeof stamp, "%u", i);
        assert_int_equal(find(&finished, "k", stamp, "", 0), i < 900 ? 0 : FINISHED_WITH_SIDE);
    }
    finished_fini(&finished);
}

static void test_trims_by_sequence(void **state)
{
    (void)state;
    struct finished finished;
    finished_init(&finished, 100);
    assert_int_equal(finished_oldest(&finished), UINT64_MAX);
    assert_int_equal(finished_trim(&finished, UINT64_MAX), 0);
    add(&finished, 5, "k", "1", "", 3);
    add(&finished, 9, "k", "2", "", 3);
    add(&finished, 9, "k", "3", "", 3);
    assert_int_equal(finished_trim(&finished, 5), 0);
    assert_int_equal(finished_trim(&finished, 6), 1);
    assert_int_equal(finished_oldest(&finished), 9);
    assert_int_equal(finished_trim(&finished, 10), 2);
    assert_int_equal(finished_count(&finished), 0);
    finished_fini(&finished);
}

static void test_nothing_is_remembered_with_limit_zero(void **state)
{
    (void)state;
    struct finished finished;
    finished_init(&finished, 0);
    add(&finished, 0, "k", "s", "", 3);
    assert_int_equal(finished_count(&finished), 0);
    finished_fini(&finished);
}

/* docs/run.md says how much memory a set takes. Names as tools send them, each set with a stamp of its own. */
static void test_a_set_takes_as_much_memory_as_is_said(void **state)
{
    (void)state;
    enum { COUNT = 1000000, BYTES_EACH = 320 };
    struct mallinfo2 before = mallinfo2();
    struct finished finished;
    finished_init(&finished, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        char stamp[32], id[16];
        snprintf(stamp, sizeof stamp, "2026-11-%02uT%02u:%02u:%02u.%03uZ", 1 + i / 864000 % 28, i / 36000 % 24, i / 600 % 60, i / 10 % 60,
                 i % 10 * 100);
        snprintf(id, sizeof id, "%u", 1000000 + i);
        add(&finished, i, "ILLL502033771/setitec000123", stamp, id, 7);
    }
    struct mallinfo2 after = mallinfo2();
    size_t each = (after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / COUNT;
    print_message("a finished set takes %zu bytes\n", each); /* 0 with a sanitizer, which has its own malloc */
    assert_int_equal(finished_count(&finished), COUNT);
    assert_true(each <= BYTES_EACH);
    finished_fini(&finished);
}

/* The table below it: order within a hash survives growing and removal. */
static void test_hash_table_keeps_the_newest_first(void **state)
{
    (void)state;
    enum { COUNT = 5000, HASHES = 50 };
    struct hash_table table;
    struct hash_node *nodes = calloc(COUNT, sizeof *nodes);
    hash_table_init(&table);
    assert_null(hash_table_first(&table, 7));
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(hash_table_add(&table, &nodes[i], (i % HASHES) * 0x9e3779b97f4a7c15u), 0);
    for (size_t i = 0; i < COUNT; i += 3)
        hash_table_remove(&table, &nodes[i]);
    hash_table_remove(&table, &nodes[0]); /* not in it: nothing happens */
    size_t seen = 0;
    for (uint64_t hash = 0; hash < HASHES; hash++) {
        struct hash_node *before = nodes + COUNT;
        for (struct hash_node *node = hash_table_first(&table, hash * 0x9e3779b97f4a7c15u); node; node = hash_node_next(node), seen++) {
            assert_true(node < before);
            assert_int_equal((size_t)(node - nodes) % HASHES, hash);
            before = node;
        }
    }
    assert_int_equal(seen, table.count);
    assert_int_equal(seen, COUNT - (COUNT + 2) / 3);
    hash_table_fini(&table);
    free(nodes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_by_key_stamp_and_id),
        cmocka_unit_test(test_same_id_must_be_known_on_both_sides),
        cmocka_unit_test(test_two_sets_of_one_stamp_tell_both),
        cmocka_unit_test(test_forgets_the_oldest_beyond_its_limit),
        cmocka_unit_test(test_trims_by_sequence),
        cmocka_unit_test(test_nothing_is_remembered_with_limit_zero),
        cmocka_unit_test(test_a_set_takes_as_much_memory_as_is_said),
        cmocka_unit_test(test_hash_table_keeps_the_newest_first),
    };
    return cmocka_run_group_tests_name("finished", tests, NULL, NULL);
}
