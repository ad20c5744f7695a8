/* An event loop: its thread, its slots of connections, and what it does once a turn.
 *
 * One turn: read from every socket that has something (decode, route, append to the journal's open chunk, encode deliveries), then
 * send the chunk off, then touch each socket that has something to send with one write. */
#include "bus/loop.h"

#include <assert.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/diagnostics.h"
#include "base/error.h"
#include "bus/persistent.h"
#include "bus/shared.h"

uint64_t loop_wall_ns(struct loop *loop)
{
    if (!loop->turn_wall_ns)
        loop->turn_wall_ns = clock_wall_ns();
    return loop->turn_wall_ns;
}

/* ---- slots ---- */

static int more_slots(struct loop *loop)
{
    uint32_t count = loop->slot_count ? loop->slot_count * 2 : LOOP_SLOTS_FIRST;
    if (count > loop->slots_max)
        return ERR_LIMIT;
    struct connection **slots = realloc(loop->slots, count * sizeof(struct connection *));
    if (slots)
        loop->slots = slots;
    uint32_t *generations = realloc(loop->generations, count * sizeof *generations);
    if (generations)
        loop->generations = generations;
    uint32_t *free_slots = realloc(loop->free_slots, count * sizeof *free_slots);
    if (free_slots)
        loop->free_slots = free_slots;
    if (!slots || !generations || !free_slots)
        return ERR_NO_MEMORY;
    for (uint32_t i = count; i > loop->slot_count; i--) {
        loop->slots[i - 1] = NULL;
        loop->generations[i - 1] = 0;
        loop->free_slots[loop->free_count++] = i - 1;
    }
    loop->slot_count = count;
    return 0;
}

/* ---- deadlines ---- */

static void on_sweep(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    uint64_t now_ns = uv_now(&loop->uv) * 1000000u, next_ns = UINT64_MAX;
    loop->watching = false;
    for (uint32_t i = 0; i < loop->slot_count; i++) {
        uint64_t again_ns = loop->slots[i] ? connection_check(loop->slots[i], now_ns) : UINT64_MAX;
        if (again_ns < next_ns)
            next_ns = again_ns;
    }
    loop_resume(loop, PAUSE_PACKET, 0);
    if (memory_level(loop->bus) <= MEMORY_PRESSED)
        loop_resume(loop, PAUSE_MEMORY, 0);
    if (loop->paused[PAUSE_MEMORY] || loop->paused[PAUSE_PACKET])
        next_ns = now_ns;
    if (loop->dirty || loop->needs_submit)
        uv_async_send(&loop->wake); /* timers run before the turn's wait: without this the ends would be met a sweep later */
    uint64_t wait_ms = next_ns <= now_ns ? 0 : (next_ns - now_ns) / 1000000u + 1;
    if (wait_ms <= LOOP_SWEEP_MS)
        loop_watch(loop);
    else if (!loop->watching && next_ns != UINT64_MAX)
        uv_timer_start(timer, on_sweep, wait_ms, 0); /* nothing runs while clients are idle */
}

void loop_watch(struct loop *loop)
{
    if (loop->watching || loop->stopping)
        return;
    loop->watching = true;
    uv_timer_start(&loop->sweep, on_sweep, LOOP_SWEEP_MS, 0);
}

/* ---- connections ---- */

struct connection *loop_new_connection(struct loop *loop)
{
    if (loop->free_count == 0 && more_slots(loop))
        return NULL;
    struct connection *connection = calloc(1, sizeof *connection);
    if (!connection)
        return NULL;
    uint32_t slot = loop->free_slots[--loop->free_count];
    loop->generations[slot] = (loop->generations[slot] + 1) & ((1u << LOOP_GENERATION_BITS) - 1);
    loop->slots[slot] = connection;
    connection->loop = loop;
    connection->slot = slot;
    connection->generation = loop->generations[slot];
    counter_add(&loop->counters.connections, 1);
    loop->open_count++;
    loop_watch(loop);
    return connection;
}

void loop_forget(struct connection *connection)
{
    struct loop *loop = connection->loop;
    loop->slots[connection->slot] = NULL;
    loop->free_slots[loop->free_count++] = connection->slot;
    bool queued = connection->paused && connection->pause == PAUSE_PACKET;
    loop_unpause(connection);
    if (queued && atomic_load(&loop->bus->packets_waiting))
        mail_resume_all(loop->bus, PAUSE_PACKET, 0); /* those behind it may fit where it did not */
    counter_add(&loop->counters.connections, (uint64_t)-1);
    atomic_fetch_sub(&loop->bus->connection_count, 1);
    if (--loop->open_count == 0) {
        uv_timer_stop(&loop->sweep);
        loop->watching = false;
    }
    if (loop->open_count == 0 && loop->stopping)
        uv_close((uv_handle_t *)&loop->sweep, NULL);
}

/* ---- one turn ---- */

void loop_mark_dirty(struct connection *connection)
{
    if (connection->dirty)
        return;
    connection->dirty = true;
    connection->dirty_next = connection->loop->dirty;
    connection->loop->dirty = connection;
}

static void flush_dirty(struct loop *loop)
{
    struct connection *list = loop->dirty;
    loop->dirty = NULL;
    while (list) {
        struct connection *connection = list;
        list = connection->dirty_next;
        connection->dirty = false;
        if (connection->closing) {
            connection_end(connection);
        } else {
            link_flush(connection);
            connection_retry(connection);
            if (connection->persistent)
                persistent_turn(connection);
            if (connection->shared)
                shared_turn(connection);
        }
    }
}

static void release(void *context, const uint64_t *tokens, size_t count)
{
    struct loop *loop = context;
    for (size_t i = 0; i < count; i++) {
        uint64_t token = tokens[i];
        if (token == LOOP_WILL_TOKEN) {
            will_durable(loop);
            continue;
        }
        struct connection *connection =
            connection_find(loop, token >> 40 & ((1u << LOOP_SLOT_BITS) - 1), token >> 16 & ((1u << LOOP_GENERATION_BITS) - 1));
        if (connection)
            connection_acknowledge(connection, (uint16_t)token, token >> 63);
    }
}

void loop_flush_retained(struct loop *loop)
{
    if (loop->retains)
        retained_flush(loop->bus->retained);
    loop->retains = false;
}

void loop_submit(struct loop *loop)
{
    loop_flush_retained(loop);
    if (loop->notes)
        sessions_flush(loop->bus->sessions);
    loop->notes = false;
    loop->producer->ops->submit(loop->producer);
}

static void check_drained(struct loop *loop)
{
    if (!loop->quiet || loop->sent_wills || loop->producer->ops->backlog(loop->producer))
        return;
    for (uint32_t i = 0; i < loop->slot_count; i++)
        if (loop->slots[i] && link_has_output(loop->slots[i]) && !loop->slots[i]->writing) /* who takes nothing is given LOOP_LINGER_MS */
            return;
    atomic_store(&loop->drained, true);
}

static void on_wake(uv_async_t *async)
{
    struct loop *loop = async->data;
    loop->producer->ops->poll(loop->producer, release, loop);
    if (loop->paused[PAUSE_JOURNAL] && loop->producer->ops->backlog(loop->producer) <= loop->bus->options.journal_backlog_max / 2)
        loop_resume(loop, PAUSE_JOURNAL, 0);
    if (atomic_load_explicit(&loop->awaits, memory_order_relaxed))
        persistent_durable(loop);
    mail_read(loop);
    handout_turn(loop);
}

/* At the end of a turn: what had arrived when it was asked for has been read, in whatever order sockets and mail were reported. */
static void quiesce(struct loop *loop)
{
    loop->quiesce = false;
    loop->quiet = true;
    if (loop->index == 0)
        listener_close(loop->bus);
    for (uint32_t i = 0; i < loop->slot_count; i++)
        if (loop->slots[i] && !loop->slots[i]->closing)
            link_stop(loop->slots[i]);
    will_stop(loop);
}

static void send_off(struct loop *loop)
{
    while (loop->needs_submit || loop->dirty) { /* again when an ending connection had a will */
        /* A few messages are delivered before the disk is woken for them; with many the disk should begin at once. */
        bool disk_first = loop->producer->ops->gathered(loop->producer) > LOOP_DISK_FIRST;
        loop->needs_submit = false;
        if (disk_first)
            loop_submit(loop);
        flush_dirty(loop);
        if (!disk_first)
            loop_submit(loop);
    }
}

static void on_turn_end(uv_check_t *check)
{
    struct loop *loop = check->data;
    if (loop->quiesce)
        quiesce(loop);
    send_off(loop);
    if (loop->shaking) {
        link_shake_hands(loop);
        send_off(loop);
    }
    loop->turn_wall_ns = 0;
    memory_tell(loop);
    check_drained(loop);
}

static void on_durable(void *context)
{
    struct loop *loop = context;
    if (!atomic_load(&loop->deaf))
        uv_async_send(&loop->wake);
}

/* ---- holding senders back ---- */

void loop_pause(struct connection *connection, enum pause_reason reason, uint64_t awaited)
{
    if (connection->paused || connection->closing)
        return;
    struct loop *loop = connection->loop;
    connection->paused = true;
    connection->retry = false;
    connection->pause = reason;
    connection->awaited = awaited;
    DL_APPEND2(loop->paused[reason], connection, paused_before, paused_next);
    if (reason == PAUSE_PACKET)
        atomic_fetch_add(&loop->bus->packets_waiting, 1);
    link_stop(connection);
    counter_add(&loop->counters.paused[reason], 1);
    counter_add(&loop->counters.paused_now[reason], 1);
    if (reason == PAUSE_MEMORY || reason == PAUSE_PACKET || reason == PAUSE_LOGIN)
        loop_watch(loop);
    if (reason == PAUSE_MEMORY)
        DIAG_LIMITED(DIAGNOSTICS_WARNING, "bus",
                     CONNECTION_NAME
                     " and others wait: the queues of all clients take %zu bytes, more than half of bus.memory_max; subscribers "
                     "that take nothing are disconnected",
                     CONNECTION_NAMED(connection), atomic_load(&loop->bus->memory_out));
}

void loop_unpause(struct connection *connection)
{
    if (!connection->paused)
        return;
    struct loop *loop = connection->loop;
    DL_DELETE2(loop->paused[connection->pause], connection, paused_before, paused_next);
    if (connection->pause == PAUSE_PACKET)
        atomic_fetch_sub(&loop->bus->packets_waiting, 1);
    counter_add(&loop->counters.paused_now[connection->pause], (uint64_t)-1);
    connection->paused = false;
}

void loop_resume(struct loop *loop, enum pause_reason reason, uint64_t awaited)
{
    if (loop->quiet)
        return;
    if (reason == PAUSE_PACKET) {
        memory_resume(loop);
        return;
    }
    /* Whoever has to wait again goes to the end of the list: `last` is the last that waits now. */
    struct connection *connection = loop->paused[reason], *last = connection ? connection->paused_before : NULL;
    for (bool more = connection != NULL; more;) {
        struct connection *next = connection->paused_next;
        more = connection != last;
        if (connection->awaited == awaited || connection->awaited == LOOP_AWAIT_ANY) {
            loop_unpause(connection);
            connection_continue(connection);
        }
        connection = next;
    }
}

/* ---- the end ---- */

static void on_linger(uv_timer_t *timer)
{
    struct loop *loop = timer->data;
    for (uint32_t i = 0; i < loop->slot_count; i++)
        if (loop->slots[i])
            connection_drop(loop->slots[i]);
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

void loop_stop(struct loop *loop)
{
    if (loop->stopping)
        return;
    loop->quiet = loop->stopping = true;
    will_stop(loop);
    if (loop->index == 0)
        listener_close(loop->bus);
    for (uint32_t i = 0; i < loop->slot_count; i++) {
        struct connection *connection = loop->slots[i];
        if (!connection)
            continue;
        connection_close(connection, CLOSE_SHUTDOWN, 0x8b);
    }
    if (loop->index == 0)
        sys_stop(loop->bus);
    uv_close((uv_handle_t *)&loop->wills, NULL);
    atomic_store(&loop->deaf, true);
    uv_close((uv_handle_t *)&loop->wake, NULL);
    uv_close((uv_handle_t *)&loop->quota_due, NULL);
    if (loop->open_count)
        uv_timer_start(&loop->sweep, on_linger, LOOP_LINGER_MS, 0);
    else
        uv_close((uv_handle_t *)&loop->sweep, NULL);
}

static void *run(void *context)
{
    struct loop *loop = context;
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    return NULL;
}

int loop_start(struct loop *loop, struct bus *bus, unsigned index)
{
    loop->bus = bus;
    loop->index = index;
    pthread_mutex_init(&loop->mail_lock, NULL);
    buffer_init(&loop->mail, (size_t)LOOP_MAIL_HARD_MAX * 2);
    buffer_init(&loop->mail_read, (size_t)LOOP_MAIL_HARD_MAX * 2);
    buffer_init(&loop->properties_in, MQTT_REMAINING_LENGTH_MAX);
    buffer_init(&loop->properties_out, (size_t)MQTT_REMAINING_LENGTH_MAX * 2);
    loop->read_buffer = malloc(LOOP_READ_SIZE);
    loop->wire_buffer = malloc(LOOP_WIRE_SIZE);
    for (loop->slots_max = LOOP_SLOTS_FIRST; loop->slots_max < bus->options.connections_max && loop->slots_max < 1u << LOOP_SLOT_BITS;)
        loop->slots_max *= 2;
    loop->congested = calloc(loop->slots_max, sizeof *loop->congested);
    if (!loop->read_buffer || !loop->wire_buffer || !loop->congested || uv_loop_init(&loop->uv))
        return ERR_NO_MEMORY;
    loop->initialised = true;
    uv_async_init(&loop->uv, &loop->wake, on_wake);
    uv_check_init(&loop->uv, &loop->turn_end);
    uv_timer_init(&loop->uv, &loop->sweep);
    uv_timer_init(&loop->uv, &loop->quota_due);
    uv_timer_init(&loop->uv, &loop->wills);
    loop->quota_due.data = loop->wake.data = loop->turn_end.data = loop->sweep.data = loop->wills.data = loop;
    uv_check_start(&loop->turn_end, on_turn_end);
    uv_unref((uv_handle_t *)&loop->turn_end);
    int error = router_cache_create(NULL, &loop->cache);
    if (!error)
        error = bus->options.queue->ops->producer_open(bus->options.queue, on_durable, loop, &loop->producer);
    if (error)
        return error;
    if (index == 0)
        error = sys_start(bus);
    if (error)
        return error;
    if (index == 0)
        error = will_start(loop);
    if (error)
        return error;
    if (index == 0)
        listener_watch(bus);
    if (pthread_create(&loop->thread, NULL, run, loop))
        return ERR_NO_MEMORY;
    loop->started = true;
    return 0;
}

void loop_join(struct loop *loop)
{
    if (loop->started)
        pthread_join(loop->thread, NULL);
    loop->started = false;
}

void loop_fini(struct loop *loop)
{
    if (loop->producer)
        loop->producer->ops->close(loop->producer); /* nobody wakes the loop any more */
    if (loop->initialised) {
        uv_walk(&loop->uv, close_handle, NULL);
        uv_run(&loop->uv, UV_RUN_DEFAULT);
        uv_loop_close(&loop->uv);
    }
    will_fini(loop);
    router_cache_destroy(loop->cache);
    buffer_fini(&loop->mail);
    buffer_fini(&loop->mail_read);
    buffer_fini(&loop->properties_in);
    buffer_fini(&loop->properties_out);
    pthread_mutex_destroy(&loop->mail_lock);
    free(loop->read_buffer);
    free(loop->wire_buffer);
    free(loop->congested);
    free(loop->slots);
    free(loop->generations);
    free(loop->free_slots);
}
