/* Clients with a persistent session: how they come and go, and what they subscribe to and publish. */
#include "bus/persistent_parts.h"
#include "bus/shared.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "mqtt/topic.h"

/* ---- the bus's ---- */

void persistent_wake(struct bus *bus)
{
    for (unsigned i = 0; i < bus->options.loop_count; i++)
        if (atomic_load(&bus->loops[i].awaits) && !atomic_load(&bus->loops[i].deaf))
            uv_async_send(&bus->loops[i].wake);
}

static void on_durable(void *context)
{
    persistent_wake(context);
}

/* On the follower's thread. `handed`: what is known besides; it is filled up. */
static bool send_to(struct bus *bus, struct loop *to, const struct follower_delivery *delivery, struct persistent_handed *handed)
{
    const struct message *record = delivery->message;
    struct buffer *properties = &bus->follower_properties;
    bool ours = follower_contents[delivery->content] == QUEUE_CONTENT_RESULTS && bus->options.result_properties;
    struct mqtt_publish publish = {.qos = record->flags & MESSAGE_QOS_MASK,
                                   .retain = record->flags & MESSAGE_RETAIN,
                                   .topic = {(const uint8_t *)record->topic, record->topic_length},
                                   .payload = {record->payload, record->payload_length},
                                   .properties_raw = {record->properties, record->properties_length}};
    buffer_clear(properties);
    if (ours) {
        bool known = bus->options.result_properties(record, properties) == 0;
        publish.properties_raw = (struct mqtt_slice){properties->data, known ? (uint32_t)properties->length : 0};
    }
    publish.has_message_expiry =
        mqtt_properties_expiry(publish.properties_raw, &publish.message_expiry_interval, &publish.message_expiry_at);
    handed->offset = record->offset;
    handed->time_ns = record->time_ns;
    handed->origin_session = delivery->origin_session;
    handed->bytes = (uint64_t)record->topic_length + record->properties_length + record->payload_length;
    handed->content = delivery->content;
    handed->again = delivery->again;
    struct router_match match = {.subscribers = delivery->targets,
                                 .count = delivery->target_count,
                                 .identifiers = delivery->identifiers,
                                 .identifier_count = delivery->identifier_count};
    return mail_hand(to, &publish, &match, handed) == 0;
}

static bool is_full(const struct bus *bus, const struct loop *loop)
{
    return atomic_load_explicit(&loop->mail_bytes, memory_order_relaxed) > bus->options.mail_soft_max;
}

static bool hand_to_member(void *context, const struct follower_delivery *delivery, const struct router_subscription *how, uint64_t member,
                           struct group_owed *owed)
{
    struct bus *bus = context;
    if (is_full(bus, &bus->loops[how->loop]))
        return false; /* by what other groups of the member have got of this message */
    struct follower_delivery one = *delivery;
    one.targets = how;
    one.target_count = 1;
    one.identifier_count = 0;
    return send_to(bus, &bus->loops[how->loop], &one, &(struct persistent_handed){.member = member, .owed = owed});
}

/* A group's members may be on any loop. */
static bool hand(void *context, const struct follower_delivery *delivery)
{
    struct bus *bus = context;
    unsigned loop = delivery->targets[0].loop;
    if (loop != GROUPS_LOOP)
        return !is_full(bus, &bus->loops[loop]) && send_to(bus, &bus->loops[loop], delivery, &(struct persistent_handed){0});
    for (unsigned i = 0; i < bus->options.loop_count; i++)
        if (is_full(bus, &bus->loops[i]))
            return false;
    groups_deliver(bus->groups, delivery);
    return true;
}

/* A subscription for all members: nothing with QoS 1 or 2 is live for them. */
static int mark_group(void *context, const char *filter, size_t length, bool there)
{
    struct bus *bus = context;
    struct router_subscription mark = {.loop = GROUPS_LOOP, .options = ROUTER_FROM_JOURNAL};
    int error = there ? router_subscribe(bus->router, filter, length, &mark) : 0;
    if (!there)
        router_unsubscribe(bus->router, filter, length, &mark);
    if (error < 0)
        DIAG_LIMITED(DIAGNOSTICS_ERROR, "bus", "what comes by %.*s cannot be kept for its members: %s", (int)length, filter,
                     error_text(error));
    return error < 0 ? error : 0;
}

int persistent_start(struct bus *bus)
{
    const struct bus_options *options = &bus->options;
    if (!options->session_expiry_max_s)
        return 0;
    struct sessions_options sessions = {.sessions_max = options->sessions_max,
                                        .expiry_max_s = options->session_expiry_max_s,
                                        .bytes_max = options->sessions_size_max,
                                        .queue = options->queue,
                                        .journal = options->journal,
                                        .stream = options->sessions,
                                        .notify = on_durable,
                                        .group = mark_group,
                                        .context = bus};
    int error = sessions_open(&sessions, &bus->sessions);
    if (!error)
        error = groups_create(&(struct groups_options){.sessions = bus->sessions, .hand = hand_to_member, .context = bus}, &bus->groups);
    if (error)
        diagnostics(DIAGNOSTICS_ERROR, "bus", "the sessions of clients cannot be taken up again: %s", error_text(error));
    return error;
}

int persistent_follow(struct bus *bus)
{
    buffer_init(&bus->follower_properties, MQTT_REMAINING_LENGTH_MAX);
    if (!bus->sessions)
        return 0;
    int error = follower_start(&bus->follower, &(struct follower_options){.queue = bus->options.queue, .deliver = hand, .context = bus});
    if (!error) {
        sessions_follow(bus->sessions, bus->follower);
        groups_follow(bus->groups, bus->follower);
    }
    return error;
}

void persistent_unfollow(struct bus *bus)
{
    if (bus->groups)
        groups_follow(bus->groups, NULL);
    if (bus->sessions)
        sessions_follow(bus->sessions, NULL);
    follower_stop(bus->follower);
    bus->follower = NULL;
    buffer_fini(&bus->follower_properties);
}

void persistent_stop(struct bus *bus)
{
    groups_destroy(bus->groups);
    bus->groups = NULL;
    sessions_close(bus->sessions);
    bus->sessions = NULL;
}

/* ---- the loop's ---- */

void persistent_noted(struct loop *loop)
{
    loop->notes = loop->needs_submit = true;
}

void persistent_await(struct loop *loop)
{
    atomic_store(&loop->awaits, true);
}

bool persistent_sweep(struct loop *loop)
{
    struct sessions_status status;
    groups_check(loop->bus->groups);
    sessions_status(loop->bus->sessions, &status);
    sessions_sweep(loop->bus->sessions, clock_wall_ns()); /* sends off what it notes */
    return status.sessions || status.groups;
}

void persistent_durable(struct loop *loop)
{
    struct connection *connection, *next;
    uint64_t durable = sessions_durable(loop->bus->sessions);
    DL_FOREACH_SAFE2(loop->holding, connection, next, persistent->holding_next)
    persistent_let_go(connection, durable);
    loop_resume(loop, PAUSE_SESSION, 0);
    if (!loop->holding && !loop->paused[PAUSE_SESSION])
        atomic_store(&loop->awaits, false);
}

/* ---- coming ---- */

uint32_t persistent_expiry_s(const struct connection *connection)
{
    uint32_t most = connection->loop->bus->options.session_expiry_max_s, wanted = connection->session.session_expiry_interval_s;
    return wanted < most ? wanted : most;
}

static int find_or_create(struct connection *connection, const struct mqtt_connect *connect, struct session **session, bool *present)
{
    struct loop *loop = connection->loop;
    struct sessions *sessions = loop->bus->sessions;
    const char *id = connection->client->id, *user = connection->client->user;
    struct session_owner owner = {.loop = loop->index, .slot = connection->slot, .generation = connection->generation}, other = owner;
    switch (sessions_attach(sessions, id, strlen(id), user, connect->clean_start, loop_wall_ns(loop), &other, session)) {
    case SESSIONS_ATTACHED:
        *present = true;
        return 0;
    case SESSIONS_NONE:
        persistent_noted(loop); /* one may have ended */
        *session = NULL;
        if (!persistent_expiry_s(connection))
            return 0;
        return door_begins_session(connection, sessions_of(sessions, user))
                   ? sessions_create(sessions, id, strlen(id), user, &owner, session)
                   : ERR_LIMIT;
    case SESSIONS_IN_USE:
    case SESSIONS_LEAVING:
        return ERR_BUSY; /* clients_claim has told its owner to let go of it */
    case SESSIONS_FOREIGN:
        return ERR_CLIENT_ID;
    }
    return ERR_CLIENT_ID;
}

/* ---- what the session holds ---- */

static int load_subscription(void *context, const struct session_subscription *subscription)
{
    struct persistent *persistent = context;
    struct persistent_filter head = {.how = subscription->how, .from = subscription->from, .length = subscription->length};
    int error = buffer_append(&persistent->filters, &head, sizeof head);
    return error ? error : buffer_append(&persistent->filters, subscription->filter, subscription->length);
}

static int load_sent(void *context, const struct session_sent *sent)
{
    struct persistent *persistent = context;
    bool again = sent->state == SESSION_SENT;
    if (sent->shared) { /* the follower brings it only when it is asked for */
        persistent->shared = true;
        return persistent_put_sent(persistent, sent, again, true);
    }
    if (sent->content == SESSIONS_COPIED)
        return persistent_put_sent(persistent, sent, again, true);
    struct persistent_known *known = realloc(persistent->known, (persistent->known_count + 1) * sizeof *known);
    if (!known)
        return ERR_NO_MEMORY;
    persistent->known = known;
    known[persistent->known_count++] = (struct persistent_known){
        .offset = sent->offset, .packet_id = sent->packet_id, .again = again, .qos = sent->qos, .content = sent->content};
    return sent->state == SESSION_DONE ? 0 : persistent_put_sent(persistent, sent, again, true);
}

static int load_taken(void *context, uint16_t packet_id)
{
    struct persistent *persistent = context;
    return mqtt_session_carry_recorded(persistent->mqtt, packet_id);
}

int persistent_known_order(const void *a, const void *b)
{
    const struct persistent_known *one = a, *other = b;
    if (one->content != other->content)
        return one->content < other->content ? -1 : 1;
    return one->offset < other->offset ? -1 : one->offset > other->offset;
}

static int load(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    struct session_visitor visitor = {.context = persistent, .subscription = load_subscription, .sent = load_sent, .taken = load_taken};
    int error = sessions_visit(connection->loop->bus->sessions, persistent->session, &visitor, &persistent->noted, &persistent->position,
                               &persistent->next_id);
    if (error)
        return error;
    if (persistent->known_count)
        qsort(persistent->known, persistent->known_count, sizeof *persistent->known, persistent_known_order);
    return persistent_carry_sent(connection);
}

static void destroy(struct persistent *persistent)
{
    free(persistent->sent);
    free(persistent->known);
    buffer_fini(&persistent->filters);
    buffer_fini(&persistent->held);
    free(persistent);
}

/* What the session and its new client have to do with each other. */
static int settle_in(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    int error = load(connection);
    if (!error)
        error = sessions_set_expiry(connection->loop->bus->sessions, persistent->session, persistent_expiry_s(connection));
    if (!error)
        error = will_note(connection, persistent->session, &persistent->admitted_at);
    return error;
}

static int attach(struct connection *connection, const struct mqtt_connect *connect)
{
    struct loop *loop = connection->loop;
    struct persistent *persistent = calloc(1, sizeof *persistent);
    if (!persistent)
        return ERR_NO_MEMORY;
    persistent->mqtt = &connection->session;
    buffer_init(&persistent->held, (size_t)MQTT_REMAINING_LENGTH_MAX * 2);
    buffer_init(&persistent->filters, SIZE_MAX);
    int error = find_or_create(connection, connect, &persistent->session, &persistent->present);
    if (error == ERR_BUSY) {
        persistent_await(loop); /* and look again: whatever ends after that is told */
        error = find_or_create(connection, connect, &persistent->session, &persistent->present);
    }
    if (error == ERR_BUSY)
        loop_pause(connection, PAUSE_SESSION, 0);
    if (error || !persistent->session) {
        destroy(persistent);
        return error;
    }
    connection->persistent = persistent;
    error = settle_in(connection);
    if (error) {
        connection->persistent = NULL;
        static const struct sessions_leave at_once = {0};
        sessions_detach(loop->bus->sessions, persistent->session, persistent->present ? NULL : &at_once);
        persistent_noted(loop);
        destroy(persistent);
    }
    return error;
}

int persistent_attach(struct connection *connection, const struct mqtt_connect *connect, bool *present)
{
    struct loop *loop = connection->loop;
    struct sessions *sessions = loop->bus->sessions;
    *present = false;
    if (connect->version != MQTT_VERSION_5_0 && !connect->clean_start)
        connection->session.session_expiry_interval_s = SESSIONS_NEVER;
    int error = sessions && !connection->persistent ? attach(connection, connect) : 0;
    if (error || !connection->persistent)
        return error;
    uint64_t admitted_at = connection->persistent->admitted_at;
    if (sessions_durable(sessions) < admitted_at)
        persistent_await(loop);
    if (sessions_durable(sessions) < admitted_at) {
        loop_pause(connection, PAUSE_SESSION, 0);
        return ERR_BUSY;
    }
    *present = connection->persistent->present;
    return 0;
}

/* ---- going on ---- */

/* As the router knows it; what is not allowed any more ends. */
static int subscribe_again(struct connection *connection, struct mqtt_slice filter, const struct persistent_filter *head)
{
    struct persistent *persistent = connection->persistent;
    int error = subscribe_carry(connection, filter, &head->how);
    if (error == ERR_PERMISSION || error == ERR_LIMIT) {
        persistent_unsubscribe(connection, filter, NULL);
        return 0;
    }
    if (!error && mqtt_topic_share_length((const char *)filter.data, filter.length))
        error = shared_subscribe(connection, filter,
                                 &(struct router_subscription){.loop = (uint16_t)connection->loop->index,
                                                               .qos = head->how.qos,
                                                               .options = head->how.options,
                                                               .connection = connection->slot,
                                                               .generation = connection->generation,
                                                               .identifier = head->how.identifier});
    else if (!error)
        error = follower_subscribe(persistent->member, (const char *)filter.data, filter.length, &head->how, &head->from);
    return error;
}

static int by_place_again(const void *a, const void *b)
{
    const struct follower_again *one = a, *other = b;
    if (one->content != other->content)
        return one->content < other->content ? -1 : 1;
    return one->offset < other->offset ? -1 : one->offset > other->offset;
}

/* Adds what came by shared subscriptions, each message once. */
static size_t want_shared(struct persistent *persistent, struct follower_again *again, size_t count)
{
    size_t kept = 0;
    count += persistent_list_shared(persistent, again + count);
    if (count)
        qsort(again, count, sizeof *again, by_place_again);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || by_place_again(&again[kept - 1], &again[i]) != 0)
            again[kept++] = again[i];
    return kept;
}

static int join(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    struct follower_again *again = malloc(((size_t)persistent->known_count + persistent->unsent + 1) * sizeof *again);
    size_t count = 0;
    if (!again)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < persistent->known_count; i++) {
        const struct persistent_known *known = &persistent->known[i];
        if (known->again)
            again[count++] = (struct follower_again){.offset = known->offset, .content = known->content, .qos = known->qos};
    }
    if (persistent->shared)
        count = want_shared(persistent, again, count);
    struct follower_join who = {.loop = (uint16_t)connection->loop->index,
                                .connection = connection->slot,
                                .generation = connection->generation,
                                .places = persistent->position,
                                .again = again,
                                .again_count = count};
    int error = follower_join(connection->loop->bus->follower, &who, &persistent->member);
    free(again);
    return error;
}

void persistent_resume(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    struct buffer *filters = &persistent->filters;
    int error = persistent_release_again(connection);
    if (!error)
        error = join(connection);
    for (size_t at = 0; !error && at < filters->length;) {
        struct persistent_filter head;
        memcpy(&head, filters->data + at, sizeof head);
        at += sizeof head;
        error = subscribe_again(connection, (struct mqtt_slice){filters->data + at, head.length}, &head);
        at += head.length;
    }
    buffer_fini(filters);
    buffer_init(filters, 0);
    persistent->noted_ns = uv_now(&connection->loop->uv) * 1000000u;
    loop_mark_dirty(connection);
    if (error)
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
}

/* ---- where it stands ---- */

/* leave->sent is malloc'd; NULL without memory. */
static void find_stand(const struct connection *connection, struct sessions_leave *leave)
{
    leave->position = persistent_position(connection);
    leave->cursor = persistent_cursor(connection);
    leave->next_id = connection->session.next_packet_id;
    leave->sent = persistent_sent_list(connection->persistent, &leave->position, &leave->sent_count);
}

/* Exchanges that have begun are finished when their subscription has ended, also after a kill (MQTT-3.10.4-3). Of QoS 1 the session knows
 * otherwise only from where on messages may come again, which takes the subscription. */
static int note_begun(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    struct sessions_leave stand = {0};
    if (!persistent->unnoted)
        return 0;
    find_stand(connection, &stand);
    int error = stand.sent ? sessions_stand(connection->loop->bus->sessions, persistent->session, &stand, NULL) : ERR_NO_MEMORY;
    free((void *)(uintptr_t)stand.sent);
    if (!error)
        persistent_all_noted(persistent);
    persistent->ids_noted_to = 0; /* where it stands says which comes next */
    return error;
}

/* ---- leaving ---- */

void persistent_leave(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    struct loop *loop = connection->loop;
    if (!persistent)
        return;
    struct sessions_leave leave = {.expiry_s = persistent_expiry_s(connection), .wall_ns = loop_wall_ns(loop)};
    if (persistent->member) { /* or else, and without memory for what was sent, it is as it was */
        find_stand(connection, &leave);
        follower_leave(persistent->member);
    }
    loop_submit(loop); /* what came under identifiers of the session is on its way before the session is let go */
    sessions_detach(loop->bus->sessions, persistent->session, leave.sent || leave.expiry_s == 0 ? &leave : NULL);
    free((void *)(uintptr_t)leave.sent);
    persistent_noted(loop);
    persistent_unlist(connection);
    connection->persistent = NULL;
    connection->held_back = 0;
    destroy(persistent);
    persistent_wake(loop->bus);
}

/* ---- what it subscribes to and publishes ---- */

bool persistent_is_followed(const struct connection *connection, struct mqtt_slice filter)
{
    return sessions_follows(connection->loop->bus->sessions, connection->persistent->session, (const char *)filter.data, filter.length);
}

int persistent_subscribe(struct connection *connection, struct mqtt_slice filter, const struct router_subscription *how, uint64_t *place)
{
    struct persistent *persistent = connection->persistent;
    struct sessions *sessions = connection->loop->bus->sessions;
    const char *text = (const char *)filter.data;
    const struct session_subscription *made;
    bool shared = mqtt_topic_share_length(text, filter.length);
    if (shared) /* what had no members any more begins anew */
        groups_prune(connection->loop->bus->groups);
    int error = sessions_subscribe(sessions, persistent->session, text, filter.length, how, &made, place);
    if (error)
        return error;
    persistent_noted(connection->loop);
    if (shared)
        return 0;
    error = follower_subscribe(persistent->member, text, filter.length, how, &made->from);
    if (error)
        sessions_unsubscribe(sessions, persistent->session, text, filter.length, NULL);
    return error;
}

void persistent_unsubscribe(struct connection *connection, struct mqtt_slice filter, uint64_t *place)
{
    struct persistent *persistent = connection->persistent;
    const char *text = (const char *)filter.data;
    int error = note_begun(connection);
    if (!error)
        error = sessions_unsubscribe(connection->loop->bus->sessions, persistent->session, text, filter.length, place);
    if (!error && !mqtt_topic_share_length(text, filter.length))
        error = follower_unsubscribe(persistent->member, text, filter.length);
    if (mqtt_topic_share_length(text, filter.length))
        groups_prune(connection->loop->bus->groups);
    persistent_noted(connection->loop);
    if (error) /* it would go on getting what it has asked to end */
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
}

int persistent_origin(struct connection *from, const struct mqtt_publish *publish, struct queue_origin *origin)
{
    struct session *session = from->persistent->session;
    *origin = (struct queue_origin){.session = session_number(session)};
    return publish->qos == 2 ? sessions_take(from->loop->bus->sessions, session, publish->packet_id, origin) : 0;
}

void persistent_not_taken(struct connection *from, uint16_t packet_id)
{
    sessions_release(from->loop->bus->sessions, from->persistent->session, packet_id, NULL);
}

void persistent_taken(struct connection *connection, uint16_t packet_id)
{
    sessions_taken(connection->loop->bus->sessions, connection->persistent->session, packet_id);
    persistent_noted(connection->loop);
}

void persistent_release(struct connection *connection, const struct mqtt_event *event)
{
    size_t mark = connection->out.length;
    uint64_t place = 0;
    int error = 0;
    if (!event->reason) {
        error = sessions_release(connection->loop->bus->sessions, connection->persistent->session, event->ack.packet_id, &place);
        persistent_noted(connection->loop);
    }
    if (!error)
        error = mqtt_ack_encode(&connection->out, connection->session.version, MQTT_PUBCOMP, event->ack.packet_id, event->reason);
    if (error)
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
    else
        persistent_hold_back(connection, mark, place);
}
