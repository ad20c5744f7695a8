/* Mail between loops: what another thread asks of a loop is appended to its buffer, and the loop is woken once. */
#include "bus/persistent.h"
#include "bus/shared.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"

enum mail_type { MAIL_DELIVER, MAIL_HAND, MAIL_SOCKET, MAIL_CLOSE, MAIL_RESUME, MAIL_LOGIN, MAIL_ACCESS, MAIL_QUIESCE, MAIL_STOP };

struct mail_head {
    uint32_t size; /* of head and content, a multiple of 8 */
    uint8_t type;
    uint8_t reason; /* or enum bus_transport, of MAIL_SOCKET */
    uint16_t reserved;
    union {
        struct {
            uint32_t topic_length, payload_length, properties_length, target_count, identifier_count;
            uint32_t expiry_interval, expiry_at;
            uint64_t retained;
            uint8_t qos;
            bool retain, expires;
        } deliver; /* and of MAIL_HAND, then followed by struct persistent_handed; followed by struct router_subscription of each target,
                      their identifiers, topic, properties, payload */
        int socket;
        struct {
            uint32_t slot, generation;
        } connection;
        uint64_t awaited; /* MAIL_RESUME, with the enum pause_reason in `reason` */
    };
};

static size_t round_up(size_t size)
{
    return (size + 7) & ~(size_t)7;
}

/* Reserves `size` bytes of mail; the lock is held until mail_send. */
static uint8_t *mail_begin(struct loop *to, size_t size)
{
    pthread_mutex_lock(&to->mail_lock);
    if (buffer_reserve(&to->mail, size)) {
        pthread_mutex_unlock(&to->mail_lock);
        return NULL;
    }
    return to->mail.data + to->mail.length;
}

static void mail_send(struct loop *to, size_t size)
{
    bool first = to->mail.length == 0;
    to->mail.length += size;
    atomic_store_explicit(&to->mail_bytes, to->mail.length, memory_order_relaxed);
    pthread_mutex_unlock(&to->mail_lock);
    if (first && !atomic_load(&to->deaf))
        uv_async_send(&to->wake);
}

static void send_small(struct loop *to, const struct mail_head *head)
{
    uint8_t *at = mail_begin(to, sizeof *head);
    if (!at) {
        if (head->type == MAIL_SOCKET) {
            link_turn_away(to->bus, head->socket, (enum bus_transport)head->reason);
        }
        return;
    }
    memcpy(at, head, sizeof *head);
    mail_send(to, sizeof *head);
}

static uint8_t *put(uint8_t *at, const void *bytes, size_t size)
{
    if (size)
        memcpy(at, bytes, size);
    return at + size;
}

static int send_message(struct loop *to, const struct mqtt_publish *publish, uint64_t retained, const struct router_match *match,
                        uint32_t first, uint32_t count, const struct persistent_handed *handed)
{
    size_t targets_size = count * sizeof *match->subscribers, identifiers_size = match->identifier_count * sizeof *match->identifiers;
    size_t handed_size = handed ? sizeof *handed : 0;
    size_t content =
        handed_size + targets_size + identifiers_size + publish->topic.length + publish->properties_raw.length + publish->payload.length;
    size_t size = round_up(sizeof(struct mail_head) + content);
    uint8_t *at = mail_begin(to, size);
    if (!at)
        return ERR_NO_MEMORY;
    struct mail_head head = {.size = (uint32_t)size, .type = handed ? MAIL_HAND : MAIL_DELIVER};
    head.deliver.topic_length = publish->topic.length;
    head.deliver.payload_length = publish->payload.length;
    head.deliver.properties_length = publish->properties_raw.length;
    head.deliver.target_count = count;
    head.deliver.identifier_count = match->identifier_count;
    head.deliver.expiry_interval = publish->message_expiry_interval;
    head.deliver.expiry_at = publish->message_expiry_at;
    head.deliver.retained = retained;
    head.deliver.qos = publish->qos;
    head.deliver.retain = publish->retain;
    head.deliver.expires = publish->has_message_expiry;
    at = put(at, &head, sizeof head);
    at = put(at, handed, handed_size);
    at = put(at, match->subscribers + first, targets_size);
    at = put(at, match->identifiers, identifiers_size);
    at = put(at, publish->topic.data, publish->topic.length);
    at = put(at, publish->properties_raw.data, publish->properties_raw.length);
    put(at, publish->payload.data, publish->payload.length);
    mail_send(to, size);
    return 0;
}

int mail_deliver(struct loop *to, const struct mqtt_publish *publish, uint64_t retained, const struct router_match *match, uint32_t first,
                 uint32_t count)
{
    if (atomic_load_explicit(&to->mail_bytes, memory_order_relaxed) > to->bus->options.mail_hard_max)
        return ERR_LIMIT;
    return send_message(to, publish, retained, match, first, count, NULL);
}

int mail_hand(struct loop *to, const struct mqtt_publish *publish, const struct router_match *match, const struct persistent_handed *handed)
{
    return send_message(to, publish, 0, match, 0, match->count, handed);
}

void mail_socket(struct loop *to, int socket, enum bus_transport kind)
{
    send_small(to, &(struct mail_head){.size = sizeof(struct mail_head), .type = MAIL_SOCKET, .reason = (uint8_t)kind, .socket = socket});
}

void mail_close(struct loop *to, uint32_t slot, uint32_t generation, enum close_reason reason)
{
    send_small(to, &(struct mail_head){
                       .size = sizeof(struct mail_head), .type = MAIL_CLOSE, .reason = (uint8_t)reason, .connection = {slot, generation}});
}

void mail_resume_all(struct bus *bus, enum pause_reason reason, uint64_t awaited)
{
    for (unsigned i = 0; i < bus->options.loop_count; i++)
        send_small(
            &bus->loops[i],
            &(struct mail_head){.size = sizeof(struct mail_head), .type = MAIL_RESUME, .reason = (uint8_t)reason, .awaited = awaited});
}

void mail_login(struct loop *to, uint32_t slot, uint32_t generation, enum door_login login)
{
    send_small(to, &(struct mail_head){
                       .size = sizeof(struct mail_head), .type = MAIL_LOGIN, .reason = (uint8_t)login, .connection = {slot, generation}});
}

void mail_access(struct loop *to)
{
    send_small(to, &(struct mail_head){.size = sizeof(struct mail_head), .type = MAIL_ACCESS});
}

void mail_quiesce(struct loop *to)
{
    send_small(to, &(struct mail_head){.size = sizeof(struct mail_head), .type = MAIL_QUIESCE});
}

void mail_stop(struct loop *to)
{
    send_small(to, &(struct mail_head){.size = sizeof(struct mail_head), .type = MAIL_STOP});
}

static void read_deliver(struct loop *loop, const struct mail_head *head, const uint8_t *at)
{
    const struct persistent_handed *handed = NULL;
    if (head->type == MAIL_HAND) {
        handed = (const struct persistent_handed *)(const void *)at;
        at += sizeof *handed;
    }
    const struct router_subscription *targets = (const struct router_subscription *)(const void *)at;
    const uint32_t *identifiers = (const uint32_t *)(const void *)(targets + head->deliver.target_count);
    at = (const uint8_t *)(identifiers + head->deliver.identifier_count);
    struct mqtt_publish publish = {.qos = head->deliver.qos,
                                   .retain = head->deliver.retain,
                                   .has_message_expiry = head->deliver.expires,
                                   .message_expiry_interval = head->deliver.expiry_interval,
                                   .message_expiry_at = head->deliver.expiry_at};
    publish.topic = (struct mqtt_slice){at, head->deliver.topic_length};
    at += head->deliver.topic_length;
    publish.properties_raw = (struct mqtt_slice){at, head->deliver.properties_length};
    at += head->deliver.properties_length;
    publish.payload = (struct mqtt_slice){at, head->deliver.payload_length};
    for (uint32_t i = 0; i < head->deliver.target_count; i++) {
        struct connection *to = connection_find(loop, targets[i].connection, targets[i].generation);
        if (handed && handed->member) {
            if (to)
                shared_receive(to, handed->member, &publish, &targets[i], handed->owed, handed);
        } else if (handed) { /* where it is twice, the second is for what the client has published itself */
            bool twice = i + 1 < head->deliver.target_count && targets[i + 1].connection == targets[i].connection;
            if (to && to->persistent)
                persistent_receive(to, &publish, &targets[i + (twice && persistent_is_own(to, handed))], identifiers, handed);
            i += twice;
        } else if (to && !(targets[i].options & ROUTER_OWN_ONLY))
            deliver_local(loop, to, &publish, head->deliver.retained, &targets[i], identifiers);
    }
}

void mail_read(struct loop *loop)
{
    pthread_mutex_lock(&loop->mail_lock);
    struct buffer mail = loop->mail;
    loop->mail = loop->mail_read;
    loop->mail.length = 0;
    atomic_store_explicit(&loop->mail_bytes, 0, memory_order_relaxed);
    pthread_mutex_unlock(&loop->mail_lock);
    bool was_full = mail.length > loop->bus->options.mail_soft_max;
    for (size_t position = 0; position < mail.length;) {
        const struct mail_head *head = (const struct mail_head *)(const void *)(mail.data + position);
        struct connection *connection;
        switch ((enum mail_type)head->type) {
        case MAIL_DELIVER:
        case MAIL_HAND:
            read_deliver(loop, head, (const uint8_t *)(head + 1));
            break;
        case MAIL_SOCKET:
            connection_open(loop, head->socket, (enum bus_transport)head->reason);
            break;
        case MAIL_CLOSE:
            connection = connection_find(loop, head->connection.slot, head->connection.generation);
            if (connection)
                connection_close(connection, (enum close_reason)head->reason, 0x8e);
            break;
        case MAIL_RESUME:
            loop_resume(loop, (enum pause_reason)head->reason, head->awaited);
            break;
        case MAIL_LOGIN:
            connection = connection_find(loop, head->connection.slot, head->connection.generation);
            if (connection)
                door_logged_in(connection, (enum door_login)head->reason);
            break;
        case MAIL_ACCESS:
            door_renew(loop);
            break;
        case MAIL_QUIESCE:
            loop->quiesce = true;
            break;
        case MAIL_STOP:
            loop_stop(loop);
            break;
        }
        position += head->size;
    }
    mail.length = 0;
    buffer_shrink(&mail, LOOP_MAIL_SOFT_MAX / 4);
    loop->mail_read = mail;
    if (was_full)
        mail_resume_all(loop->bus, PAUSE_MAIL, loop->index);
}
