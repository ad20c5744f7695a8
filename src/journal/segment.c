/* Segments as files: their names, their headers, and the scan by which recovery finds where one ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "journal/reader.h"

enum { SCAN_BLOCK_SIZE = 4 << 20 };

void segment_name(uint64_t base_offset, char name[32])
{
    snprintf(name, 32, "%020llu.seg", (unsigned long long)base_offset);
}

bool segment_name_parse(const char *name, uint64_t *base_offset)
{
    if (strlen(name) != 24 || strcmp(name + 20, ".seg") != 0)
        return false;
    uint64_t value = 0;
    for (unsigned i = 0; i < 20; i++) {
        if (name[i] < '0' || name[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(name[i] - '0');
    }
    *base_offset = value;
    return true;
}

struct name_list {
    uint64_t *bases;
    size_t count, capacity;
    bool failed;
};

static void add_name(void *context, const char *name)
{
    struct name_list *list = context;
    uint64_t base;
    if (list->failed || !segment_name_parse(name, &base))
        return;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        uint64_t *bases = realloc(list->bases, capacity * sizeof *bases);
        if (!bases) {
            list->failed = true;
            return;
        }
        list->bases = bases;
        list->capacity = capacity;
    }
    list->bases[list->count++] = base;
}

static int compare_bases(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

int segment_list(struct disk *disk, const char *folder, uint64_t **bases, size_t *count)
{
    struct name_list list = {0};
    int error = disk->ops->list(disk, folder, add_name, &list);
    if (error < 0 || list.failed) {
        free(list.bases);
        return error < 0 ? error_from_errno(-error) : ERR_NO_MEMORY;
    }
    if (list.count)
        qsort(list.bases, list.count, sizeof *list.bases, compare_bases);
    *bases = list.bases;
    *count = list.count;
    return 0;
}

int segment_header_read(struct disk *disk, int file, struct format_segment_header *header)
{
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE];
    size_t have = 0;
    while (have < sizeof block) {
        ssize_t got = disk->ops->read(disk, file, block + have, sizeof block - have, have);
        if (got < 0)
            return error_from_errno((int)-got);
        if (got == 0)
            return ERR_CORRUPT;
        have += (size_t)got;
    }
    return format_segment_header_decode(block, header);
}

/* A window on the file: bytes [position, position + have) lie in block. */
struct window {
    struct disk *disk;
    int file;
    uint8_t *block;
    size_t capacity, have;
    uint64_t position;
};

/* Makes `wanted` bytes from `at` available; fewer only at the end of the file. */
static int window_show(struct window *window, uint64_t at, size_t wanted, const uint8_t **bytes, size_t *available)
{
    if (at >= window->position && at + wanted <= window->position + window->have) {
        *bytes = window->block + (at - window->position);
        *available = window->have - (size_t)(at - window->position);
        return 0;
    }
    if (wanted > window->capacity) {
        uint8_t *block = realloc(window->block, wanted);
        if (!block)
            return ERR_NO_MEMORY;
        window->block = block;
        window->capacity = wanted;
    }
    window->position = at;
    window->have = 0;
    while (window->have < window->capacity) {
        ssize_t got = window->disk->ops->read(window->disk, window->file, window->block + window->have, window->capacity - window->have,
                                              at + window->have);
        if (got < 0)
            return error_from_errno((int)-got);
        if (got == 0)
            break;
        window->have += (size_t)got;
    }
    *bytes = window->block;
    *available = window->have;
    return 0;
}

static int resynchronise(struct window *window, uint64_t from, uint64_t salt, uint64_t least_offset, struct segment_found *found)
{
    struct segment_found result = {0};
    for (uint64_t position = from; !result.later_group;) {
        const uint8_t *bytes;
        size_t available;
        uint32_t length = FORMAT_RECORD_HEADER_SIZE;
        enum format_check check = FORMAT_CUT;
        for (unsigned attempt = 0; attempt < 2 && check == FORMAT_CUT; attempt++) {
            int error = window_show(window, position, length, &bytes, &available);
            if (error)
                return error;
            check = format_record_check(bytes, available, salt, &length);
        }
        if (available < FORMAT_RECORD_HEADER_SIZE)
            break;
        struct message message = {0};
        if (check == FORMAT_VALID)
            format_record_decode(bytes, &message);
        if (check != FORMAT_VALID || message.offset < least_offset) {
            position += 8;
            continue;
        }
        if (!result.any) {
            result.any = true;
            result.position = position;
            result.offset = message.offset;
        }
        result.later_group = format_record_is_group_start(bytes);
        position += length;
    }
    *found = result;
    return 0;
}

int segment_resynchronise(struct disk *disk, int file, uint64_t from, uint64_t salt, uint64_t least_offset, struct segment_found *found)
{
    struct window window = {.disk = disk, .file = file, .block = malloc(SCAN_BLOCK_SIZE), .capacity = SCAN_BLOCK_SIZE};
    if (!window.block)
        return ERR_NO_MEMORY;
    int error = resynchronise(&window, from, salt, least_offset, found);
    free(window.block);
    return error;
}

int segment_scan(struct disk *disk, int file, const char *name, uint64_t salt, uint64_t base_offset, reader_on_damage on_damage,
                 void *context, struct segment_end *end)
{
    struct window window = {.disk = disk, .file = file, .block = malloc(SCAN_BLOCK_SIZE), .capacity = SCAN_BLOCK_SIZE};
    if (!window.block)
        return ERR_NO_MEMORY;
    struct segment_end result = {.position = FORMAT_SEGMENT_HEADER_SIZE, .next_offset = base_offset};
    int error = 0;
    for (;;) {
        const uint8_t *bytes;
        size_t available;
        uint32_t length = FORMAT_RECORD_HEADER_SIZE;
        enum format_check check = FORMAT_CUT;
        for (unsigned attempt = 0; attempt < 2 && check == FORMAT_CUT; attempt++) {
            error = window_show(&window, result.position, length, &bytes, &available);
            if (error)
                goto out;
            check = format_record_check(bytes, available, salt, &length);
        }
        struct message message = {0};
        if (check == FORMAT_VALID)
            format_record_decode(bytes, &message);
        if (check == FORMAT_VALID && message.offset >= result.next_offset) {
            bool seal = format_record_is_seal(bytes);
            result.position += length;
            result.next_offset = message.offset + !seal;
            result.records += !seal;
            continue;
        }
        struct segment_found found;
        error = resynchronise(&window, result.position + 8, salt, result.next_offset, &found);
        if (error)
            goto out;
        if (!found.any || !found.later_group) {
            result.torn = found.any;
            break;
        }
        struct reader_damage damage = {.position = result.position,
                                       .length = found.position - result.position,
                                       .first_offset = result.next_offset,
                                       .next_offset = found.offset};
        snprintf(damage.segment, sizeof damage.segment, "%s", name);
        if (on_damage)
            on_damage(context, &damage);
        result.position = found.position;
        result.next_offset = found.offset;
    }
    *end = result;
out:
    free(window.block);
    return error;
}
