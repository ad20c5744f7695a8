/* A configuration file of any bytes: it is loaded or refused, and everything that can be said about it is said. */
#include "config/config.h"
#include "fuzz.h"

static void show(const struct config *config, struct buffer *out)
{
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        buffer_clear(out);
        PROMISE(config_value_write(config, (enum config_setting)i, out) == 0);
        PROMISE(config_value_write_json(config, (enum config_setting)i, out) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const environment[] = {"HOST=localhost", "EMPTY=", NULL};
    static const uint8_t nothing[1];
    struct config_sources sources = {.file = "f.yaml", .environment = environment};
    struct config config = {0}, again = {0};
    struct problems problems;
    struct buffer out;
    enum config_setting changed[CONFIG_SETTING_COUNT];
    problems_init(&problems);
    buffer_init(&out, 1 << 24);
    int loaded = config_load_bytes(&config, &sources, size ? data : nothing, size, &problems);
    PROMISE(problems_write(&problems, &out) == 0);
    PROMISE((loaded == 0) == (problems.errors == 0)); /* what is refused is explained */
    if (loaded == 0) {
        show(&config, &out);
        PROMISE(config_load_bytes(&again, &sources, data, size, &problems) == 0);
        PROMISE(config_diff(&config, &again, changed) == 0);
    }
    config_fini(&config);
    config_fini(&again);
    problems_fini(&problems);
    buffer_fini(&out);
    return 0;
}
