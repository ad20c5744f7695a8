/* What a persistent session is sent: what it has not answered, what the follower is granted, and what is held back until it is durable. */
#include "bus/persistent_parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/diagnostics.h"
#include "base/error.h"

enum {
    QUEUE_MAX = 1 << 20,  /* bytes that may wait for a client before the follower stops */
    GRANT_PART = 8,       /* more is granted when it is this part of the window or of the queue */
    COMPLETED_MAX = 4096, /* QoS 2 messages that may be completed before it is noted that they are behind the cursor */
    HELD_KEEP = 4 << 10,
    PACKET_IDS = 65535
};

#define NOTE_NS UINT64_C(1000000000)  /* between two notes of the cursor, when the client has answered */
#define REST_NS UINT64_C(10000000000) /* and when it has moved without that */

/* ---- what was sent and is not answered ---- */

static struct persistent_sent *sent_at(const struct persistent *persistent, uint32_t index)
{
    return &persistent->sent[(persistent->sent_first + index) & (persistent->sent_capacity - 1)];
}

static int grow(struct persistent *persistent)
{
    uint32_t capacity = persistent->sent_capacity ? persistent->sent_capacity * 2 : 16;
    struct persistent_sent *sent = malloc(capacity * sizeof *sent);
    if (!sent)
        return ERR_NO_MEMORY;
    for (uint32_t i = 0; i < persistent->sent_count; i++)
        sent[i] = *sent_at(persistent, i);
    free(persistent->sent);
    persistent->sent = sent;
    persistent->sent_first = 0;
    persistent->sent_capacity = capacity;
    return 0;
}

int persistent_reserve_sent(struct persistent *persistent)
{
    return persistent->sent_count == persistent->sent_capacity ? grow(persistent) : 0;
}

int persistent_put_sent(struct persistent *persistent, const struct session_sent *sent, bool unsent, bool noted)
{
    if (persistent_reserve_sent(persistent))
        return ERR_NO_MEMORY;
    *sent_at(persistent, persistent->sent_count++) = (struct persistent_sent){*sent, unsent, noted};
    persistent->unnoted += !noted;
    persistent->unsent += unsent;
    persistent->unsent_copies += unsent && sent->content == SESSIONS_COPIED;
    persistent->mqtt->outbound_unsent = persistent->unsent;
    return 0;
}

static void set_sent(struct persistent *persistent, struct persistent_sent *sent)
{
    persistent->unsent -= sent->unsent;
    persistent->unsent_copies -= sent->unsent && sent->sent.content == SESSIONS_COPIED;
    persistent->mqtt->outbound_unsent = persistent->unsent;
    sent->unsent = false;
}

static uint32_t id_distance(uint16_t from, uint16_t to)
{
    return to >= from ? (uint32_t)to - from : (uint32_t)to + PACKET_IDS - from;
}

/* Identifiers are handed out in turn, and the oldest is not answered: they lie in order of their distance from it. */
static struct persistent_sent *find_sent(const struct persistent *persistent, uint16_t packet_id)
{
    uint32_t low = 0, high = persistent->sent_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint16_t oldest = sent_at(persistent, 0)->sent.packet_id;
        if (id_distance(oldest, sent_at(persistent, middle)->sent.packet_id) < id_distance(oldest, packet_id))
            low = middle + 1;
        else
            high = middle;
    }
    struct persistent_sent *found = low < persistent->sent_count ? sent_at(persistent, low) : NULL;
    return found && found->sent.packet_id == packet_id && found->sent.state != SESSION_DONE ? found : NULL;
}

static void finish(struct persistent *persistent, struct persistent_sent *done)
{
    set_sent(persistent, done);
    persistent->unnoted -= !done->noted;
    done->noted = true;
    done->sent.state = SESSION_DONE;
    while (persistent->sent_count && sent_at(persistent, 0)->sent.state == SESSION_DONE) {
        persistent->sent_first = (persistent->sent_first + 1) & (persistent->sent_capacity - 1);
        persistent->sent_count--;
    }
}

void persistent_take_copy(struct persistent *persistent, struct session_sent *sent)
{
    uint32_t at = 0;
    while (!sent_at(persistent, at)->unsent || sent_at(persistent, at)->sent.content != SESSIONS_COPIED)
        at++;
    set_sent(persistent, sent_at(persistent, at));
    *sent = sent_at(persistent, at)->sent;
}

void persistent_all_noted(struct persistent *persistent)
{
    for (uint32_t i = 0; i < persistent->sent_count; i++)
        sent_at(persistent, i)->noted = true;
    persistent->unnoted = 0;
}

/* After what was carried comes what would have come next. */
int persistent_carry_sent(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    struct mqtt_session *session = &connection->session;
    uint16_t newest = persistent->sent_count ? sent_at(persistent, persistent->sent_count - 1)->sent.packet_id : 0;
    /* After a crash: an identifier is given out only when all those before the window are free. */
    while (persistent->sent_count && id_distance(sent_at(persistent, 0)->sent.packet_id, newest) >= MQTT_SEND_WINDOW)
        finish(persistent, sent_at(persistent, 0));
    for (uint32_t i = 0; i < persistent->sent_count; i++) {
        const struct session_sent *sent = &sent_at(persistent, i)->sent;
        int error = mqtt_session_carry_sent(session, sent->packet_id, sent->qos, sent->state == SESSION_RECEIVED);
        if (error)
            return error;
    }
    if (persistent->next_id)
        mqtt_session_skip_to(session, persistent->next_id);
    return 0;
}

size_t persistent_list_shared(const struct persistent *persistent, struct follower_again *again)
{
    size_t count = 0;
    for (uint32_t i = 0; i < persistent->sent_count; i++) {
        const struct persistent_sent *sent = sent_at(persistent, i);
        if (sent->unsent && sent->sent.shared)
            again[count++] = (struct follower_again){.offset = sent->sent.offset, .content = sent->sent.content, .qos = sent->sent.qos};
    }
    return count;
}

int persistent_release_again(struct connection *connection)
{
    const struct persistent *persistent = connection->persistent;
    int error = 0;
    for (uint32_t i = 0; i < persistent->sent_count && !error; i++) {
        const struct session_sent *sent = &sent_at(persistent, i)->sent;
        if (sent->state == SESSION_RECEIVED)
            error = mqtt_ack_encode(&connection->out, connection->session.version, MQTT_PUBREL, sent->packet_id, 0);
    }
    return error;
}

int persistent_note_id(struct connection *connection, uint64_t *place)
{
    struct persistent *persistent = connection->persistent;
    struct sessions *sessions = connection->loop->bus->sessions;
    uint16_t next = connection->session.next_packet_id;
    if (!persistent->ids_noted_to || id_distance(next, persistent->ids_noted_to) > SESSIONS_IDS_STEP) {
        uint32_t to = (uint32_t)next + SESSIONS_IDS_STEP;
        uint16_t noted = (uint16_t)(to > PACKET_IDS ? to - PACKET_IDS : to);
        int error = sessions_reserve_ids(sessions, persistent->session, noted, &persistent->ids_noted_at);
        if (error)
            return error;
        persistent->ids_noted_to = noted;
        persistent_noted(connection->loop);
    }
    *place = sessions_durable(sessions) < persistent->ids_noted_at ? persistent->ids_noted_at : 0;
    return 0;
}

static bool is_open(const struct persistent *persistent, const struct persistent_known *known)
{
    const struct persistent_sent *found = find_sent(persistent, known->packet_id);
    return found && !found->sent.shared && found->sent.offset == known->offset && found->sent.content == known->content;
}

/* What was known to be answered, and that the follower has not come by yet, is not to be new the next time. */
struct session_sent *persistent_sent_list(const struct persistent *persistent, const struct follower_places *position, size_t *count)
{
    struct session_sent *list = malloc(((size_t)persistent->known_count + persistent->sent_count + 1) * sizeof *list);
    *count = 0;
    for (uint32_t i = 0; list && i < persistent->known_count; i++) {
        const struct persistent_known *known = &persistent->known[i];
        if (known->offset >= position->at[known->content] && !is_open(persistent, known))
            list[(*count)++] = (struct session_sent){.offset = known->offset,
                                                     .packet_id = known->packet_id,
                                                     .content = known->content,
                                                     .qos = known->qos,
                                                     .state = SESSION_DONE};
    }
    for (uint32_t i = 0; list && i < persistent->sent_count; i++)
        if (sent_at(persistent, i)->sent.state != SESSION_DONE)
            list[(*count)++] = sent_at(persistent, i)->sent;
    return list;
}

int persistent_note_sent(struct connection *connection, const struct session_sent *sent, uint64_t *place)
{
    struct persistent *persistent = connection->persistent;
    *place = 0;
    int error = persistent_put_sent(persistent, sent, false, sent->qos == 2);
    if (error || sent->qos != 2)
        return error;
    persistent_noted(connection->loop);
    return sessions_sent(connection->loop->bus->sessions, persistent->session, sent, place);
}

/* The cursor goes with it when many were completed: the session remembers each of them until then. */
static void note_completed(struct connection *connection, uint16_t packet_id)
{
    struct persistent *persistent = connection->persistent;
    struct sessions *sessions = connection->loop->bus->sessions;
    int error = sessions_completed(sessions, persistent->session, packet_id, NULL);
    if (!error && ++persistent->completed >= COMPLETED_MAX) {
        struct follower_places cursor = persistent_cursor(connection);
        error = sessions_advance(sessions, persistent->session, &cursor);
        persistent->noted = cursor;
        persistent->completed = 0;
    }
    persistent_noted(connection->loop);
    if (error) /* it may come again otherwise, after a restart */
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
}

void persistent_settled(struct connection *connection, uint16_t packet_id)
{
    struct persistent *persistent = connection->persistent;
    struct persistent_sent *found = find_sent(persistent, packet_id);
    loop_mark_dirty(connection); /* there is room for another */
    if (!found)                  /* one of a shared subscription, or a retained message that found no room */
        return;
    bool noted = found->noted;
    persistent->answered = true;
    finish(persistent, found);
    if (noted)
        note_completed(connection, packet_id);
}

void persistent_give_up(struct connection *connection, uint16_t packet_id)
{
    mqtt_session_give_up(&connection->session, packet_id);
    persistent_settled(connection, packet_id);
}

void persistent_recorded(struct connection *connection, const struct mqtt_event *event)
{
    struct persistent *persistent = connection->persistent;
    struct persistent_sent *found = find_sent(persistent, event->ack.packet_id);
    size_t mark = connection->out.length;
    uint64_t place = 0;
    int error = 0;
    if (found && !event->reason) {
        found->sent.state = SESSION_RECEIVED;
        set_sent(persistent, found);
        error = sessions_received(connection->loop->bus->sessions, persistent->session, event->ack.packet_id, &place);
        persistent_noted(connection->loop);
    }
    if (!error)
        error = mqtt_ack_encode(&connection->out, connection->session.version, MQTT_PUBREL, event->ack.packet_id, event->reason);
    if (error)
        connection_close(connection, CLOSE_LIMIT, error_mqtt_reason(error));
    else
        persistent_hold_back(connection, mark, place);
}

/* ---- what the follower hands over ---- */

/* Whether it was sent on an earlier connection; *packet_id gets its identifier, 0: it needs nothing any more. */
static bool is_known(const struct persistent *persistent, const struct persistent_handed *handed, uint16_t *packet_id)
{
    const struct persistent_known wanted = {.offset = handed->offset, .content = handed->content};
    const struct persistent_known *known =
        bsearch(&wanted, persistent->known, persistent->known_count, sizeof wanted, persistent_known_order);
    if (!known)
        return false;
    *packet_id = known->again ? known->packet_id : 0;
    return true;
}

/* By a shared subscription it may have come as well, or alone. */
static void send_shared_again(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                              const struct persistent_handed *handed)
{
    struct persistent *persistent = to->persistent;
    for (uint32_t i = 0; persistent->unsent && i < persistent->sent_count && !to->closing; i++) {
        struct persistent_sent *again = sent_at(persistent, i);
        if (!again->unsent || !again->sent.shared || again->sent.offset != handed->offset || again->sent.content != handed->content)
            continue;
        const struct session_sent sent = again->sent;
        set_sent(persistent, again);
        (void)deliver_from_journal(to, publish, how, NULL, &sent, handed->time_ns);
        return;
    }
}

bool persistent_is_own(const struct connection *connection, const struct persistent_handed *handed)
{
    return handed->origin_session == session_number(connection->persistent->session);
}

/* A message that is new to it; `sent` gets the QoS. */
static bool is_wanted(const struct persistent *persistent, const struct mqtt_publish *publish, const struct router_subscription *how,
                      const struct persistent_handed *handed, struct session_sent *sent)
{
    bool own = handed->origin_session == session_number(persistent->session);
    sent->qos = how->qos < publish->qos ? how->qos : publish->qos;
    return (sent->qos || how->options & ROUTER_LOWERED) && !(how->options & (own ? ROUTER_NO_LOCAL : ROUTER_OWN_ONLY));
}

void persistent_receive(struct connection *to, const struct mqtt_publish *publish, const struct router_subscription *how,
                        const uint32_t *identifiers, const struct persistent_handed *handed)
{
    struct persistent *persistent = to->persistent;
    uint64_t *position = &persistent->position.at[handed->content];
    uint16_t packet_id = 0;
    if (to->closing ||
        connection_parts(to)) /* not counted: so what the follower says of how far it has come is not taken for what was received */
        return;
    persistent->handed++;
    persistent->handed_bytes += handed->bytes;
    loop_mark_dirty(to); /* its grant is looked at again */
    bool known = persistent->known && is_known(persistent, handed, &packet_id), passed = handed->offset < *position;
    struct persistent_sent *again = packet_id ? find_sent(persistent, packet_id) : NULL;
    if (handed->again && persistent->shared)
        send_shared_again(to, publish, how, handed);
    struct session_sent sent = {.offset = handed->offset, .content = handed->content};
    if (again && again->unsent && again->sent.offset == handed->offset && again->sent.content == handed->content) {
        set_sent(persistent, again);
        sent = again->sent;
        (void)deliver_from_journal(to, publish, how, identifiers, &sent, handed->time_ns); /* it is among what was sent in any case */
    }
    if (handed->again)
        return; /* the follower comes by once more, if it has not passed it */
    if (!passed && (known || !is_wanted(persistent, publish, how, handed, &sent) ||
                    deliver_from_journal(to, publish, how, identifiers, &sent, handed->time_ns)))
        *position = handed->offset + 1;
    else if (!passed)
        persistent->handed--; /* the connection ends, and has not got it */
}

/* ---- how far it has come ---- */

struct follower_places persistent_position(const struct connection *connection)
{
    const struct persistent *persistent = connection->persistent;
    struct follower_places position = persistent->position, passed;
    uint64_t handed;
    follower_passed(persistent->member, &handed, &passed);
    for (unsigned c = 0; c < FOLLOWER_CONTENTS && handed == persistent->handed; c++)
        if (passed.at[c] > position.at[c])
            position.at[c] = passed.at[c];
    deliver_lower_to_waiting(connection, &position);
    return position;
}

struct follower_places persistent_cursor(const struct connection *connection)
{
    const struct persistent *persistent = connection->persistent;
    struct follower_places cursor = persistent_position(connection);
    for (uint32_t i = 0; i < persistent->sent_count; i++) {
        const struct session_sent *sent = &sent_at(persistent, i)->sent;
        if (sent->state != SESSION_DONE && !sent->shared && sent->content != SESSIONS_COPIED && sent->offset < cursor.at[sent->content])
            cursor.at[sent->content] = sent->offset;
    }
    return cursor;
}

static struct persistent_sent *find_gone(const struct persistent *persistent, const struct follower_places *passed)
{
    for (uint32_t i = 0; i < persistent->sent_count; i++) {
        struct persistent_sent *sent = sent_at(persistent, i);
        if (sent->unsent && sent->sent.content != SESSIONS_COPIED && sent->sent.offset < passed->at[sent->sent.content])
            return sent;
    }
    return NULL;
}

/* What was to be sent again and is not kept any more: nobody can wait for its answer. */
static void give_up_gone(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    struct persistent_sent *gone;
    struct follower_places passed;
    uint64_t handed;
    follower_passed(persistent->member, &handed, &passed);
    while (handed == persistent->handed && (gone = find_gone(persistent, &passed))) {
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                     CONNECTION_NAME " has not acknowledged a message that is not kept any more; it cannot be sent again",
                     CONNECTION_NAMED(connection));
        persistent_give_up(connection, gone->sent.packet_id);
    }
}

uint64_t persistent_check(struct connection *connection, uint64_t now_ns)
{
    struct persistent *persistent = connection->persistent;
    if (!persistent->member || connection->closing)
        return UINT64_MAX;
    if (persistent->unsent)
        give_up_gone(connection);
    loop_mark_dirty(connection); /* the room changes with the memory of all */
    uint64_t interval_ns = persistent->answered ? NOTE_NS : REST_NS;
    if (now_ns - persistent->noted_ns >= interval_ns) {
        struct follower_places cursor = persistent_cursor(connection);
        persistent->noted_ns = now_ns;
        persistent->answered = false;
        if (memcmp(&cursor, &persistent->noted, sizeof cursor) &&
            sessions_advance(connection->loop->bus->sessions, persistent->session, &cursor) == 0) { /* or else the next time */
            persistent->noted = cursor;
            persistent->completed = 0;
            persistent_noted(connection->loop);
        }
    }
    return persistent->noted_ns + (persistent->answered || persistent->unsent ? NOTE_NS : REST_NS);
}

/* ---- what the follower is granted ---- */

void persistent_turn(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    const struct mqtt_session *session = &connection->session;
    if (!persistent->member || connection->closing || !persistent_send_copies(connection))
        return;
    uint32_t most = session->send_maximum, used = session->outbound_unacknowledged - persistent->unsent;
    size_t queue_max = memory_queue_max(connection->loop->bus) / 2, queued = connection_queued(connection);
    if (persistent->unsent) /* what waits for identifiers is not in the way of these, which have theirs and go past it */
        queued -= connection->waiting.length - connection->waiting_at;
    else
        used += connection->persistent_waiting + connection->shared_waiting;
    uint32_t room = used < most ? most - used : 0;
    if (persistent->unsent && room > persistent->unsent)
        room = persistent->unsent;
    uint64_t granted = persistent->handed + room;
    if (queue_max > QUEUE_MAX)
        queue_max = QUEUE_MAX;
    uint64_t bytes = persistent->handed_bytes + (queued < queue_max ? queue_max - queued : 0);
    bool more = granted > persistent->granted &&
                (persistent->granted == persistent->handed || granted - persistent->granted >= (most + GRANT_PART - 1) / GRANT_PART);
    bool more_bytes = bytes > persistent->granted_bytes && (persistent->granted_bytes <= persistent->handed_bytes ||
                                                            bytes - persistent->granted_bytes >= queue_max / GRANT_PART);
    if (!more && !more_bytes)
        return;
    if (granted > persistent->granted)
        persistent->granted = granted;
    if (bytes > persistent->granted_bytes)
        persistent->granted_bytes = bytes;
    follower_grant(persistent->member, persistent->granted, persistent->granted_bytes);
}

/* ---- what is held back ---- */

struct held_head {
    uint64_t place;
    uint32_t size;
};

void persistent_unlist(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    if (persistent->holding)
        DL_DELETE2(connection->loop->holding, connection, persistent->holding_before, persistent->holding_next);
    persistent->holding = false;
}

static void list(struct connection *connection)
{
    struct persistent *persistent = connection->persistent;
    if (!persistent->holding)
        DL_APPEND2(connection->loop->holding, connection, persistent->holding_before, persistent->holding_next);
    persistent->holding = true;
}

void persistent_hold_back(struct connection *connection, size_t mark, uint64_t place)
{
    struct persistent *persistent = connection->persistent;
    struct loop *loop = connection->loop;
    struct buffer *out = &connection->out, *held = &persistent->held;
    struct held_head head = {.place = place, .size = (uint32_t)(out->length - mark)};
    if (connection->closing)
        return;
    loop_mark_dirty(connection);
    if (held->length == 0 && sessions_durable(loop->bus->sessions) >= place)
        return;
    if (buffer_reserve(held, sizeof head + head.size)) {
        connection_close(connection, CLOSE_SLOW, 0x97);
        return;
    }
    memcpy(held->data + held->length, &head, sizeof head);
    memcpy(held->data + held->length + sizeof head, out->data + mark, head.size);
    held->length += sizeof head + head.size;
    out->length = mark;
    connection->held_back = held->length;
    connection_note_queue(connection);
    list(connection);
    persistent_await(loop);
    if (sessions_durable(loop->bus->sessions) >= place)
        uv_async_send(&loop->wake); /* whoever told of it did not know yet that somebody waits */
}

void persistent_let_go(struct connection *connection, uint64_t durable)
{
    struct buffer *held = &connection->persistent->held;
    size_t done = 0;
    while (done < held->length && !connection->closing) {
        struct held_head head;
        memcpy(&head, held->data + done, sizeof head);
        if (head.place > durable)
            break;
        if (buffer_append(&connection->out, held->data + done + sizeof head, head.size))
            connection_close(connection, CLOSE_SLOW, 0x97);
        done += sizeof head + head.size;
    }
    if (done) {
        buffer_consume(held, done);
        buffer_shrink(held, HELD_KEEP);
        connection->held_back = held->length;
        loop_mark_dirty(connection);
    }
    if (held->length == 0)
        persistent_unlist(connection);
    if (held->length == 0 && connection_parts(connection))
        connection_part(connection);
    else if (held->length == 0 && connection->handouts)
        handout_resume(connection);
}
