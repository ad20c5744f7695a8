/* What a record of the sessions' stream says.
 *
 * Its topic is the client identifier; that of a mark, which is of no session, is empty, as no client identifier is. Its payload, all
 * integers little-endian:
 *
 *    0  u8   version, 1
 *    1  u64  where messages that may come from a client lie of which the stream does not tell: at or behind this offset of the consumed
 *    9  u64  messages, and this one of those that are kept
 *   17       items, one behind the other: a byte that says which (enum item), and its fields
 *
 *   places    u64 for each of follower_contents
 *   text      u16 length, bytes
 *   sent      u64 offset, u16 packet identifier, u8 content, u8 QoS, u8 state, with 0x80 if it came by a shared subscription; a list of
 *             them has a u32 count before it
 *   taken     u64 sequence << 16 | packet identifier
 *
 *   whole         u64 number, text user, u8 attached, u32 expiry, u64 left, u64 sequence, stands, u32 count and as many subscriptions,
 *                 u32 count and as many taken, each with a u8: whether its message is durable
 *   subscribed    u8 QoS, u8 options, u32 identifier, places, text filter
 *   unsubscribed  text filter
 *   sent          sent
 *   given         u64 number of a group, sent: the session's, or where it is the group itself, one whose session ends with its connection
 *   received, completed  u16 packet identifier
 *   advanced      places
 *   taken         u32 count, taken: their messages are durable
 *   released      taken
 *   attached      u32 expiry
 *   left          u32 expiry, u64 wall clock, ns
 *   stands        places cursor, places position, u16 next packet identifier, list of sent
 *   ended         nothing
 *   copied        u16 packet identifier, 0: the will, u32 count, bytes; those of a session, and what is reserved, come behind its `whole`
 *   dropped       u16 packet identifier of a copy
 *   next          u16 next packet identifier
 *
 * The session of a shared subscription (groups.h) has a zero and the filter, with "$share/NAME/", in the place of the client identifier;
 * the filter without that is its only subscription. What is `sent` there and DONE was given to a member, whose it is from then on.
 *
 * What is said of a session that is not known is passed over: the part of the stream that told of it is gone, as it was not needed any
 * more, and either the session is told as a whole later or it has ended. */
#include <assert.h>
#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/lists.h"
#include "mqtt/topic.h"
#include "sessions/session.h"

enum { RECORD_VERSION = 1 };

enum item {
    ITEM_WHOLE = 1,
    ITEM_SUBSCRIBED,
    ITEM_UNSUBSCRIBED,
    ITEM_SENT,
    ITEM_RECEIVED,
    ITEM_COMPLETED,
    ITEM_ADVANCED,
    ITEM_TAKEN,
    ITEM_RELEASED,
    ITEM_ATTACHED,
    ITEM_LEFT,
    ITEM_STANDS,
    ITEM_ENDED,
    ITEM_COPIED,
    ITEM_DROPPED,
    ITEM_NEXT,
    ITEM_GIVEN
};

enum { SENT_SHARED = 0x80 };

/* ---- writing ---- */

static int put_u8(struct buffer *out, unsigned value)
{
    uint8_t byte = (uint8_t)value;
    return buffer_append(out, &byte, 1);
}

static int put_u16(struct buffer *out, uint16_t value)
{
    value = htole16(value);
    return buffer_append(out, &value, sizeof value);
}

static int put_u32(struct buffer *out, uint32_t value)
{
    value = htole32(value);
    return buffer_append(out, &value, sizeof value);
}

static int put_u64(struct buffer *out, uint64_t value)
{
    value = htole64(value);
    return buffer_append(out, &value, sizeof value);
}

static int put_text(struct buffer *out, const char *text, size_t length)
{
    int error = put_u16(out, (uint16_t)length);
    return error ? error : buffer_append(out, text, length);
}

static int put_places(struct buffer *out, const struct follower_places *places)
{
    int error = 0;
    for (unsigned i = 0; !error && i < FOLLOWER_CONTENTS; i++)
        error = put_u64(out, places->at[i]);
    return error;
}

/* The first error of what is put in turn. */
static int all(int first, int second)
{
    return first ? first : second;
}

static int put_sent(struct buffer *out, const struct session_sent *sent)
{
    int error = put_u64(out, sent->offset);
    error = all(error, put_u16(out, sent->packet_id));
    error = all(error, put_u8(out, sent->content));
    error = all(error, put_u8(out, sent->qos));
    return all(error, put_u8(out, sent->state | (sent->shared ? SENT_SHARED : 0u)));
}

static int put_stand(struct buffer *out, const struct session_stand *stand)
{
    int error = put_places(out, &stand->cursor);
    error = all(error, put_places(out, &stand->position));
    error = all(error, put_u16(out, stand->next_id));
    error = all(error, put_u32(out, (uint32_t)stand->sent_count));
    for (size_t i = 0; !error && i < stand->sent_count; i++)
        error = put_sent(out, &stand->sent[i]);
    return error;
}

static int put_subscription(struct buffer *out, const struct session_subscription *subscription)
{
    int error = put_u8(out, subscription->how.qos);
    error = all(error, put_u8(out, subscription->how.options));
    error = all(error, put_u32(out, subscription->how.identifier));
    error = all(error, put_places(out, &subscription->from));
    return all(error, put_text(out, subscription->filter, subscription->length));
}

int session_record_begin(struct buffer *out, const uint64_t ends[SESSION_ORIGINS])
{
    int error = put_u8(out, RECORD_VERSION);
    for (unsigned i = 0; !error && i < SESSION_ORIGINS; i++)
        error = put_u64(out, ends[i]);
    return error;
}

int session_item_whole(struct buffer *out, const struct session *session)
{
    const struct session_stand stand = {session->cursor, session->position, session->next_id, session->sent, session->sent_count};
    int error = put_u8(out, ITEM_WHOLE);
    error = all(error, put_u64(out, session->number));
    error = all(error, put_text(out, session_user(session), session->user_length));
    error = all(error, put_u8(out, session->attached));
    error = all(error, put_u32(out, session->expiry_s));
    error = all(error, put_u64(out, session->left_ns));
    error = all(error, put_u64(out, session->sequence));
    error = all(error, put_stand(out, &stand));
    error = all(error, put_u32(out, session->filter_count));
    const struct session_subscription *each = session_filter_first(session);
    for (; !error && each; each = session_filter_next(each))
        error = put_subscription(out, each);
    error = all(error, put_u32(out, session->taken_count));
    for (uint32_t i = 0; !error && i < session->taken_count; i++) {
        error = put_u64(out, session->taken[i].word);
        error = all(error, put_u8(out, session->taken[i].state != SESSION_PENDING));
    }
    const struct session_copy *copy;
    DL_FOREACH(session->copies, copy)
    error = all(error, session_item_copied(out, copy));
    return error || !session->reserved ? error : session_item_next(out, session->next_id);
}

int session_item_subscribed(struct buffer *out, const struct session_subscription *subscription)
{
    int error = put_u8(out, ITEM_SUBSCRIBED);
    return all(error, put_subscription(out, subscription));
}

int session_item_unsubscribed(struct buffer *out, const char *filter, size_t length)
{
    int error = put_u8(out, ITEM_UNSUBSCRIBED);
    return all(error, put_text(out, filter, length));
}

int session_item_sent(struct buffer *out, const struct session_sent *sent)
{
    int error = put_u8(out, ITEM_SENT);
    return all(error, put_sent(out, sent));
}

int session_item_given(struct buffer *out, uint64_t number, const struct session_sent *sent)
{
    int error = put_u8(out, ITEM_GIVEN);
    error = all(error, put_u64(out, number));
    return all(error, put_sent(out, sent));
}

int session_item_received(struct buffer *out, uint16_t packet_id)
{
    int error = put_u8(out, ITEM_RECEIVED);
    return all(error, put_u16(out, packet_id));
}

int session_item_completed(struct buffer *out, uint16_t packet_id)
{
    int error = put_u8(out, ITEM_COMPLETED);
    return all(error, put_u16(out, packet_id));
}

int session_item_advanced(struct buffer *out, const struct follower_places *cursor)
{
    int error = put_u8(out, ITEM_ADVANCED);
    return all(error, put_places(out, cursor));
}

int session_item_taken(struct buffer *out, const struct session *session)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < session->taken_count; i++)
        count += session->taken[i].state == SESSION_DURABLE;
    int error = put_u8(out, ITEM_TAKEN);
    error = all(error, put_u32(out, count));
    for (uint32_t i = 0; !error && i < session->taken_count; i++)
        if (session->taken[i].state == SESSION_DURABLE)
            error = put_u64(out, session->taken[i].word);
    return error;
}

int session_item_released(struct buffer *out, uint64_t word)
{
    int error = put_u8(out, ITEM_RELEASED);
    return all(error, put_u64(out, word));
}

int session_item_attached(struct buffer *out, uint32_t expiry_s)
{
    int error = put_u8(out, ITEM_ATTACHED);
    return all(error, put_u32(out, expiry_s));
}

int session_item_left(struct buffer *out, uint32_t expiry_s, uint64_t left_ns)
{
    int error = put_u8(out, ITEM_LEFT);
    error = all(error, put_u32(out, expiry_s));
    return all(error, put_u64(out, left_ns));
}

int session_item_stands(struct buffer *out, const struct session_stand *stand)
{
    int error = put_u8(out, ITEM_STANDS);
    return all(error, put_stand(out, stand));
}

int session_item_ended(struct buffer *out)
{
    return put_u8(out, ITEM_ENDED);
}

int session_item_copied(struct buffer *out, const struct session_copy *copy)
{
    int error = put_u8(out, ITEM_COPIED);
    error = all(error, put_u16(out, copy->packet_id));
    error = all(error, put_u32(out, copy->length));
    return error ? error : buffer_append(out, copy->bytes, copy->length);
}

int session_item_next(struct buffer *out, uint16_t next_id)
{
    int error = put_u8(out, ITEM_NEXT);
    return all(error, put_u16(out, next_id));
}

int session_item_dropped(struct buffer *out, uint16_t packet_id)
{
    int error = put_u8(out, ITEM_DROPPED);
    return all(error, put_u16(out, packet_id));
}

/* ---- reading ---- */

struct items {
    const uint8_t *at, *end;
    bool bad; /* there was less than was wanted, or a value that cannot be */
};

/* The next `size` bytes; NULL: there are not as many. */
static const uint8_t *take(struct items *items, size_t size)
{
    if (items->bad || (size_t)(items->end - items->at) < size) {
        items->bad = true;
        return NULL;
    }
    items->at += size;
    return items->at - size;
}

/* An integer of `size` bytes; 0 when there is none. */
static uint64_t take_int(struct items *items, size_t size)
{
    uint64_t value = 0;
    const uint8_t *bytes = take(items, size);
    if (bytes)
        memcpy(&value, bytes, size);
    return le64toh(value);
}

static void demand(struct items *items, bool condition)
{
    items->bad = items->bad || !condition;
}

static const char *take_text(struct items *items, size_t *length)
{
    *length = (size_t)take_int(items, 2);
    return (const char *)take(items, *length);
}

static struct follower_places take_places(struct items *items)
{
    struct follower_places places;
    for (unsigned i = 0; i < FOLLOWER_CONTENTS; i++)
        places.at[i] = take_int(items, 8);
    return places;
}

static struct session_sent take_sent(struct items *items)
{
    struct session_sent sent = {.offset = take_int(items, 8)};
    sent.packet_id = (uint16_t)take_int(items, 2);
    sent.content = (uint8_t)take_int(items, 1);
    sent.qos = (uint8_t)take_int(items, 1);
    uint8_t state = (uint8_t)take_int(items, 1);
    sent.shared = state & SENT_SHARED;
    sent.state = state & (uint8_t)~SENT_SHARED;
    demand(items, sent.packet_id && sent.content <= SESSIONS_COPIED && sent.qos >= 1 && sent.qos <= 2 && sent.state <= SESSION_DONE);
    demand(items, !sent.shared || sent.content < SESSIONS_COPIED);
    return sent;
}

static uint16_t take_id(struct items *items)
{
    uint16_t packet_id = (uint16_t)take_int(items, 2);
    demand(items, packet_id != 0);
    return packet_id;
}

static uint64_t take_word(struct items *items)
{
    uint64_t word = take_int(items, 8);
    demand(items, (uint16_t)word != 0);
    return word;
}

/* Each of these has `session` NULL where it is not known: what is read then is passed over. They return ERR_LIMIT, ERR_NO_MEMORY; what is
 * bad is told by items->bad. */

static int add_sent(struct session_store *store, struct session *session, const struct session_sent *sent)
{
    int error = session_sent_reserve(store, session, (size_t)session->sent_count + 1);
    if (error)
        return error;
    struct session_sent *older = session_sent_find(session, sent->packet_id);
    if (older && older->content == SESSIONS_COPIED)
        session_sent_settle(store, session, older, SESSION_DONE);
    else if (older)
        session_sent_finish(store, session, older);
    session_sent_add(store, session, sent);
    uint16_t ahead = (uint16_t)(session->next_id - sent->packet_id); /* one more where identifiers have begun again, at 1 */
    if (session->reserved && ahead > 0 && ahead <= SESSIONS_IDS_STEP + 1)
        return 0;
    session->next_id = sent->packet_id == UINT16_MAX ? 1 : (uint16_t)(sent->packet_id + 1);
    session->reserved = false;
    return 0;
}

/* A group has no copies. */
static void demand_fits(struct items *items, const struct session *session, const struct session_sent *sent)
{
    demand(items, !session || !session->group || sent->content < SESSIONS_COPIED);
}

static int read_one_sent(struct session_store *store, struct session *session, struct items *items)
{
    struct session_sent sent = take_sent(items);
    demand_fits(items, session, &sent);
    return items->bad || !session ? 0 : add_sent(store, session, &sent);
}

static int read_given(struct session_store *store, struct session *session, struct items *items)
{
    uint64_t number = take_int(items, 8);
    struct session_sent sent = take_sent(items);
    demand(items, sent.content < SESSIONS_COPIED);
    struct session *group = items->bad ? NULL : session_find_number(store, number);
    int error = 0;
    sent.shared = true;
    if (!items->bad && session && !session->group)
        error = add_sent(store, session, &sent);
    sent.shared = false;
    sent.state = SESSION_DONE;
    if (!error && group && group->group)
        error = session_sent_reserve(store, group, (size_t)group->sent_count + 1);
    if (!error && group && group->group)
        session_sent_add(store, group, &sent);
    return error;
}

static int read_stands(struct session_store *store, struct session *session, struct items *items)
{
    struct follower_places cursor = take_places(items), position = take_places(items);
    uint16_t next_id = take_id(items);
    uint64_t count = take_int(items, 4);
    demand(items, count <= SESSIONS_SENT_MAX);
    if (session && !items->bad) {
        session_sent_clear(store, session);
        int error = session_sent_reserve(store, session, count);
        if (error)
            return error;
    }
    for (uint64_t i = 0; !items->bad && i < count; i++) {
        struct session_sent sent = take_sent(items);
        demand_fits(items, session, &sent);
        if (session && !items->bad)
            session_sent_add(store, session, &sent);
    }
    if (items->bad || !session)
        return 0;
    session->position = position;
    session->next_id = next_id;
    session->reserved = false;
    session_copy_trim(store, session);
    session_advance(store, session, &cursor);
    return 0;
}

static int read_subscribed(struct session_store *store, struct session *session, struct items *items)
{
    struct router_subscription how = {.qos = (uint8_t)take_int(items, 1)};
    how.options = (uint8_t)take_int(items, 1);
    how.identifier = (uint32_t)take_int(items, 4);
    struct follower_places from = take_places(items);
    size_t length;
    const char *filter = take_text(items, &length);
    demand(items, how.qos <= 2 && length > 0);
    if (items->bad || !session)
        return 0;
    struct session_subscription *made = session_filter_find(store, session, filter, length);
    int error = made ? 0 : session_filter_add(store, session, filter, length, &made);
    if (error)
        return error;
    session_filter_set(store, made, &how);
    made->from = from;
    return 0;
}

static void read_unsubscribed(struct session_store *store, struct session *session, struct items *items)
{
    size_t length;
    const char *filter = take_text(items, &length);
    struct session_subscription *subscription = filter && session ? session_filter_find(store, session, filter, length) : NULL;
    if (subscription)
        session_filter_drop(store, subscription);
}

static void read_answer(struct session_store *store, struct session *session, struct items *items, enum session_sent_state state)
{
    uint16_t packet_id = take_id(items);
    struct session_sent *sent = session && !items->bad ? session_sent_find(session, packet_id) : NULL;
    if (sent && sent->content == SESSIONS_COPIED)
        session_sent_settle(store, session, sent, state);
    else if (sent && state == SESSION_DONE)
        session_sent_finish(store, session, sent);
    else if (sent)
        sent->state = (uint8_t)state;
}

/* Who notes a copy has it already. */
static int read_copied(struct session_store *store, struct session *session, struct items *items)
{
    uint16_t packet_id = (uint16_t)take_int(items, 2);
    size_t length = (size_t)take_int(items, 4);
    const uint8_t *bytes = take(items, length);
    struct session_copy *copy;
    if (items->bad || !session || !store->loading)
        return 0;
    int error = session_copy_make(store, packet_id, bytes, length, &copy);
    if (!error)
        session_copy_put(store, session, copy);
    return error;
}

static void read_dropped(struct session_store *store, struct session *session, struct items *items)
{
    uint16_t packet_id = (uint16_t)take_int(items, 2);
    if (session && !items->bad)
        session_copy_drop(store, session, session_copy_find(session, packet_id));
}

/* An identifier, as the stream tells of it. */
static int learn(struct session_store *store, struct session *session, uint64_t word, enum session_taken_state state)
{
    struct session_taken *taken = session_taken_find(session, (uint16_t)word);
    if (taken) {
        session_taken_change(store, session, taken, word, state);
        return 0;
    }
    int error = session_taken_reserve(store, session, (size_t)session->taken_count + 1);
    if (!error)
        session_taken_add(store, session, word, state);
    return error;
}

static void raise_sequence(struct session *session, uint64_t word)
{
    if (word >> 16 > session->sequence)
        session->sequence = word >> 16;
}

static int read_taken(struct session_store *store, struct session *session, struct items *items)
{
    uint64_t count = take_int(items, 4);
    int error = 0;
    for (uint64_t i = 0; !error && !items->bad && i < count; i++) {
        uint64_t word = take_word(items);
        if (items->bad || !session)
            continue;
        raise_sequence(session, word);
        error = learn(store, session, word, SESSION_NOTED);
    }
    return error;
}

static int read_released(struct session_store *store, struct session *session, struct items *items)
{
    uint64_t word = take_word(items);
    if (items->bad || !session)
        return 0;
    raise_sequence(session, word);
    if (store->loading)
        return learn(store, session, word, SESSION_RELEASED);
    struct session_taken *taken = session_taken_find(session, (uint16_t)word);
    if (taken)
        session_taken_drop(store, session, taken);
    return 0;
}

static void read_attached(struct session_store *store, struct session *session, struct items *items)
{
    uint32_t expiry_s = (uint32_t)take_int(items, 4);
    if (items->bad || !session)
        return;
    session->expiry_s = expiry_s;
    if (store->loading)
        session_attach(store, session, &(struct session_owner){0});
}

static void read_left(struct session_store *store, struct session *session, struct items *items)
{
    uint32_t expiry_s = (uint32_t)take_int(items, 4);
    uint64_t left_ns = take_int(items, 8);
    if (items->bad || !session)
        return;
    session->expiry_s = expiry_s;
    session_leave(store, session, left_ns);
}

static int read_lists(struct session_store *store, struct session *session, struct items *items)
{
    int error = read_stands(store, session, items);
    uint64_t filters = error ? 0 : take_int(items, 4);
    for (uint64_t i = 0; !error && !items->bad && i < filters; i++)
        error = read_subscribed(store, session, items);
    uint64_t taken = error ? 0 : take_int(items, 4);
    for (uint64_t i = 0; !error && !items->bad && i < taken; i++) {
        uint64_t word = take_word(items);
        bool durable = take_int(items, 1) != 0;
        if (!items->bad)
            error = learn(store, session, word, durable ? SESSION_NOTED : SESSION_PENDING);
    }
    return error;
}

/* In the place of what was known of it. */
static int read_whole(struct session_store *store, struct session **session, const struct message *record, struct items *items)
{
    uint64_t number = take_int(items, 8);
    size_t user_length;
    const char *user = take_text(items, &user_length);
    bool attached = take_int(items, 1) != 0;
    uint32_t expiry_s = (uint32_t)take_int(items, 4);
    uint64_t left_ns = take_int(items, 8), sequence = take_int(items, 8);
    demand(items, number && number % 2 == 0 && record->topic_length > 0);
    demand(items, items->bad || record->topic[0] || mqtt_topic_share_length(record->topic + 1, record->topic_length - 1) > 0);
    if (items->bad)
        return 0;
    if (*session)
        session_end(store, *session);
    *session = NULL;
    demand(items, !session_find_number(store, number));
    if (items->bad)
        return 0;
    int error = session_make(store, number, record->topic, record->topic_length, user, user_length, session);
    if (error)
        return error;
    struct session *made = *session;
    made->expiry_s = expiry_s;
    made->left_ns = left_ns;
    made->sequence = made->listed = sequence;
    made->whole_at = record->offset;
    if (attached)
        session_attach(store, made, &(struct session_owner){0});
    return read_lists(store, made, items);
}

static int read_item(struct session_store *store, struct session **session, const struct message *record, struct items *items)
{
    uint64_t kind = take_int(items, 1);
    switch (kind) {
    case ITEM_SUBSCRIBED:
        return read_subscribed(store, *session, items);
    case ITEM_UNSUBSCRIBED:
        read_unsubscribed(store, *session, items);
        return 0;
    case ITEM_SENT:
        return read_one_sent(store, *session, items);
    case ITEM_RECEIVED:
    case ITEM_COMPLETED:
        read_answer(store, *session, items, kind == ITEM_RECEIVED ? SESSION_RECEIVED : SESSION_DONE);
        return 0;
    case ITEM_ADVANCED: {
        struct follower_places cursor = take_places(items);
        if (*session && !items->bad)
            session_advance(store, *session, &cursor);
        return 0;
    }
    case ITEM_TAKEN:
        return read_taken(store, *session, items);
    case ITEM_RELEASED:
        return read_released(store, *session, items);
    case ITEM_ATTACHED:
        read_attached(store, *session, items);
        return 0;
    case ITEM_LEFT:
        read_left(store, *session, items);
        return 0;
    case ITEM_STANDS:
        return read_stands(store, *session, items);
    case ITEM_COPIED:
        return read_copied(store, *session, items);
    case ITEM_NEXT: {
        uint16_t next_id = take_id(items);
        if (*session && !items->bad) {
            (*session)->next_id = next_id;
            (*session)->reserved = true;
        }
        return 0;
    }
    case ITEM_DROPPED:
        read_dropped(store, *session, items);
        return 0;
    case ITEM_GIVEN:
        return read_given(store, *session, items);
    case ITEM_WHOLE:
    case ITEM_ENDED:
        demand(items, record != NULL); /* one that is carried out here is done by who notes it */
        if (items->bad)
            return 0;
        if (kind == ITEM_WHOLE)
            return read_whole(store, session, record, items);
        if (*session)
            session_end(store, *session);
        *session = NULL;
        return 0;
    default:
        items->bad = true;
        return 0;
    }
}

void session_items_apply(struct session_store *store, struct session *session, const uint8_t *bytes, size_t size)
{
    struct items items = {bytes, bytes + size, false};
    while (items.at < items.end) {
        int error = read_item(store, &session, NULL, &items);
        assert(!error && !items.bad);
        (void)error;
    }
}

int session_record_apply(struct session_store *store, const struct message *record, uint64_t ends[SESSION_ORIGINS])
{
    struct items items = {record->payload, record->payload + record->payload_length, false};
    uint64_t version = take_int(&items, 1), found[SESSION_ORIGINS];
    if (!items.bad && version != RECORD_VERSION)
        return ERR_FORMAT_VERSION;
    for (unsigned i = 0; i < SESSION_ORIGINS; i++)
        found[i] = take_int(&items, 8);
    demand(&items, record->topic_length > 0 || items.at == items.end);
    struct session *session = session_find(store, record->topic, record->topic_length);
    int error = 0;
    while (!error && !items.bad && items.at < items.end)
        error = read_item(store, &session, record, &items);
    if (error || items.bad)
        return error ? error : ERR_CORRUPT;
    memcpy(ends, found, sizeof found);
    return 0;
}

int session_message_apply(struct session_store *store, const struct queue_origin *origin)
{
    struct session *session = origin->session % 2 || origin->session == 0 ? NULL : session_find_number(store, origin->session);
    if (!session || origin->packet_id == 0)
        return 0;
    uint64_t word = origin->sequence << 16 | origin->packet_id;
    raise_sequence(session, word);
    struct session_taken *taken = session_taken_find(session, origin->packet_id);
    bool met = taken && taken->word == word;
    if (met && taken->state == SESSION_PENDING)
        session_taken_change(store, session, taken, word, SESSION_DURABLE);
    if (met || (taken && taken->word > word) || (!taken && origin->sequence <= session->listed))
        return 0;
    return learn(store, session, word, SESSION_DURABLE);
}
