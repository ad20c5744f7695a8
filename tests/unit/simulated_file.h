/* The content of one file of the simulated disk: what is seen, what is durable, and what was done in between (simulated_disk.h). */
#ifndef TESTS_UNIT_SIMULATED_FILE_H
#define TESTS_UNIT_SIMULATED_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "simulated_disk.h"

struct simulated_page;
struct simulated_change;

struct simulated_image {
    struct simulated_page **pages; /* [page_count], NULL: zeros */
    uint64_t page_count;           /* pages from there on are zeros */
    uint64_t size;
};

/* Zero-initialised: an empty file. */
struct simulated_file {
    struct simulated_image now, durable;
    struct simulated_change *changes; /* since the last sync, in order */
    size_t change_count, change_capacity;
};

void simulated_file_fini(struct simulated_file *file);
void simulated_file_write(struct simulated_file *file, const uint8_t *bytes, size_t count, uint64_t position);
void simulated_file_read(const struct simulated_file *file, uint8_t *bytes, size_t count, uint64_t position); /* zeros behind the end */
void simulated_file_resize(struct simulated_file *file, uint64_t size);

/* All of it becomes durable; or, when the sync fails, a part does, and the rest never will. */
void simulated_file_sync(struct simulated_file *file);
void simulated_file_fail_sync(struct simulated_file *file, struct random_source *random);

/* What a crash leaves of the file. */
struct simulated_file simulated_file_crash(const struct simulated_file *file, struct random_source *random);

/* Changes a byte, on the disk and for readers. */
void simulated_file_damage(struct simulated_file *file, uint64_t position, uint8_t flipped_bits);

/* How much of something survives, of 256: nothing, everything, or a part. And whether one of it does. */
uint32_t simulated_share(struct random_source *random);
bool simulated_chance(struct random_source *random, uint32_t of_256);

/* A list with room for one more. */
void *simulated_grow(void *list, size_t *capacity, size_t count, size_t size);

#endif
