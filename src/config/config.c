/* Defaults, file, environment and command line into one struct config.
 *
 * A value is stored in one place (store), whichever way it came, so that all of them are checked alike. */
#include "config/config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/message.h"
#include "config/config_value.h"
#include "config/settings.h"
#include "config/yaml.h"

struct config_block {
    struct config_block *next;
    char bytes[];
};

struct loader {
    struct config *config;
    const char *file; /* kept by the config */
    const struct config_sources *sources;
    struct problems *problems;
    bool wrong[CONFIG_SETTING_COUNT]; /* has a mistake already: no use in looking at it again */
    bool no_memory;
};

#define MISTAKE(loader, place, ...) problems_add((loader)->problems, PROBLEM_ERROR, (place), __VA_ARGS__)

static void *block_create(struct config *config, size_t size)
{
    struct config_block *block = malloc(sizeof *block + size);
    if (!block)
        return NULL;
    block->next = config->blocks;
    config->blocks = block;
    return block->bytes;
}

static const char *keep_text(struct loader *loader, const char *text, size_t length)
{
    char *copy = block_create(loader->config, length + 1);
    if (!copy) {
        loader->no_memory = true;
        return NULL;
    }
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

/* ---- storing a value ---- */

static void store_scalar(struct loader *loader, enum config_setting setting, const union value *value, const char *text, size_t length)
{
    const struct value_type *type = &settings_rows[setting].type;
    void *field = config_field(loader->config, setting);
    const char *copy = type->kind == VALUE_TEXT ? keep_text(loader, text, length) : NULL;
    if (copy)
        *(const char **)field = copy;
    else
        value_store(type, value, field);
}

static void store_list(struct loader *loader, enum config_setting setting, const struct config_item *items, size_t count)
{
    const char **copies = block_create(loader->config, (count ? count : 1) * sizeof *copies);
    if (!copies) {
        loader->no_memory = true;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        copies[i] = keep_text(loader, items[i].text, items[i].length);
        if (!copies[i])
            return;
    }
    *(struct config_list *)config_field(loader->config, setting) = (struct config_list){copies, count};
}

/* Whether the item stands further to the front as well. */
static bool is_repeated(const struct config_item *items, size_t at)
{
    for (size_t i = 0; i < at; i++)
        if (items[i].length == items[at].length && memcmp(items[i].text, items[at].text, items[at].length) == 0)
            return true;
    return false;
}

/* Checks the items of a list and stores them. places[i] is where item i stands, `whole` the list. */
static bool store_items(struct loader *loader, enum config_setting setting, struct place whole, const struct config_item *items,
                        const struct place *places, size_t count)
{
    const struct settings_row *row = &settings_rows[setting];
    static const struct value_type item_type = {.kind = VALUE_TEXT, .form = VALUE_NOT_EMPTY};
    bool good = true;
    size_t least = row->initial[0] != 0; /* a list that is empty by itself may be emptied */
    if (count < least || count > CONFIG_LIST_MAX) {
        MISTAKE(loader, whole, "`%s`: expected %zu to %d items", row->path, least, CONFIG_LIST_MAX);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        union value unused;
        char message[VALUE_MESSAGE_MAX];
        if (value_parse(&item_type, items[i].text, items[i].length, &unused, message)) {
            MISTAKE(loader, places[i], "`%s`: %s", row->path, message);
            good = false;
        } else if (is_repeated(items, i)) {
            MISTAKE(loader, places[i], "`%s`: %s occurs twice", row->path, problem_quote(items[i].text, items[i].length).text);
            good = false;
        }
    }
    if (good)
        store_list(loader, setting, items, count);
    return good;
}

/* Checks `text` and stores it as the value of `setting`. Returns false when it was a mistake, which is reported. */
static bool store(struct loader *loader, enum config_setting setting, const char *text, size_t length, struct config_origin origin)
{
    const struct settings_row *row = &settings_rows[setting];
    bool good = true;
    if (row->type.kind == VALUE_LIST) {
        struct config_item items[CONFIG_LIST_MAX + 1];
        struct place places[CONFIG_LIST_MAX + 1];
        size_t count = config_list_split(text, length, items);
        for (size_t i = 0; i < count; i++)
            places[i] = origin.place;
        good = store_items(loader, setting, origin.place, items, places, count);
    } else {
        union value value;
        char message[VALUE_MESSAGE_MAX];
        good = value_parse(&row->type, text, length, &value, message) == 0;
        if (good)
            store_scalar(loader, setting, &value, text, length);
        else
            MISTAKE(loader, origin.place, "`%s`: %s", row->path, message);
    }
    loader->wrong[setting] |= !good;
    if (good)
        loader->config->origins[setting] = origin;
    return good;
}

/* A source that gives a setting again, under another of its names, is mistaken unless both say the same. `before` is the configuration
 * without the second value, which stands at `place` under `name`. */
static void compare_names(struct loader *loader, enum config_setting setting, const struct config *before, const char *name,
                          struct place place)
{
    const struct config *config = loader->config;
    const struct config_origin *first = &before->origins[setting];
    if (first->source != config->origins[setting].source || loader->wrong[setting] || config_values_equal(before, config, setting))
        return;
    char where[SETTINGS_PATH_MAX + 16];
    if (first->place.line)
        snprintf(where, sizeof where, "line %u", first->place.line);
    else
        snprintf(where, sizeof where, "%s", first->place.source);
    struct buffer was, is;
    buffer_init(&was, SIZE_MAX);
    buffer_init(&is, SIZE_MAX);
    if (config_value_write(before, setting, &was) || config_value_write(config, setting, &is))
        loader->no_memory = true;
    else
        MISTAKE(loader, place, "`%s` is %s here, but %s in %s, where it goes by its other name; keep one of them", name,
                problem_quote((const char *)is.data, is.length).text, problem_quote((const char *)was.data, was.length).text, where);
    buffer_fini(&was);
    buffer_fini(&is);
}

static void set_initial(struct loader *loader)
{
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const char *initial = settings_rows[i].initial;
        store(loader, (enum config_setting)i, initial, strlen(initial), (struct config_origin){.source = CONFIG_FROM_TABLE});
    }
}

/* ---- ${NAME:-default} ---- */

static bool is_name_character(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static const char *environment_get(const struct config_sources *sources, const char *name, size_t length)
{
    for (const char *const *entry = sources->environment; entry && *entry; entry++)
        if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=')
            return *entry + length + 1;
    return NULL;
}

/* Expands one "${...}" that starts at text. Returns how many bytes it took, 0 when it is wrong (reported). */
static size_t expand_one(struct loader *loader, struct place place, const char *text, size_t length, struct buffer *out)
{
    const char *end = memchr(text, '}', length);
    const char *name = text + 2;
    size_t name_length = 0;
    while (end && name + name_length < end && is_name_character(name[name_length]))
        name_length++;
    const char *rest = name + name_length;
    bool has_default = end && end - rest >= 2 && rest[0] == ':' && rest[1] == '-';
    if (!end || name_length == 0 || (rest != end && !has_default)) {
        MISTAKE(loader, place, "%s: expected ${NAME} or ${NAME:-default}; write $${ for a plain ${", problem_quote(text, length).text);
        return 0;
    }
    const char *value = environment_get(loader->sources, name, name_length);
    int error = 0;
    if (value && *value) {
        error = buffer_append_text(out, value);
    } else if (has_default) {
        error = buffer_append(out, rest + 2, (size_t)(end - rest - 2));
    } else if (!value) {
        MISTAKE(loader, place, "environment variable %s is not set, and there is no default (${NAME:-default})",
                problem_quote(name, name_length).text);
        return 0;
    }
    if (error) {
        MISTAKE(loader, place, "%s: the expanded text is longer than %d bytes", problem_quote(text, length).text, VALUE_TEXT_MAX);
        return 0;
    }
    return (size_t)(end - text) + 1;
}

/* Replaces every ${NAME:-default}. Returns false when one is wrong, which is reported. */
static bool expand(struct loader *loader, struct place place, const char *text, size_t length, struct buffer *out)
{
    for (size_t i = 0; i < length;) {
        bool escaped = length - i >= 3 && memcmp(text + i, "$${", 3) == 0;
        if (!escaped && length - i >= 2 && text[i] == '$' && text[i + 1] == '{') {
            size_t taken = expand_one(loader, place, text + i, length - i, out);
            if (taken == 0)
                return false;
            i += taken;
            continue;
        }
        if (escaped ? buffer_append(out, "${", 2) : buffer_append(out, text + i, 1)) {
            MISTAKE(loader, place, "the text is longer than %d bytes", VALUE_TEXT_MAX);
            return false;
        }
        i += escaped ? 3 : 1;
    }
    return true;
}

/* ---- the file ---- */

static struct place place_of_node(const struct loader *loader, const struct yaml_tree_node *node)
{
    return (struct place){loader->file, node->line, node->column};
}

static struct place place_of_key(const struct loader *loader, const struct yaml_tree_node *node)
{
    return (struct place){loader->file, node->key_line, node->key_column};
}

static const char *kind_text(const struct yaml_tree_node *node)
{
    return node->kind == YAML_TREE_MAPPING ? "a section" : node->kind == YAML_TREE_SEQUENCE ? "a list" : "a value";
}

static void read_list(struct loader *loader, enum config_setting setting, const struct yaml_tree_node *list, struct config_origin origin)
{
    struct config_item items[CONFIG_LIST_MAX + 1] = {0};
    struct place places[CONFIG_LIST_MAX + 1] = {0};
    struct buffer texts[CONFIG_LIST_MAX + 1];
    size_t count = 0;
    bool good = true;
    for (const struct yaml_tree_node *item = list->first; item && count <= CONFIG_LIST_MAX; item = item->next, count++) {
        places[count] = place_of_node(loader, item);
        buffer_init(&texts[count], VALUE_TEXT_MAX);
        if (item->kind == YAML_TREE_SCALAR) {
            good &= expand(loader, places[count], item->text, item->length, &texts[count]);
        } else {
            good = false;
            if (item->kind != YAML_TREE_REFUSED)
                MISTAKE(loader, places[count], "`%s`: expected a text, found %s", settings_rows[setting].path, kind_text(item));
        }
        items[count] = (struct config_item){texts[count].length ? (const char *)texts[count].data : "", texts[count].length};
    }
    good = good && store_items(loader, setting, origin.place, items, places, count);
    if (good)
        loader->config->origins[setting] = origin;
    loader->wrong[setting] |= !good;
    for (size_t i = 0; i < count; i++)
        buffer_fini(&texts[i]);
}

static void read_value(struct loader *loader, enum config_setting setting, const struct yaml_tree_node *node, struct config_origin origin)
{
    const struct settings_row *row = &settings_rows[setting];
    if (row->type.kind == VALUE_LIST && node->kind == YAML_TREE_SEQUENCE) {
        read_list(loader, setting, node, origin);
        return;
    }
    if (node->kind != YAML_TREE_SCALAR) {
        char expected[VALUE_MESSAGE_MAX];
        value_describe(&row->type, expected);
        if (node->kind != YAML_TREE_REFUSED)
            MISTAKE(loader, origin.place, "`%s`: expected %s, found %s", row->path, expected, kind_text(node));
        loader->wrong[setting] = true;
        return;
    }
    struct buffer text;
    buffer_init(&text, VALUE_TEXT_MAX);
    bool null = yaml_tree_is_null(node);
    if (null || expand(loader, origin.place, node->text, node->length, &text))
        store(loader, setting, text.length ? (const char *)text.data : "", text.length, origin);
    else
        loader->wrong[setting] = true;
    buffer_fini(&text);
}

/* `path` is the setting as the file spells it. */
static void read_setting(struct loader *loader, const char *path, enum config_setting setting, const struct yaml_tree_node *node)
{
    struct config before = *loader->config;
    read_value(loader, setting, node, (struct config_origin){CONFIG_FROM_FILE, place_of_node(loader, node)});
    compare_names(loader, setting, &before, path, place_of_key(loader, node));
}

static void read_section(struct loader *loader, const char *section, const struct yaml_tree_node *mapping);

static void report_unknown_key(struct loader *loader, const char *section, const char *path, const struct yaml_tree_node *node)
{
    char text[SETTINGS_PATH_MAX];
    struct problem_quoted shown = problem_quote(path, strlen(path));
    const char *meant = strchr(node->key, '.') ? NULL : settings_suggest_key(section, node->key, text);
    if (strchr(node->key, '.'))
        MISTAKE(loader, place_of_key(loader, node), "unknown key %s; a section and its keys stand in lines of their own, indented",
                shown.text);
    else if (meant)
        MISTAKE(loader, place_of_key(loader, node), "unknown key %s; did you mean `%s`?", shown.text, meant);
    else
        MISTAKE(loader, place_of_key(loader, node), "unknown key %s", shown.text);
}

static void read_child(struct loader *loader, const char *section, const struct yaml_tree_node *node)
{
    char path[SETTINGS_PATH_MAX + YAML_TREE_KEY_MAX + 2];
    snprintf(path, sizeof path, "%s%s%s", section, *section ? "." : "", node->key);
    struct settings_match match = {.kind = SETTINGS_UNKNOWN};
    if (!strchr(node->key, '.'))
        match = settings_find(path);
    switch (match.kind) {
    case SETTINGS_UNKNOWN:
        report_unknown_key(loader, section, path, node);
        return;
    case SETTINGS_SETTING:
        read_setting(loader, path, match.setting, node);
        return;
    case SETTINGS_IGNORED:
        problems_add(loader->problems, PROBLEM_NOTE, place_of_key(loader, node), "`%s` has no effect. %s", path, match.ignored->help);
        return;
    case SETTINGS_SECTION:
        if (node->kind == YAML_TREE_MAPPING)
            read_section(loader, path, node);
        else if (node->kind != YAML_TREE_REFUSED && !yaml_tree_is_null(node))
            MISTAKE(loader, place_of_node(loader, node), "`%s` is a section: expected keys below it, found %s", path, kind_text(node));
        return;
    }
}

static void read_section(struct loader *loader, const char *section, const struct yaml_tree_node *mapping)
{
    for (const struct yaml_tree_node *child = mapping->first; child; child = child->next)
        read_child(loader, section, child);
}

static void read_tree(struct loader *loader, const struct yaml_tree *tree)
{
    const struct yaml_tree_node *root = tree->root;
    if (!root || yaml_tree_is_null(root))
        MISTAKE(loader, ((struct place){loader->file, 1, 1}), "the file holds no settings; to use the defaults, name no file");
    else if (root->kind == YAML_TREE_MAPPING)
        read_section(loader, "", root);
    else if (root->kind != YAML_TREE_REFUSED)
        MISTAKE(loader, place_of_node(loader, root), "expected sections such as `bus:` and `mqtt:`, found %s", kind_text(root));
}

/* ---- environment and command line ---- */

/* Whether Kubernetes set the variable for a service whose name begins with "spindle": SPINDLE_SERVICE_HOST, SPINDLE_HTTP_SERVICE_PORT,
 * SPINDLE_HTTP_PORT=tcp://10.0.0.1:9090, SPINDLE_HTTP_PORT_9090_TCP_ADDR. They are no settings, whatever their names look like. */
static bool is_service_link(const char *name, const char *value)
{
    const char *port = strstr(name, "_PORT");
    if (strstr(name, "_SERVICE_HOST") || strstr(name, "_SERVICE_PORT"))
        return true;
    return port && (strncmp(value, "tcp://", 6) == 0 || strncmp(value, "udp://", 6) == 0 || strstr(port, "_TCP") || strstr(port, "_UDP"));
}

/* A name that was meant to be a setting's is a mistake, as an unknown key of the file is. Another one may be somebody else's. */
static void report_unknown_variable(struct loader *loader, const char *name, struct place place)
{
    static const char *const of_our_tests[] = {"SPINDLE_BINARY", "SPINDLE_SHARED"};
    char text[SETTINGS_PATH_MAX];
    for (size_t i = 0; i < sizeof of_our_tests / sizeof *of_our_tests; i++)
        if (strcmp(name, of_our_tests[i]) == 0)
            return;
    const char *meant = settings_suggest_variable(name, text);
    if (meant)
        MISTAKE(loader, place, "no setting has this name; did you mean %s?", meant);
    else if (settings_is_variable_like(name))
        MISTAKE(loader, place, "no setting has this name; docs/configuration.md lists them");
    else if (strncmp(name, "SPINDLE_", 8) == 0)
        problems_add(loader->problems, PROBLEM_WARNING, place, "no setting has this name");
}

/* One "SPINDLE_...=value". */
static void read_variable(struct loader *loader, const char *entry)
{
    char name[SETTINGS_PATH_MAX], source[SETTINGS_PATH_MAX + 16];
    size_t length = strcspn(entry, "=");
    if (!entry[length] || length >= sizeof name)
        return;
    memcpy(name, entry, length);
    name[length] = 0;
    snprintf(source, sizeof source, "environment %s", name);
    const char *value = entry + length + 1;
    enum config_setting setting;
    if (is_service_link(name, value))
        return;
    if (!settings_find_variable(name, &setting)) {
        report_unknown_variable(loader, name, (struct place){.source = source});
        return;
    }
    struct config_origin origin = {CONFIG_FROM_ENVIRONMENT, {.source = *value ? keep_text(loader, source, strlen(source)) : NULL}};
    if (!origin.place.source)
        return;
    struct config before = *loader->config;
    store(loader, setting, value, strlen(value), origin);
    compare_names(loader, setting, &before, settings_rows[setting].path, origin.place);
}

static void read_environment(struct loader *loader)
{
    for (const char *const *entry = loader->sources->environment; entry && *entry; entry++)
        read_variable(loader, *entry);
}

static void read_assignment(struct loader *loader, const struct config_assignment *assignment)
{
    struct place place = {.source = assignment->option};
    char path[SETTINGS_PATH_MAX];
    const char *value = assignment->text;
    size_t length = assignment->path ? strlen(assignment->path) : strcspn(assignment->text, "=");
    if (!assignment->path) {
        struct problem_quoted shown = problem_quote(assignment->text, strlen(assignment->text));
        if (!assignment->text[length] || length == 0) {
            MISTAKE(loader, place, "expected path=value, such as drilling.estimator=gradient, found %s", shown.text);
            return;
        }
        value = assignment->text + length + 1;
    }
    snprintf(path, sizeof path, "%.*s", (int)(length < sizeof path ? length : sizeof path - 1),
             assignment->path ? assignment->path : assignment->text);
    struct settings_match match = settings_find(path);
    struct problem_quoted shown = problem_quote(path, strlen(path));
    if (match.kind == SETTINGS_SETTING) {
        struct config_origin origin = {CONFIG_FROM_ARGUMENT, {.source = keep_text(loader, place.source, strlen(place.source))}};
        if (origin.place.source)
            store(loader, match.setting, value, strlen(value), origin);
    } else if (match.kind == SETTINGS_SECTION) {
        MISTAKE(loader, place, "%s is a section; set one of its keys", shown.text);
    } else if (match.kind == SETTINGS_IGNORED) {
        problems_add(loader->problems, PROBLEM_NOTE, place, "%s has no effect. %s", shown.text, match.ignored->help);
    } else {
        const char *meant = settings_suggest_path(path);
        if (meant)
            MISTAKE(loader, place, "unknown setting %s; did you mean `%s`?", shown.text, meant);
        else
            MISTAKE(loader, place, "unknown setting %s", shown.text);
    }
}

/* ---- what single values cannot show ---- */

static struct place place_of_setting(const struct loader *loader, enum config_setting setting)
{
    struct place place = loader->config->origins[setting].place;
    if (!place.source)
        place.source = loader->file;
    return place;
}

/* The later of two settings in the file, so that the message stands where the second one is. */
static enum config_setting later_of(const struct loader *loader, enum config_setting a, enum config_setting b)
{
    return loader->config->origins[a].source > loader->config->origins[b].source ||
                   (loader->config->origins[a].source == loader->config->origins[b].source &&
                    loader->config->origins[a].place.line > loader->config->origins[b].place.line)
               ? a
               : b;
}

static void check_ports(struct loader *loader)
{
    const struct config *config = loader->config;
    const struct {
        enum config_setting setting;
        bool enabled;
        uint32_t port;
    } ports[] = {
        {CONFIG_SETTING_bus_port, config->bus_tcp_enabled, config->bus_port},
        {CONFIG_SETTING_http_port, config->http_enabled, config->http_port},
        {CONFIG_SETTING_bus_tls_port, config->bus_tls_enabled, config->bus_tls_port},
        {CONFIG_SETTING_bus_websocket_port, config->bus_websocket_enabled, config->bus_websocket_port},
        {CONFIG_SETTING_bus_websocket_tls_port, config->bus_websocket_tls_enabled, config->bus_websocket_tls_port},
    };
    enum { COUNT = sizeof ports / sizeof *ports };
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = i + 1; j < COUNT; j++) {
            enum config_setting a = ports[i].setting, b = ports[j].setting;
            if (ports[i].enabled && ports[j].enabled && ports[i].port && ports[i].port == ports[j].port && !loader->wrong[a] &&
                !loader->wrong[b])
                MISTAKE(loader, place_of_setting(loader, later_of(loader, a, b)), "`%s` and `%s` are both %u", settings_rows[a].path,
                        settings_rows[b].path, ports[i].port);
        }
    }
}

/* What a client that reaches the bus by TLS, WebSocket or a Unix socket needs besides. */
static void check_transports(struct loader *loader)
{
    const struct config *config = loader->config;
    bool tls = config->bus_tls_enabled || config->bus_websocket_tls_enabled;
    enum config_setting enabled = config->bus_tls_enabled ? CONFIG_SETTING_bus_tls_enabled : CONFIG_SETTING_bus_websocket_tls_enabled;
    const char *mode = config->bus_unix_mode;
    if (tls && !*config->bus_tls_certificate)
        MISTAKE(loader, place_of_setting(loader, enabled), "`%s` needs `bus.tls.certificate`: the file of the server's certificate",
                settings_rows[enabled].path);
    if (tls && !*config->bus_tls_key)
        MISTAKE(loader, place_of_setting(loader, enabled), "`%s` needs `bus.tls.key`: the file of the certificate's private key",
                settings_rows[enabled].path);
    if (tls && config->bus_tls_client_certificate != CONFIG_CLIENT_CERTIFICATE_NONE && !*config->bus_tls_client_ca)
        MISTAKE(
            loader, place_of_setting(loader, CONFIG_SETTING_bus_tls_client_certificate),
            "`bus.tls.client_certificate` needs `bus.tls.client_ca`: the file of the certificates of those who sign client certificates");
    if (config->bus_websocket_path && *config->bus_websocket_path != '/')
        MISTAKE(loader, place_of_setting(loader, CONFIG_SETTING_bus_websocket_path),
                "`bus.websocket.path`: expected a path that begins with `/`, found %s",
                problem_quote(config->bus_websocket_path, strlen(config->bus_websocket_path)).text);
    if (!*mode || strspn(mode, "01234567") != strlen(mode) || strtoul(mode, NULL, 8) > 0777)
        MISTAKE(loader, place_of_setting(loader, CONFIG_SETTING_bus_unix_mode),
                "`bus.unix.mode`: expected permissions in octal, \"0660\" for example, found %s", problem_quote(mode, strlen(mode)).text);
    if (!config->bus_tcp_enabled && !tls && !config->bus_websocket_enabled && !*config->bus_unix_path)
        MISTAKE(loader, place_of_setting(loader, CONFIG_SETTING_bus_tcp_enabled),
                "`bus.tcp_enabled` is false, and there is no other way to connect; enable `bus.tls`, `bus.websocket` or `bus.unix`");
}

/* Five kinds of message lie below {root}/{toolbox}/{tool}; the suffix is what tells them apart. */
static void check_topics(struct loader *loader)
{
    static const enum config_setting suffixes[] = {CONFIG_SETTING_mqtt_listener_result, CONFIG_SETTING_mqtt_listener_trace,
                                                   CONFIG_SETTING_mqtt_listener_heads, CONFIG_SETTING_mqtt_estimation_keypoints,
                                                   CONFIG_SETTING_mqtt_estimation_depth_estimation};
    enum { COUNT = sizeof suffixes / sizeof *suffixes };
    for (size_t i = 0; i < COUNT; i++) {
        for (size_t j = i + 1; j < COUNT; j++) {
            const char *a = config_text(loader->config, suffixes[i]), *b = config_text(loader->config, suffixes[j]);
            if (strcmp(a, b) == 0 && !loader->wrong[suffixes[i]] && !loader->wrong[suffixes[j]])
                MISTAKE(loader, place_of_setting(loader, later_of(loader, suffixes[i], suffixes[j])),
                        "`%s` and `%s` are both %s; messages could not be told apart", settings_rows[suffixes[i]].path,
                        settings_rows[suffixes[j]].path, problem_quote(a, strlen(a)).text);
        }
    }
}

/* Below that level stand the topics of replays. */
static void check_root(struct loader *loader)
{
    enum config_setting root = CONFIG_SETTING_mqtt_listener_root;
    if (message_root_is_replay(loader->config->mqtt_listener_root) && !loader->wrong[root])
        MISTAKE(loader, place_of_setting(loader, root), "`mqtt.listener.root` cannot begin with `%s`: that is where replayed messages are",
                MESSAGE_REPLAY_LEVEL);
}

/* ---- settings without effect ---- */

/* One warning a feature, which names all its settings that were changed. */
static void remark_feature(struct loader *loader, enum config_effect effect, const char *text)
{
    struct buffer names;
    buffer_init(&names, SIZE_MAX);
    size_t count = 0;
    struct place place = {0};
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        if (settings_rows[i].effect != effect || config_is_initial(loader->config, (enum config_setting)i))
            continue;
        if (count == 0)
            place = place_of_setting(loader, (enum config_setting)i);
        if (buffer_printf(&names, "%s`%s`", count++ ? ", " : "", settings_rows[i].path))
            loader->no_memory = true;
    }
    if (count && !loader->no_memory)
        problems_add(loader->problems, PROBLEM_WARNING, place, "%.*s %s no effect: %s", (int)names.length, (const char *)names.data,
                     count > 1 ? "have" : "has", text);
    buffer_fini(&names);
}

static void remark_effects(struct loader *loader)
{
    for (int i = 0; i < CONFIG_SETTING_COUNT; i++) {
        const struct settings_row *row = &settings_rows[i];
        if (row->effect == CONFIG_EFFECT_UNUSED && loader->config->origins[i].source != CONFIG_FROM_TABLE)
            problems_add(loader->problems, PROBLEM_NOTE, place_of_setting(loader, (enum config_setting)i), "`%s` has no effect. %s",
                         row->path, row->help);
    }
    for (int effect = 0; effect < CONFIG_EFFECT_COUNT; effect++) {
        const char *text = settings_effect_feature((enum config_effect)effect);
        if (text)
            remark_feature(loader, (enum config_effect)effect, text);
    }
}

/* ---- public ---- */

/* `mistakes` is how many there were before the file was opened. `bytes` is NULL when there is no file to read. */
static int load(struct config *config, const struct config_sources *sources, const uint8_t *bytes, size_t length, size_t mistakes,
                struct problems *problems)
{
    struct config built = {0};
    struct loader loader = {.config = &built, .sources = sources, .problems = problems};
    int error = 0;
    loader.file = sources->file ? keep_text(&loader, sources->file, strlen(sources->file)) : NULL;
    set_initial(&loader);
    if (bytes && !loader.no_memory) {
        struct yaml_tree tree;
        error = yaml_tree_read(&tree, sources->file, bytes, length, problems);
        if (!error) {
            read_tree(&loader, &tree);
            yaml_tree_fini(&tree);
        }
    }
    if (!loader.no_memory) {
        read_environment(&loader);
        for (size_t i = 0; i < sources->assignment_count; i++)
            read_assignment(&loader, &sources->assignments[i]);
        check_ports(&loader);
        check_transports(&loader);
        check_topics(&loader);
        check_root(&loader);
        remark_effects(&loader);
        problems_sort(problems);
    }
    if (loader.no_memory || error == ERR_NO_MEMORY)
        error = ERR_NO_MEMORY;
    else if (problems->errors > mistakes)
        error = ERR_CONFIG;
    if (error)
        config_fini(&built);
    else
        *config = built;
    return error;
}

int config_load_bytes(struct config *config, const struct config_sources *sources, const uint8_t *bytes, size_t length,
                      struct problems *problems)
{
    return load(config, sources, bytes, length, problems->errors, problems);
}

/* Reads a file whole, up to one byte more than a configuration may have. */
static int read_file(const char *path, struct buffer *content, struct problems *problems)
{
    FILE *file = fopen(path, "rbe");
    int error = file ? buffer_reserve(content, YAML_TREE_BYTES_MAX + 1) : 0;
    if (file && !error)
        content->length = fread(content->data, 1, YAML_TREE_BYTES_MAX + 1, file);
    if (!file || ferror(file)) {
        problems_add(problems, PROBLEM_ERROR, (struct place){.source = path}, "cannot be read: %s", strerror(errno));
        error = ERR_CONFIG;
    }
    if (file)
        fclose(file);
    return error;
}

int config_load(struct config *config, const struct config_sources *sources, struct problems *problems)
{
    struct buffer content;
    buffer_init(&content, YAML_TREE_BYTES_MAX + 1);
    size_t mistakes = problems->errors;
    int error = sources->file ? read_file(sources->file, &content, problems) : 0;
    const uint8_t *bytes = sources->file && !error ? content.data : NULL;
    if (error != ERR_NO_MEMORY)
        error = load(config, sources, bytes, content.length, mistakes, problems);
    buffer_fini(&content);
    return error;
}

void config_fini(struct config *config)
{
    while (config->blocks) {
        struct config_block *block = config->blocks;
        config->blocks = block->next;
        free(block);
    }
    *config = (struct config){0};
}
