/* A stream of persistent sessions: records, each a byte of how many bytes its topic has, a u16 of how many its payload has, and both.
 * However damaged they are, nothing is read but what is there, what is counted is what is there, and what is there can be written as a
 * whole and found again in it. */
#include <string.h>

#include "base/error.h"
#include "fuzz.h"
#include "sessions/session.h"

static void check_whole(const struct session *session)
{
    struct session_store store = {.loading = true};
    struct buffer first;
    const uint64_t ends[SESSION_ORIGINS] = {1, 2};
    uint64_t found[SESSION_ORIGINS];
    buffer_init(&first, SESSION_RECORD_MAX);
    PROMISE(session_record_begin(&first, ends) == 0 && session_item_whole(&first, session) == 0);
    struct message record = {
        .topic = session_id(session), .topic_length = session->id_length, .payload = first.data, .payload_length = (uint32_t)first.length};
    PROMISE(session_record_apply(&store, &record, found) == 0 && memcmp(found, ends, sizeof ends) == 0);
    const struct session *copy = session_find(&store, session_id(session), session->id_length);
    PROMISE(copy && copy->number == session->number && copy->filter_count == session->filter_count);
    PROMISE(copy->taken_count == session->taken_count && copy->sent_count <= session->sent_count);
    session_store_fini(&store);
    buffer_fini(&first);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct session_store store = {.loading = true};
    uint64_t ends[SESSION_ORIGINS];
    while (size >= 3) {
        size_t topic = data[0], payload = data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        topic = topic < size ? topic : size;
        payload = payload < size - topic ? payload : size - topic;
        uint8_t *exact = malloc(payload ? payload : 1);
        memcpy(exact, data + topic, payload);
        struct message record = {
            .topic = (const char *)data, .topic_length = (uint32_t)topic, .payload = exact, .payload_length = (uint32_t)payload};
        int error = session_record_apply(&store, &record, ends);
        PROMISE(error == 0 || error == ERR_CORRUPT || error == ERR_FORMAT_VERSION || error == ERR_LIMIT);
        struct queue_origin origin = {.session = payload > 26 ? exact[18] : 2, .sequence = payload, .packet_id = 7};
        PROMISE(session_message_apply(&store, &origin) == 0);
        free(exact);
        data += topic + payload;
        size -= topic + payload;
    }
    for (uint32_t i = 0; i < store.slot_count; i++)
        if (store.slots[i])
            check_whole(store.slots[i]);
    session_store_fini(&store);
    PROMISE(store.bytes == 0 && store.count == 0 && store.subscriptions == 0);
    PROMISE(store.generations[0].open == 0 && store.generations[1].open == 0);
    return 0;
}
