#include "queue/watch.h"

#include <assert.h>
#include <stddef.h>

void watch_init(struct watch *watch)
{
    *watch = (struct watch){.watched = false};
    pthread_mutex_init(&watch->lock, NULL);
}

void watch_fini(struct watch *watch)
{
    pthread_mutex_destroy(&watch->lock);
}

void watch_set(struct watch *watch, void (*notify)(void *context), void *context)
{
    pthread_mutex_lock(&watch->lock);
    assert(!notify || !watch->notify);
    watch->notify = notify;
    watch->context = context;
    atomic_store(&watch->watched, notify != NULL);
    pthread_mutex_unlock(&watch->lock);
}

void watch_tell(struct watch *watch)
{
    if (!atomic_load_explicit(&watch->watched, memory_order_acquire))
        return;
    pthread_mutex_lock(&watch->lock);
    if (watch->notify)
        watch->notify(watch->context);
    pthread_mutex_unlock(&watch->lock);
}
