/* `spindle check`: a configuration is loaded as for `spindle run`, and what was found is printed. */
#include "cli/check.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/terminal.h"
#include "cli/command.h"
#include "cli/server_access.h"
#include "cli/server_ingest.h"
#include "cli/server_transports.h"
#include "config/settings.h"

enum { CHECK_BYTES_MAX = 4 << 20 };

static int json_text(struct buffer *out, const char *name, const char *text)
{
    int error = buffer_printf(out, "\"%s\": ", name);
    if (!error)
        error = text ? buffer_append_json_string(out, text, strlen(text), 0) : buffer_append_text(out, "null");
    return error;
}

static int json_place(struct buffer *out, struct place place)
{
    int error = json_text(out, "source", place.source);
    if (!error && place.line)
        error = buffer_printf(out, ", \"line\": %u, \"column\": %u", place.line, place.column);
    return error;
}

static int json_problem(struct buffer *out, const struct problem *problem)
{
    int error = buffer_printf(out, "{\"severity\": \"%s\", ", problem_severity_word(problem->severity));
    error = error ? error : json_place(out, problem->place);
    error = error ? error : buffer_append_text(out, ", ");
    error = error ? error : json_text(out, "text", problem->text);
    return error ? error : buffer_append_text(out, "}");
}

static int json_setting(struct buffer *out, const struct config *config, enum config_setting setting)
{
    int error = buffer_printf(out, "{\"path\": \"%s\", \"value\": ", config_setting_path(setting));
    error = error ? error : config_value_write_json(config, setting, out);
    error = error ? error : buffer_append_text(out, ", ");
    error = error ? error : json_place(out, config->origins[setting].place);
    return error ? error : buffer_append_text(out, "}");
}

/* `config` is NULL when there was a mistake. */
static int write_json(struct buffer *out, const struct config_sources *sources, const struct config *config,
                      const struct problems *problems)
{
    int error = buffer_append_text(out, "{");
    error = error ? error : json_text(out, "file", sources->file);
    error = error ? error : buffer_printf(out, ", \"ok\": %s, \"problems\": [", config ? "true" : "false");
    for (size_t i = 0; i < problems->count && !error; i++) {
        error = i ? buffer_append_text(out, ", ") : 0;
        error = error ? error : json_problem(out, &problems->items[i]);
    }
    error = error ? error : buffer_printf(out, "], \"left_out\": %zu, \"settings\": [", problems->left_out);
    bool first = true;
    for (int i = 0; i < CONFIG_SETTING_COUNT && config && !error; i++) {
        if (config_is_initial(config, (enum config_setting)i))
            continue;
        error = first ? 0 : buffer_append_text(out, ", ");
        error = error ? error : json_setting(out, config, (enum config_setting)i);
        first = false;
    }
    return error ? error : buffer_append_text(out, "]}\n");
}

/* "FILE: ok", then what differs from the defaults. */
static int write_text(struct buffer *out, const struct config_sources *sources, const struct config *config)
{
    int error = buffer_printf(out, "%s: %sok%s\n", sources->file ? sources->file : "defaults",
                              terminal_style(STDOUT_FILENO, TERMINAL_GREEN), terminal_style(STDOUT_FILENO, TERMINAL_PLAIN));
    for (int i = 0; i < CONFIG_SETTING_COUNT && !error; i++) {
        const struct place *place = &config->origins[i].place;
        if (config_is_initial(config, (enum config_setting)i))
            continue;
        error = buffer_printf(out, "  %s = ", settings_rows[i].path);
        error = error ? error : config_value_write(config, (enum config_setting)i, out);
        error = error ? error : buffer_printf(out, "  (%s", place->source);
        if (place->line && !error)
            error = buffer_printf(out, ":%u", place->line);
        error = error ? error : buffer_append_text(out, ")\n");
    }
    return error;
}

int check_configuration(const struct config_sources *sources, bool json)
{
    struct config config = {0};
    struct problems problems;
    struct buffer out;
    problems_init(&problems);
    buffer_init(&out, CHECK_BYTES_MAX);
    int loaded = config_load(&config, sources, &problems);
    if (!loaded)
        loaded = server_access_check(&config, &problems);
    if (!loaded)
        server_transports_check(&config, &problems);
    if (!loaded)
        server_ingest_check(&config, &problems);
    if (!loaded && problems.errors)
        loaded = ERR_CONFIG;
    const struct config *good = loaded ? NULL : &config;
    int error = loaded == ERR_NO_MEMORY ? loaded : 0;
    if (!error && json)
        error = write_json(&out, sources, good, &problems);
    else if (!error && good)
        error = write_text(&out, sources, good);
    if (!error && !json)
        problems_print(&problems, stdout);
    if (out.length)
        fwrite(out.data, 1, out.length, stdout);
    if (error)
        fprintf(stderr, "spindle check: %s\n", error_text(error));
    buffer_fini(&out);
    problems_fini(&problems);
    config_fini(&config);
    return command_finish_output("spindle check", error ? COMMAND_FAILED : loaded ? COMMAND_USAGE : COMMAND_OK);
}

int command_check(const struct check_arguments *arguments)
{
    struct config_sources sources = {arguments->config, (const char *const *)environ, arguments->assignments, arguments->assignment_count};
    return check_configuration(&sources, arguments->json);
}
