/* The sending side of a simulation: tools, holes, and the messages that wait for their connection. One thread. */
#ifndef SIMULATE_SIMULATE_PLAY_H
#define SIMULATE_SIMULATE_PLAY_H

#include <stdio.h>

#include "base/buffer.h"
#include "base/random.h"
#include "drilling/topics.h"
#include "load/load_client.h"
#include "simulate/simulate.h"
#include "simulate/simulate_curves.h"
#include "simulate/simulate_ledger.h"
#include "simulate/simulate_tally.h"

struct simulate_tool {
    char toolbox[32], name[24], device[32], machine_id[16], head_id[24];
    unsigned layout; /* enum simulator_layout */
    unsigned link;
    uint64_t next_stamp_s; /* each hole of a tool has its own second */
};

/* A message that waits: `tag` names its hole and which of the hole's messages it is. */
struct simulate_outgoing {
    uint32_t tag;
    bool again; /* it had left before the connection was lost */
};

struct simulate_link {
    struct simulation *simulation;
    struct load_connection *connection;
    unsigned granted;                /* subscriptions; of the receiver, which has no queue */
    struct simulate_outgoing *queue; /* [queue_capacity] ring; owned */
    size_t queue_capacity, queue_head, queue_length;
};

struct simulate_late {
    uint64_t at_ns;
    uint32_t tag;
};

struct simulation {
    const struct simulate_options *options;
    struct topics_options topics;
    char prefix[16]; /* of the toolboxes: tells this run's answers from others' */
    struct simulate_curves curves;
    struct simulate_ledger ledger;
    struct simulate_tally *tally;
    struct simulate_tool *tools; /* [options->tools] */
    struct simulate_link *links; /* [link_count] */
    unsigned link_count;
    struct simulate_late *late; /* [ledger.capacity] ring, by time */
    size_t late_head, late_count;
    struct load_client *client;
    struct simulate_link receiver;
    uint64_t receiver_since_ns; /* 0: it is cut off, and nothing is sent, because the answer could go by */
    struct random_source random;
    struct buffer payload, topic;
    uint64_t begin_ns, holes_sent;
    FILE *report;
    bool stopping;                      /* no more holes */
    char problem[LOAD_REASON_TEXT_MAX]; /* the last reason why a connection was lost */
};

/* Prepares tools and links. Returns 0 or ERR_NO_MEMORY. */
int simulate_play_init(struct simulation *simulation, uint64_t wall_s);
void simulate_play_fini(struct simulation *simulation);

/* Opens the holes that are due, as far as the window allows, and queues their messages. Returns when the next one is due (monotonic ns);
 * UINT64_MAX: when the window has room. */
uint64_t simulate_play_holes(struct simulation *simulation, uint64_t now_ns);

/* Hands queued messages to the connections that take them. Returns 0, or ERR_NO_MEMORY or ERR_LIMIT when a message cannot be made. */
int simulate_play_messages(struct simulation *simulation);

/* Late heads that are due go into their queue. Returns when the next are due; UINT64_MAX: never. */
uint64_t simulate_play_late(struct simulation *simulation, uint64_t now_ns);

/* A message was acknowledged; or has to be sent again, because its connection was lost. */
void simulate_play_acknowledged(struct simulation *simulation, uint32_t tag, uint64_t now_ns, uint8_t reason);
void simulate_play_again(struct simulation *simulation, struct simulate_link *link, uint32_t tag);

/* Notes that the answer of a hole is not waited for any longer; frees it when nothing else is. */
void simulate_play_give_up(struct simulation *simulation, struct simulate_hole *hole);

/* Frees the hole when nothing of it is waited for, and writes its line of the report. */
void simulate_play_settle(struct simulation *simulation, struct simulate_hole *hole);

/* One line of the report, if there is one. */
void simulate_play_report(struct simulation *simulation, const struct simulate_hole *hole);

#endif
