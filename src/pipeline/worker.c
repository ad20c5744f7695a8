/* A worker: runs whichever lane has work, and sends off what was decided before it lets the lane go, so that the answers of a key
 * leave in order. */
#include "pipeline/internal.h"

void *worker_main(void *argument)
{
    struct worker *worker = argument;
    struct pipeline *pipeline = worker->pipeline;
    struct slice slice = {0};
    while (scheduler_next(&pipeline->scheduler, &slice, pipeline_relief(pipeline))) {
        lane_run(worker, &pipeline->lanes[slice.lane], &slice);
        pipeline_commit(pipeline, worker->writer, &worker->commit);
    }
    pipeline_thread_ended(pipeline);
    return NULL;
}
