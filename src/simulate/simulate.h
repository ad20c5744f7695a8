/* Simulated drilling: tools that publish holes, and a receiver that measures what comes back. */
#ifndef SIMULATE_SIMULATE_H
#define SIMULATE_SIMULATE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    SIMULATE_TOOLS_MAX = 100000,
    SIMULATE_LINKS_MAX = 1000,
    SIMULATE_WINDOW_MAX = 100000,
    SIMULATE_LATE_HEADS_S = 3, /* longer than a server waits for heads */
};

#define SIMULATE_SHAPES_DEFAULT "one-stack=30,two-stack=48,micro-peck=10,aborted=7,air=5"

enum simulate_verdict {
    SIMULATE_DONE,
    SIMULATE_FAILED, /* holes were lost, answers were wrong, or the server could not be reached */
    SIMULATE_REFUSED /* an option is wrong */
};

struct simulate_options {
    const char *host;
    uint16_t port;
    uint8_t version; /* enum mqtt_version */
    uint8_t qos;     /* of the publishers; the receiver subscribes with QoS 1 */
    unsigned tools;
    unsigned connections; /* of the publishers; tools are dealt to them, 0: one for five tools, at most 16 */
    unsigned window;      /* holes without a complete answer */
    double rate;          /* holes a second; 0: as fast as it goes */
    double duration_s;    /* 0: until `holes` are sent */
    uint64_t holes;       /* 0: until the duration is over */
    double timeout_s;     /* how long an answer, or a server that is away, is waited for */
    const char *curves;   /* folder of recorded curves; NULL: generated ones */
    const char *shapes;   /* of generated curves, see simulate_mix_parse */
    uint64_t seed;
    const char *root;                                   /* topic root; NULL: OPCPUBSUB */
    bool shuffle;                                       /* messages of different holes and kinds in another order */
    double duplicates, late_heads, malformed, no_heads; /* shares, 0 .. 1: of messages, of holes, one more message a hole, of holes */
    bool messages_array;                                /* the envelope's Messages is an array */
    const char *report;                                 /* file for one JSON object a hole; NULL: none */
    bool json;
};

/* Plays until the end, SIGINT or SIGTERM (then it waits for what is under way; a second signal ends at once), and prints the summary.
 * Standard error says why it was refused or failed. */
enum simulate_verdict simulate(const struct simulate_options *options);

#endif
