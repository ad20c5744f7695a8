/* The byte budget of the bus: what the packets that have not arrived whole, and the outgoing queues, may take together.
 *
 * A quarter of memory_max is for packets larger than CONNECTION_PREFIX_MAX. One that is begun has its whole size reserved, so that it can
 * always be finished; another waits, unread, in order of arrival. Who leaves its packet unfinished while others wait is
 * disconnected after the stall time-out (connection_check), so that a budget full of halves empties by itself.
 *
 * The rest is for outgoing queues, and is given up in steps (enum memory_level): from a quarter on, queues must be short, so that those who
 * take nothing are in the way of nobody else; from a half on, senders wait; three quarters are reached only by what cannot be held back.
 *
 * Each loop counts for itself and tells the bus when its count has moved by LOOP_MEMORY_SLACK, and at the end of a turn. What counts is
 * capacity, not content, but for the little that an empty buffer keeps: nobody is to wait for memory in which nothing is. */
#include "bus/loop.h"

#include "base/error.h"

static size_t in_max(const struct bus *bus)
{
    size_t quarter = bus->options.memory_max / 4, packet = bus->options.packet_size_max;
    return quarter > 2 * packet ? quarter : 2 * packet; /* the largest packet always fits, with what is read behind it */
}

size_t memory_queue_max(const struct bus *bus)
{
    size_t most = bus->options.outgoing_soft_max;
    enum memory_level level = memory_level(bus);
    if (level == MEMORY_AMPLE)
        return most;
    return level != MEMORY_PRESSED ? 0 : most < LOOP_PRESSED_QUEUE_MAX ? most : LOOP_PRESSED_QUEUE_MAX;
}

void memory_tell(struct loop *loop)
{
    if (loop->memory_out == loop->memory_told)
        return;
    struct bus *bus = loop->bus;
    size_t more = loop->memory_out - loop->memory_told, half = bus->options.memory_max / 4 * 2;
    loop->memory_told = loop->memory_out;
    size_t before = atomic_fetch_add(&bus->memory_out, more); /* `more` may be negative: it wraps */
    if (before > half && before + more <= half)
        mail_resume_all(bus, PAUSE_MEMORY, 0);
}

void memory_note_out(struct connection *connection)
{
    struct loop *loop = connection->loop;
    size_t now = connection->shut ? 0 : connection_memory(connection);
    if (now == connection->counted_out)
        return;
    loop->memory_out += now - connection->counted_out;
    connection->counted_out = now;
    if (loop->memory_out - loop->memory_told + LOOP_MEMORY_SLACK > 2 * LOOP_MEMORY_SLACK) /* either way */
        memory_tell(loop);
}

void memory_note_in(struct connection *connection)
{
    struct bus *bus = connection->loop->bus;
    size_t capacity = connection->in.capacity;
    size_t now = connection->shut || capacity <= CONNECTION_PREFIX_MAX ? 0 : capacity, before = connection->counted_in;
    if (now == before)
        return;
    connection->counted_in = now;
    atomic_fetch_add(&bus->memory_in, now - before);
    if (now < before && atomic_load(&bus->packets_waiting))
        mail_resume_all(bus, PAUSE_PACKET, 0);
}

bool memory_in_short(const struct bus *bus)
{
    return atomic_load_explicit(&bus->memory_in, memory_order_relaxed) >= in_max(bus);
}

/* The limit is exact, so that doubling does not take twice what was counted on. */
static int reserve(struct connection *connection, size_t size)
{
    struct buffer *in = &connection->in;
    in->limit = size > LOOP_READ_SIZE ? size : LOOP_READ_SIZE;
    int error = buffer_reserve(in, size - in->length);
    if (!error)
        memory_note_in(connection);
    return error;
}

static bool fits(const struct connection *connection, size_t size)
{
    const struct bus *bus = connection->loop->bus;
    size_t others = atomic_load(&bus->memory_in) - connection->counted_in, most = in_max(bus);
    if (connection->waiting.length)
        most *= 2; /* it owes acknowledgements */
    return others + size <= most;
}

int memory_admit(struct connection *connection, size_t size)
{
    if (size <= connection->in.capacity)
        return 0;
    bool others_first = connection->loop->paused[PAUSE_PACKET] && !connection->waiting.length;
    if (!others_first && fits(connection, size))
        return reserve(connection, size);
    connection->wanted = size;
    loop_pause(connection, PAUSE_PACKET, 0);
    if (fits(connection, size)) /* room was made by another loop, which did not see yet that somebody waits */
        mail_resume_all(connection->loop->bus, PAUSE_PACKET, 0);
    return ERR_LIMIT;
}

void memory_resume(struct loop *loop)
{
    struct connection *first;
    while ((first = loop->paused[PAUSE_PACKET]) && fits(first, first->wanted)) {
        loop_unpause(first);
        int error = reserve(first, first->wanted);
        if (error)
            connection_close(first, CLOSE_LIMIT, error_mqtt_reason(error));
        else
            connection_continue(first);
    }
}
