/* The receiving side of a simulation: each answer is read, matched with its hole, checked and measured. */
#ifndef SIMULATE_SIMULATE_RECEIVE_H
#define SIMULATE_SIMULATE_RECEIVE_H

#include "simulate/simulate_play.h"

void simulate_receive(struct simulation *simulation, const struct mqtt_publish *publish, uint64_t now_ns);

#endif
