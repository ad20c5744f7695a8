/* Which streams hold messages. */
#include "bus/follower.h"

const enum queue_content follower_contents[FOLLOWER_CONTENTS] = {QUEUE_CONTENT_CONSUMED, QUEUE_CONTENT_KEPT, QUEUE_CONTENT_RESULTS};
