/* What all backends share: reference counts of batches. */
#include "queue/queue.h"

void queue_batch_retain(struct queue_batch *batch)
{
    __atomic_add_fetch(&batch->references, 1, __ATOMIC_RELAXED);
}

void queue_batch_release(struct queue_batch *batch)
{
    if (__atomic_sub_fetch(&batch->references, 1, __ATOMIC_ACQ_REL) == 0)
        batch->queue->ops->batch_free(batch);
}
