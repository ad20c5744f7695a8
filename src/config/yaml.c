/* libyaml's events turned into a tree. The only file that includes yaml.h of libyaml.
 *
 * libyaml is asked for events instead of its own document: events carry marks for keys as well as values, and the limits here apply
 * before memory is spent. */
#include "config/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/error.h"
#include "base/text.h"

struct level {
    struct yaml_tree_node *node;
    bool key_given;                   /* in a mapping: the next node is a value */
    const struct yaml_tree_node *key; /* NULL when it was refused: its value is read and forgotten */
};

struct builder {
    struct yaml_tree *tree;
    struct problems *problems;
    const char *source;
    const char *bytes;
    size_t length;
    unsigned documents;
    unsigned depth;
    struct level levels[YAML_TREE_DEPTH_MAX];
};

static struct place place_of(const struct builder *builder, unsigned line, unsigned column)
{
    return (struct place){builder->source, line, column};
}

static struct place place_of_mark(const struct builder *builder, yaml_mark_t mark)
{
    return place_of(builder, (unsigned)mark.line + 1, (unsigned)mark.column + 1);
}

#define REFUSE(builder, mark, ...) problems_add((builder)->problems, PROBLEM_ERROR, place_of_mark((builder), (mark)), __VA_ARGS__)

/* Line and column (in characters) of a byte. */
static struct place place_of_byte(const struct builder *builder, size_t offset)
{
    unsigned line = 1, column = 1;
    for (size_t i = 0; i < offset && i < builder->length; i++) {
        unsigned char c = (unsigned char)builder->bytes[i];
        if (c == '\n') {
            line++;
            column = 1;
        } else if ((c & 0xc0) != 0x80 && c != '\r') {
            column++;
        }
    }
    return place_of(builder, line, column);
}

/* ---- the tree ---- */

static struct yaml_tree_node *node_create(struct builder *builder, enum yaml_tree_kind kind, yaml_mark_t mark, const char *text,
                                          size_t length)
{
    struct yaml_tree_node *node = calloc(1, sizeof *node + length + 1);
    if (!node)
        return NULL;
    if (length)
        memcpy(node + 1, text, length);
    node->kind = kind;
    node->line = (unsigned)mark.line + 1;
    node->column = (unsigned)mark.column + 1;
    node->text = (const char *)(node + 1);
    node->length = length;
    node->older = builder->tree->newest;
    builder->tree->newest = node;
    builder->tree->node_count++;
    return node;
}

static const struct yaml_tree_node *find_child(const struct yaml_tree_node *mapping, const char *key)
{
    for (const struct yaml_tree_node *child = mapping->first; child; child = child->next)
        if (strcmp(child->key, key) == 0)
            return child;
    return NULL;
}

static void link_child(struct yaml_tree_node *parent, struct yaml_tree_node *child)
{
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
}

/* Whether a node can be the key of `level`; reports why not. */
static bool accept_key(struct builder *builder, const struct level *level, const struct yaml_tree_node *node)
{
    struct place place = place_of(builder, node->line, node->column);
    if (node->kind == YAML_TREE_REFUSED)
        return false;
    if (node->kind != YAML_TREE_SCALAR || (node->length == 0 && !node->quoted)) {
        problems_add(builder->problems, PROBLEM_ERROR, place, "a key must be a word");
        return false;
    }
    if (node->length > YAML_TREE_KEY_MAX || memchr(node->text, 0, node->length)) {
        problems_add(builder->problems, PROBLEM_ERROR, place, "key %s is %s", problem_quote(node->text, node->length).text,
                     node->length > YAML_TREE_KEY_MAX ? "too long" : "no text");
        return false;
    }
    if (!node->quoted && strcmp(node->text, "<<") == 0) {
        problems_add(builder->problems, PROBLEM_ERROR, place, "merge keys (`<<`) are not supported; write the settings out");
        return false;
    }
    const struct yaml_tree_node *first = find_child(level->node, node->text);
    if (first) {
        problems_add(builder->problems, PROBLEM_ERROR, place, "duplicate key %s; it stands first in line %u",
                     problem_quote(node->text, node->length).text, first->key_line);
        return false;
    }
    return true;
}

/* Puts a node where the parser is: root, item, key or value. */
static void attach(struct builder *builder, struct yaml_tree_node *node)
{
    if (builder->depth == 0) {
        if (builder->documents == 1)
            builder->tree->root = node;
        return;
    }
    struct level *level = &builder->levels[builder->depth - 1];
    if (level->node->kind == YAML_TREE_SEQUENCE) {
        link_child(level->node, node);
    } else if (!level->key_given) {
        level->key = accept_key(builder, level, node) ? node : NULL;
        level->key_given = true;
    } else {
        if (level->key) {
            node->key = level->key->text;
            node->key_line = level->key->line;
            node->key_column = level->key->column;
            link_child(level->node, node);
        }
        level->key_given = false;
        level->key = NULL;
    }
}

/* ---- events ---- */

static int take_node(struct builder *builder, enum yaml_tree_kind kind, yaml_mark_t mark, const char *text, size_t length, bool quoted)
{
    if (builder->tree->node_count >= YAML_TREE_NODES_MAX) {
        REFUSE(builder, mark, "the file holds more than %d keys and values", YAML_TREE_NODES_MAX);
        return ERR_CONFIG;
    }
    struct yaml_tree_node *node = node_create(builder, kind, mark, text, length);
    if (!node)
        return ERR_NO_MEMORY;
    node->quoted = quoted;
    attach(builder, node);
    return 0;
}

static int take_collection(struct builder *builder, enum yaml_tree_kind kind, yaml_mark_t mark)
{
    if (builder->depth >= YAML_TREE_DEPTH_MAX) {
        REFUSE(builder, mark, "nested more than %d levels deep", YAML_TREE_DEPTH_MAX);
        return ERR_CONFIG;
    }
    int error = take_node(builder, kind, mark, NULL, 0, false);
    if (!error)
        builder->levels[builder->depth++] = (struct level){.node = builder->tree->newest};
    return error;
}

static void refuse_extras(struct builder *builder, yaml_mark_t mark, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor)
        REFUSE(builder, mark, "anchors (%s) are not supported; write the value out where it is needed",
               problem_quote((const char *)anchor, strlen((const char *)anchor)).text);
    if (tag)
        REFUSE(builder, mark, "tags (%s) are not supported; a setting has its own type",
               problem_quote((const char *)tag, strlen((const char *)tag)).text);
}

static int take_event(struct builder *builder, const yaml_event_t *event)
{
    yaml_mark_t mark = event->start_mark;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++builder->documents == 2)
            REFUSE(builder, mark, "a second document begins here; a configuration is one document");
        return 0;
    case YAML_SCALAR_EVENT:
        refuse_extras(builder, mark, event->data.scalar.anchor, event->data.scalar.tag);
        return take_node(builder, YAML_TREE_SCALAR, mark, (const char *)event->data.scalar.value, event->data.scalar.length,
                         event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE);
    case YAML_ALIAS_EVENT:
        REFUSE(builder, mark, "aliases (%s) are not supported; write the value out",
               problem_quote((const char *)event->data.alias.anchor, strlen((const char *)event->data.alias.anchor)).text);
        return take_node(builder, YAML_TREE_REFUSED, mark, NULL, 0, false);
    case YAML_MAPPING_START_EVENT:
        refuse_extras(builder, mark, event->data.mapping_start.anchor, event->data.mapping_start.tag);
        return take_collection(builder, YAML_TREE_MAPPING, mark);
    case YAML_SEQUENCE_START_EVENT:
        refuse_extras(builder, mark, event->data.sequence_start.anchor, event->data.sequence_start.tag);
        return take_collection(builder, YAML_TREE_SEQUENCE, mark);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        builder->depth--;
        return 0;
    default:
        return 0;
    }
}

/* ---- what libyaml has to complain about ---- */

/* The byte at a mark, 0 beyond the end. A mark counts characters from the start of the text. */
static char byte_at(const struct builder *builder, yaml_mark_t mark)
{
    size_t i = 0;
    for (size_t characters = 0; i < builder->length; i++) {
        if (((unsigned char)builder->bytes[i] & 0xc0) != 0x80 && characters++ == mark.index)
            return builder->bytes[i];
    }
    return 0;
}

static void report_parser_error(struct builder *builder, const yaml_parser_t *parser)
{
    const char *problem = parser->problem ? parser->problem : "it cannot be read";
    if (parser->error == YAML_READER_ERROR) {
        struct place place = place_of_byte(builder, parser->problem_offset);
        problems_add(builder->problems, PROBLEM_ERROR, place, "not YAML: %s (character 0x%02x)", problem, (unsigned)parser->problem_value);
        return;
    }
    yaml_mark_t mark = parser->problem_mark;
    char c = byte_at(builder, mark);
    if (c == '\t')
        REFUSE(builder, mark, "not YAML: a tab stands here; indent with spaces");
    else if (c && strstr(problem, "cannot start any token"))
        REFUSE(builder, mark, "not YAML: a value cannot start with `%c`; put it in quotes", c);
    else if (strstr(problem, "mapping values are not allowed"))
        REFUSE(builder, mark, "not YAML: a `:` is not expected here; put the value in quotes, or look at the indentation");
    else if (parser->context && strstr(problem, "could not find expected ':'"))
        REFUSE(builder, parser->context_mark, "not YAML: a `:` is missing after this key");
    else if (parser->context && parser->context_mark.line != mark.line)
        REFUSE(builder, mark, "not YAML: %s (%s that begins in line %u)", problem, parser->context,
               (unsigned)parser->context_mark.line + 1);
    else if (parser->context)
        REFUSE(builder, mark, "not YAML: %s (%s)", problem, parser->context);
    else
        REFUSE(builder, mark, "not YAML: %s", problem);
}

static int read_events(struct builder *builder, yaml_parser_t *parser)
{
    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event)) {
            if (parser->error == YAML_MEMORY_ERROR)
                return ERR_NO_MEMORY;
            report_parser_error(builder, parser);
            return ERR_CONFIG;
        }
        bool end = event.type == YAML_STREAM_END_EVENT;
        int error = take_event(builder, &event);
        yaml_event_delete(&event);
        if (error || end)
            return error;
    }
}

/* Size and encoding; a byte order mark is passed over. */
static int check_bytes(struct builder *builder)
{
    if (builder->length > YAML_TREE_BYTES_MAX) {
        problems_add(builder->problems, PROBLEM_ERROR, place_of(builder, 0, 0), "larger than %d bytes; this is no configuration",
                     YAML_TREE_BYTES_MAX);
        return ERR_CONFIG;
    }
    if (builder->length >= 3 && memcmp(builder->bytes, "\xef\xbb\xbf", 3) == 0) {
        builder->bytes += 3;
        builder->length -= 3;
    }
    for (size_t i = 0; i < builder->length;) {
        uint32_t code_point;
        size_t size = text_utf8_decode(builder->bytes + i, builder->length - i, &code_point);
        if (size == 0) {
            problems_add(builder->problems, PROBLEM_ERROR, place_of_byte(builder, i), "not UTF-8 (byte 0x%02x); save the file as UTF-8",
                         (unsigned)(unsigned char)builder->bytes[i]);
            return ERR_CONFIG;
        }
        i += size;
    }
    return 0;
}

int yaml_tree_read(struct yaml_tree *tree, const char *source, const uint8_t *bytes, size_t length, struct problems *problems)
{
    struct yaml_tree built = {0};
    struct builder builder = {.tree = &built, .problems = problems, .source = source, .bytes = (const char *)bytes, .length = length};
    int error = check_bytes(&builder);
    if (error)
        return error;
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return ERR_NO_MEMORY;
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)builder.bytes, builder.length);
    error = read_events(&builder, &parser);
    yaml_parser_delete(&parser);
    if (error)
        yaml_tree_fini(&built);
    else
        *tree = built;
    return error;
}

void yaml_tree_fini(struct yaml_tree *tree)
{
    while (tree->newest) {
        struct yaml_tree_node *node = tree->newest;
        tree->newest = node->older;
        free(node);
    }
    *tree = (struct yaml_tree){0};
}

bool yaml_tree_is_null(const struct yaml_tree_node *node)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (node->kind != YAML_TREE_SCALAR || node->quoted)
        return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(node->text, words[i]) == 0 && node->length == strlen(words[i]))
            return true;
    return false;
}
