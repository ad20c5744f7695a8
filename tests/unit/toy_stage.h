/* A stage that is easy to follow: topic "toy/KEY/SIDE", payload "STAMP ID KIND VALUE" with "-" for an unknown id.
 *
 * Sides a and b are required, c is optional. KIND is good, broken (its set is answered with an error) or bad (refused). Of other topics
 * below "toy", KEY/answer and KEY/second are its own results and are ignored; the rest is rejected. An answer is the text "STAMP ID a=VALUE
 * b=VALUE c=VALUE" with "-" for what is missing and "broken" for what is. With the value "silent" it is withheld, "lost" cannot be written,
 * with "double" two results are. With ids that disagree the answer's ID is both, as "ID|ID". */
#ifndef TESTS_TOY_STAGE_H
#define TESTS_TOY_STAGE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "pipeline/stage.h"

enum { TOY_A, TOY_B, TOY_C, TOY_SIDES };

struct toy {
    struct stage stage;
    atomic_int items; /* given out and not freed */
    atomic_int parsed;
    atomic_int collected;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool gate_closed;       /* parse() waits while it is */
    const char *gate_topic; /* only for topics that begin so; NULL: for all */
};

static inline int toy_scratch_create(struct stage *stage, void **scratch)
{
    (void)stage;
    *scratch = malloc(1);
    return *scratch ? 0 : ERR_NO_MEMORY;
}

static inline void toy_scratch_destroy(struct stage *stage, void *scratch)
{
    (void)stage;
    free(scratch);
}

static inline void toy_route(struct stage *stage, const char *topic, uint32_t length, struct stage_route *route,
                             struct stage_refusal *refusal)
{
    (void)stage;
    const char *slash = length > 4 && memcmp(topic, "toy/", 4) == 0 ? memchr(topic + 4, '/', length - 4) : NULL;
    size_t side_length = slash ? length - (size_t)(slash + 1 - topic) : 0;
    route->verdict = STAGE_IGNORE;
    if (!slash || side_length == strlen("answer"))
        return;
    if (side_length != 1 || slash[1] < 'a' || slash[1] > 'c') {
        route->verdict = STAGE_REJECT;
        refusal->reason = "unknown_topic";
        snprintf(refusal->error, sizeof refusal->error, "no such side");
        return;
    }
    route->verdict = STAGE_TAKE;
    route->key = topic + 4;
    route->key_length = (uint32_t)(slash - topic - 4);
    route->side = (uint8_t)(slash[1] - 'a');
}

static inline void toy_gate(struct toy *toy, bool closed)
{
    pthread_mutex_lock(&toy->lock);
    toy->gate_closed = closed;
    pthread_cond_broadcast(&toy->opened);
    pthread_mutex_unlock(&toy->lock);
}

static inline int toy_parse(struct stage *stage, void *scratch, const struct stage_route *route, const struct message *message,
                            struct stage_item *item, struct stage_refusal *refusal)
{
    struct toy *toy = (struct toy *)stage;
    (void)scratch;
    pthread_mutex_lock(&toy->lock);
    size_t gate_length = toy->gate_topic ? strlen(toy->gate_topic) : 0;
    bool gated = message->topic_length >= gate_length && (!gate_length || memcmp(message->topic, toy->gate_topic, gate_length) == 0);
    while (gated && toy->gate_closed)
        pthread_cond_wait(&toy->opened, &toy->lock);
    pthread_mutex_unlock(&toy->lock);
    atomic_fetch_add(&toy->parsed, 1);
    char text[256], stamp[32], id[32], kind[16], value[64];
    snprintf(text, sizeof text, "%.*s", (int)message->payload_length, (const char *)message->payload);
    if (sscanf(text, "%31s %31s %15s %63s", stamp, id, kind, value) != 4 || strcmp(kind, "bad") == 0) {
        refusal->reason = "not_json";
        snprintf(refusal->error, sizeof refusal->error, "cannot read it");
        return ERR_NOT_JSON;
    }
    *item = (struct stage_item){.side = route->side};
    snprintf(item->stamp, sizeof item->stamp, "%s", stamp);
    snprintf(item->id, sizeof item->id, "%s", strcmp(id, "-") ? id : "");
    item->broken = strcmp(kind, "broken") == 0;
    if (item->broken) {
        refusal->reason = "bad_value";
        snprintf(refusal->error, sizeof refusal->error, "broken");
    } else {
        item->data = strdup(value);
        item->held_bytes = 1000;
    }
    atomic_fetch_add(&toy->items, 1);
    return 0;
}

static inline void toy_item_free(struct stage *stage, struct stage_item *item)
{
    free(item->data);
    item->data = NULL;
    atomic_fetch_sub(&((struct toy *)stage)->items, 1);
}

static inline bool toy_near(struct stage *stage, const struct stage_item *a, const struct stage_item *b)
{
    (void)stage;
    return labs(atol(a->stamp) - atol(b->stamp)) <= 30;
}

static inline bool toy_same_content(struct stage *stage, const struct stage_item *a, const struct stage_item *b)
{
    (void)stage;
    return strcmp(a->data, b->data) == 0;
}

static inline void toy_complete(struct stage *stage, void *scratch, const char *key, uint32_t key_length,
                                const struct stage_item *const items[STAGE_SIDES_MAX], uint64_t now_ns, struct stage_output *output)
{
    (void)stage, (void)scratch, (void)now_ns;
    const char *texts[TOY_SIDES], *stamp = "", *id = "";
    char both[2 * STAGE_ID_MAX + 2];
    output->outcome = "answered";
    output->count = 1;
    for (unsigned side = 0; side < TOY_SIDES; side++) {
        texts[side] = !items[side] ? "-" : items[side]->broken ? "broken" : (const char *)items[side]->data;
        if (items[side]) {
            stamp = items[side]->stamp;
            if (*items[side]->id)
                id = items[side]->id;
            if (items[side]->broken)
                output->outcome = "error";
        }
    }
    if (items[TOY_A] && items[TOY_B] && *items[TOY_A]->id && *items[TOY_B]->id && strcmp(items[TOY_A]->id, items[TOY_B]->id) != 0) {
        snprintf(both, sizeof both, "%s|%s", items[TOY_A]->id, items[TOY_B]->id);
        id = both;
        output->outcome = "error";
    }
    output->withheld = strcmp(texts[TOY_A], "silent") == 0;
    if (strcmp(texts[TOY_A], "lost") == 0)
        output->error = ERR_LIMIT;
    if (strcmp(texts[TOY_A], "double") == 0)
        output->count = 2;
    buffer_printf(&output->topic[0], "toy/%.*s/answer", (int)key_length, key);
    buffer_printf(&output->payload[0], "%s %s a=%s b=%s c=%s", stamp, *id ? id : "-", texts[TOY_A], texts[TOY_B], texts[TOY_C]);
    buffer_printf(&output->topic[1], "toy/%.*s/second", (int)key_length, key);
    buffer_printf(&output->payload[1], "%s", stamp);
}

static inline bool toy_identify(struct stage *stage, void *scratch, const struct message *result, struct stage_answered *answered)
{
    (void)stage, (void)scratch;
    char text[256], c[64], end[] = "/answer", *id = answered->names[0].id;
    uint32_t end_length = (uint32_t)strlen(end);
    if (result->topic_length < 4 + end_length || memcmp(result->topic + result->topic_length - end_length, end, end_length) != 0)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)result->payload_length, (const char *)result->payload);
    if (sscanf(text, "%63s %63s %*s %*s c=%63s", answered->stamp, id, c) != 3)
        return false;
    if (strcmp(id, "-") == 0)
        id[0] = 0;
    answered->key = result->topic + 4;
    answered->key_length = result->topic_length - 4 - end_length;
    char *second = strchr(id, '|');
    unsigned side_c = strcmp(c, "-") ? 1u << TOY_C : 0u;
    answered->name_count = second ? 2 : 1;
    answered->names[0].sides = 1u << TOY_A | (second ? 0u : 1u << TOY_B) | side_c;
    if (second) {
        *second = 0;
        strcpy(answered->names[1].id, second + 1);
        answered->names[1].sides = 1u << TOY_B | side_c;
    }
    return true;
}

static inline void toy_collect(struct stage *stage, struct metrics_writer *writer)
{
    (void)writer;
    atomic_fetch_add(&((struct toy *)stage)->collected, 1);
}

static const char *const toy_outcomes[] = {"answered", "error", "never", NULL};
static const char *const toy_side_names[TOY_SIDES] = {"a", "b", "c"};

#define TOY_OPS(same)                                                                                                                      \
    {                                                                                                                                      \
        .name = "toy", .side_count = TOY_SIDES, .required = 1u << TOY_A | 1u << TOY_B, .side_names = toy_side_names,                       \
        .outcomes = toy_outcomes, .scratch_create = toy_scratch_create, .scratch_destroy = toy_scratch_destroy, .route = toy_route,        \
        .parse = toy_parse, .item_free = toy_item_free, .same_set = same, .same_content = toy_same_content, .complete = toy_complete,      \
        .identify = toy_identify, .collect = toy_collect                                                                                   \
    }
static const struct stage_ops toy_ops = TOY_OPS(NULL);
static const struct stage_ops toy_near_ops = TOY_OPS(toy_near);

static inline void toy_init(struct toy *toy, bool near)
{
    *toy = (struct toy){.stage = {near ? &toy_near_ops : &toy_ops}};
    pthread_mutex_init(&toy->lock, NULL);
    pthread_cond_init(&toy->opened, NULL);
}

static inline void toy_fini(struct toy *toy)
{
    pthread_cond_destroy(&toy->opened);
    pthread_mutex_destroy(&toy->lock);
}

#endif
