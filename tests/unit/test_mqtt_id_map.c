/* The map of packet identifiers: against a plain array, and what it takes. */
#include "mqtt/id_map.h"

#include <string.h>

#include "base/error.h"
#include "unit.h"

static void an_empty_map_holds_nothing(void **state)
{
    (void)state;
    struct mqtt_id_map map = {0};
    assert_int_equal(mqtt_id_map_get(&map, 1), 0);
    assert_int_equal(mqtt_id_map_get(&map, 65535), 0);
    assert_int_equal(mqtt_id_map_next(&map, 0), 0);
    assert_int_equal(mqtt_id_map_put(&map, 7, 0), 0); /* was not in it */
    assert_null(map.pages);
    mqtt_id_map_fini(&map);
}

static void every_identifier_has_a_state_of_its_own(void **state)
{
    (void)state;
    struct mqtt_id_map map = {0};
    for (uint32_t id = 1; id <= 65535; id++)
        assert_int_equal(mqtt_id_map_put(&map, (uint16_t)id, id % 3 + 1), 0);
    assert_int_equal(map.count, 65535);
    uint16_t walked = 0;
    for (uint32_t id = 1; id <= 65535; id++) {
        walked = mqtt_id_map_next(&map, walked);
        assert_int_equal(walked, id);
        assert_int_equal(mqtt_id_map_get(&map, walked), id % 3 + 1);
    }
    assert_int_equal(mqtt_id_map_next(&map, walked), 0);
    for (uint32_t id = 65535; id > 0; id--)
        assert_int_equal(mqtt_id_map_put(&map, (uint16_t)id, 0), 0);
    assert_int_equal(map.count, 0);
    assert_int_equal(mqtt_id_map_next(&map, 0), 0);
    mqtt_id_map_fini(&map);
    assert_null(map.pages);
}

static void it_does_as_an_array_does(void **state)
{
    (void)state;
    static uint8_t expected[65536];
    memset(expected, 0, sizeof expected);
    struct mqtt_id_map map = {0};
    uint32_t random = 3, count = 0;
    for (int step = 0; step < 300000; step++) {
        random = random * 1664525 + 1013904223;
        uint16_t id = (uint16_t)((random >> 8) % 5 ? 1 + (random >> 12) % 40 : 1 + (random >> 12) % 65535);
        unsigned next = step % 100000 < 60000 ? random >> 29 & 3u : 0; /* growing, then emptying */
        count += (uint32_t)(next && !expected[id]) - (uint32_t)(!next && expected[id]);
        expected[id] = (uint8_t)next;
        assert_int_equal(mqtt_id_map_put(&map, id, next), 0);
        assert_int_equal(mqtt_id_map_get(&map, id), next);
        assert_int_equal(map.count, count);
    }
    uint16_t at = 0;
    for (uint32_t id = 1; id <= 65535; id++) {
        assert_int_equal(mqtt_id_map_get(&map, (uint16_t)id), expected[id]);
        if (expected[id])
            assert_int_equal(at = mqtt_id_map_next(&map, at), id);
    }
    mqtt_id_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_map_holds_nothing),
        cmocka_unit_test(every_identifier_has_a_state_of_its_own),
        cmocka_unit_test(it_does_as_an_array_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
