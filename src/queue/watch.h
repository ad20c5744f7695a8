/* Who wants to know that a stream has become longer (queue_ops.watch). */
#ifndef QUEUE_WATCH_H
#define QUEUE_WATCH_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct watch {
    atomic_bool watched; /* asked without the lock */
    pthread_mutex_t lock;
    void (*notify)(void *context); /* NULL: nobody watches */
    void *context;
};

void watch_init(struct watch *watch);
void watch_fini(struct watch *watch);

/* NULL: nobody watches any more; `notify` is not running when it returns. Any thread, but not from within `notify`. */
void watch_set(struct watch *watch, void (*notify)(void *context), void *context);
void watch_tell(struct watch *watch); /* any thread */

#endif
