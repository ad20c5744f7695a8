/* The data folder of a stopped server, opened by a command as a server would open it: recovered, locked, and written with the journal's own
 * functions. Nothing handles messages meanwhile. */
#ifndef CLI_DEAD_OFFLINE_H
#define CLI_DEAD_OFFLINE_H

#include "queue/dead_letters.h"
#include "queue/queue.h"

struct dead_offline;

/* ERR_BUSY when a server holds the folder. What else is wrong is said by diagnostics. The folder must exist. */
int dead_offline_open(struct dead_offline **offline, const char *data_dir);

struct queue *dead_offline_queue(struct dead_offline *offline);
struct dead_letters *dead_offline_letters(struct dead_offline *offline);

/* Marks on disk what was requeued, and closes in order. Accepts NULL. */
int dead_offline_close(struct dead_offline *offline);

#endif
