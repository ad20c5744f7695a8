/* What the tests of the configuration share: load a text, compare what is said about it. */
#ifndef TESTS_UNIT_CONFIG_TEXT_H
#define TESTS_UNIT_CONFIG_TEXT_H

#include <string.h>

#include "base/error.h"
#include "config/config.h"
#include "unit.h"

static struct config config;
static struct problems problems;
static struct buffer shown;

static inline int begin(void **state)
{
    (void)state;
    config = (struct config){0};
    problems_init(&problems);
    buffer_init(&shown, 1 << 20);
    return 0;
}

static inline int end(void **state)
{
    (void)state;
    config_fini(&config);
    problems_fini(&problems);
    buffer_fini(&shown);
    return 0;
}

static inline const char *problems_text(void)
{
    buffer_clear(&shown);
    assert_int_equal(problems_write(&problems, &shown), 0);
    return buffer_text(&shown);
}

static inline int load_with(const char *yaml, const char *const *environment, const struct config_assignment *assignments, size_t count)
{
    config_fini(&config);
    problems_fini(&problems);
    struct config_sources sources = {yaml ? "f.yaml" : NULL, environment, assignments, count};
    return config_load_bytes(&config, &sources, (const uint8_t *)yaml, yaml ? strlen(yaml) : 0, &problems);
}

static inline int load(const char *yaml)
{
    return load_with(yaml, NULL, NULL, 0);
}

/* The file has exactly these problems, a line each. */
static inline void expect(const char *yaml, const char *lines)
{
    load(yaml);
    assert_string_equal(problems_text(), lines);
}

static inline void expect_mistake(const char *yaml, const char *lines)
{
    assert_int_equal(load(yaml), ERR_CONFIG);
    assert_string_equal(problems_text(), lines);
    assert_null(config.blocks); /* untouched */
}

static inline void expect_good(const char *yaml)
{
    assert_int_equal(load(yaml), 0);
    assert_string_equal(problems_text(), "");
}

#endif
