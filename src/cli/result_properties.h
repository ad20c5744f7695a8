/* The user properties with which a result is published: what subscribers of MQTT 5 see, the tools show, and a replay sends. */
#ifndef CLI_RESULT_PROPERTIES_H
#define CLI_RESULT_PROPERTIES_H

#include "base/buffer.h"
#include "base/message.h"

/* Bytes; message id and id of a replay with their names. The second is a level of a topic, of any length. */
enum { RESULT_PROPERTIES_MAX = 66000 };

/* Appends them for a record of the stream `results`, as MQTT 5 property bytes: `message-id`, what the record has as its properties, and of
 * an answer to replayed messages `replayed`, the id of the replay. Nothing where there is neither. Returns 0, ERR_LIMIT or ERR_NO_MEMORY;
 * then `out` may hold the first alone. */
int result_properties_write(const struct message *result, struct buffer *out);

#endif
