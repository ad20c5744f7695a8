/* Segments as files: their names, their headers, and the scan by which recovery finds where one ends. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "journal/frames.h"
#include "journal/reader.h"

enum { SCAN_BLOCK_LEAST = 64 << 10, SCAN_BLOCK_MOST = 4 << 20, SEGMENT_PATH_MAX = 4200, UNREADABLE_STEP = 4096 };

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
        if (value >= FORMAT_OFFSET_END)
            return false;
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

static int open_file(struct disk *disk, const char *folder, uint64_t base_offset, enum disk_open how, int *file)
{
    char name[32], path[SEGMENT_PATH_MAX];
    segment_name(base_offset, name);
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return ERR_INVALID;
    int opened = disk->ops->open(disk, path, how);
    if (opened < 0)
        return error_from_errno(-opened);
    *file = opened;
    return 0;
}

int segment_read_file(struct disk *disk, int file, void *to, size_t size, uint64_t position, size_t *have, uint64_t *unreadable_to)
{
    uint8_t *bytes = to;
    bool whole = true; /* read as much as there is; after a failure to the end of the page, so that no more is given up than must be */
    *have = 0;
    while (*have < size) {
        uint64_t at = position + *have;
        size_t page = (size_t)(UNREADABLE_STEP - at % UNREADABLE_STEP), left = size - *have;
        size_t wanted = whole || left < page ? left : page;
        ssize_t got = disk->ops->read(disk, file, bytes + *have, wanted, at);
        if (got == 0)
            break;
        if (got < 0 && (got != -EIO))
            return error_from_errno((int)-got);
        if (got < 0 && whole) {
            whole = false;
            continue;
        }
        if (got < 0) {
            memset(bytes + *have, 0, wanted);
            *unreadable_to = at + wanted;
            got = (ssize_t)wanted;
        }
        *have += (size_t)got;
        whole = true;
    }
    return 0;
}

int segment_read(struct disk *disk, const struct segment_file *segment, uint8_t *bytes, size_t size, uint64_t position, size_t *have,
                 uint64_t *unreadable_to)
{
    if (!segment->frames || position < FORMAT_SEGMENT_HEADER_SIZE)
        return segment_read_file(disk, segment->file, bytes, size, position, have, unreadable_to);
    return frames_read(segment->frames, bytes, size, position, have);
}

int64_t segment_length(struct disk *disk, const struct segment_file *segment)
{
    return segment->frames ? (int64_t)frames_raw_end(segment->frames) : disk->ops->size(disk, segment->file);
}

uint64_t segment_file_position(const struct segment_file *segment, uint64_t position)
{
    return segment->frames && position >= FORMAT_SEGMENT_HEADER_SIZE ? frames_file_position(segment->frames, position) : position;
}

uint64_t segment_known_end(const struct segment_file *segment)
{
    return segment->frames ? frames_next_offset(segment->frames) : 0;
}

/* A header of another stream is as good as none: the file was put into the wrong folder. ERR_CORRUPT. */
static int read_header(struct disk *disk, const char *folder, int file, struct format_segment_header *header)
{
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE] = {0};
    size_t have;
    uint64_t unreadable_to;
    struct format_segment_header read;
    int error = segment_read_file(disk, file, block, sizeof block, 0, &have, &unreadable_to);
    if (!error)
        error = format_segment_header_decode(block, &read);
    if (error)
        return error;
    const char *stream = strrchr(folder, '/');
    if (strcmp(read.stream, stream ? stream + 1 : folder) != 0)
        return ERR_CORRUPT;
    *header = read;
    return 0;
}

int segment_key(struct disk *disk, const char *folder, uint64_t *key)
{
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(disk, folder, &bases, &count);
    if (error)
        return error;
    error = ERR_CORRUPT;
    for (size_t i = count; i > 0 && error && error != ERR_FORMAT_VERSION; i--) {
        struct format_segment_header header;
        int file;
        error = open_file(disk, folder, bases[i - 1], DISK_READ, &file);
        if (error)
            continue;
        error = read_header(disk, folder, file, &header);
        disk->ops->close(disk, file);
        if (!error)
            *key = header.key;
    }
    free(bases);
    return error && error != ERR_FORMAT_VERSION ? ERR_CORRUPT : error;
}

int segment_open(struct disk *disk, const char *folder, uint64_t base_offset, enum disk_open how, struct segment_file *segment)
{
    struct segment_file opened = {.base_offset = base_offset};
    int error = open_file(disk, folder, base_offset, how, &opened.file);
    if (error)
        return error;
    struct format_segment_header header = {.base_offset = base_offset};
    error = read_header(disk, folder, opened.file, &header);
    /* A header that names another offset than the file does is of a file that was exchanged, or of an earlier life. */
    opened.header_lost = error == ERR_CORRUPT || header.base_offset != base_offset;
    if (error == ERR_CORRUPT)
        error = segment_key(disk, folder, &header.key);
    opened.salt = format_segment_salt(header.key, base_offset);
    opened.created_ns = opened.header_lost ? 0 : header.created_ns;
    if (!error && (opened.header_lost ? frames_are_there(disk, opened.file, opened.salt) : header.compressed))
        error = frames_open(&opened.frames, disk, opened.file, opened.salt);
    if (error) {
        disk->ops->close(disk, opened.file);
        return error;
    }
    *segment = opened;
    return 0;
}

int segment_open_plain(struct disk *disk, const char *folder, uint64_t base_offset, int *file, struct format_segment_header *header)
{
    int opened, error = open_file(disk, folder, base_offset, DISK_READ, &opened);
    if (error)
        return error;
    if (read_header(disk, folder, opened, header) == ERR_FORMAT_VERSION) {
        disk->ops->close(disk, opened);
        return ERR_FORMAT_VERSION;
    }
    *file = opened;
    return 0;
}

int segment_versions(struct disk *disk, const char *folder)
{
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(disk, folder, &bases, &count);
    for (size_t i = 0; i < count && !error; i++) {
        struct format_segment_header header;
        int file;
        error = segment_open_plain(disk, folder, bases[i], &file, &header);
        if (!error)
            disk->ops->close(disk, file);
        else if (error == ERR_NOT_FOUND) /* retention took it a moment ago */
            error = 0;
    }
    free(bases);
    return error;
}

void segment_close(struct disk *disk, struct segment_file *segment)
{
    frames_close(segment->frames);
    disk->ops->close(disk, segment->file);
    *segment = (struct segment_file){.file = -1};
}

void reader_damage_text(const struct reader_damage *damage, char text[READER_DAMAGE_TEXT_MAX])
{
    char what[128];
    if (damage->unbounded)
        snprintf(what, sizeof what, "records from offset %" PRIu64 " on may be lost; nothing tells how many", damage->first_offset);
    else if (damage->next_offset == damage->first_offset)
        snprintf(what, sizeof what, "the header of the segment is lost; its records are readable without it");
    else if (damage->next_offset == damage->first_offset + 1)
        snprintf(what, sizeof what, "offset %" PRIu64 " is lost", damage->first_offset);
    else
        snprintf(what, sizeof what, "offsets %" PRIu64 " to %" PRIu64 " are lost", damage->first_offset, damage->next_offset - 1);
    snprintf(text, READER_DAMAGE_TEXT_MAX, "%s at byte %" PRIu64 ": %s", damage->segment, damage->position, what);
}

/* A window on the segment: bytes [position, position + have) lie in block. */
struct window {
    struct disk *disk;
    const struct segment_file *segment;
    uint8_t *block;
    size_t capacity, have;
    uint64_t position;
    uint64_t unreadable_to; /* segment_read; of all that was shown */
};

/* As large as the segment, within limits. */
static bool window_open(struct window *window, struct disk *disk, const struct segment_file *segment)
{
    int64_t size = segment_length(disk, segment);
    size_t capacity = size < SCAN_BLOCK_LEAST ? SCAN_BLOCK_LEAST : size > SCAN_BLOCK_MOST ? SCAN_BLOCK_MOST : (size_t)size;
    *window = (struct window){.disk = disk, .segment = segment, .block = malloc(capacity), .capacity = capacity};
    return window->block;
}

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
    int error = segment_read(window->disk, window->segment, window->block, window->capacity, at, &window->have, &window->unreadable_to);
    if (error)
        return error;
    *bytes = window->block;
    *available = window->have;
    return 0;
}

/* What stands at `position`: *check, and of a valid record *record and *length. */
static int look(struct window *window, uint64_t position, enum format_check *check, const uint8_t **record, uint32_t *length)
{
    size_t available = 0;
    *length = FORMAT_RECORD_HEADER_SIZE;
    *check = FORMAT_CUT;
    int error = 0;
    for (unsigned attempt = 0; attempt < 2 && *check == FORMAT_CUT && !error; attempt++) {
        error = window_show(window, position, *length, record, &available);
        if (!error)
            *check = format_record_check(*record, available, window->segment->salt, length);
    }
    return error;
}

static int resynchronise(struct window *window, uint64_t from, uint64_t least_offset, struct segment_found *found)
{
    struct segment_found result = {0};
    for (uint64_t position = from; !result.later_group;) {
        const uint8_t *bytes;
        uint32_t length;
        enum format_check check;
        int error = look(window, position, &check, &bytes, &length);
        if (error)
            return error;
        if (check == FORMAT_CUT && length == FORMAT_RECORD_HEADER_SIZE)
            break; /* the end of the file */
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
        uint64_t durable;
        bool tells = format_record_begins_group(bytes, &durable) && (durable == message.offset || durable > least_offset);
        result.later_group = tells || window->segment->frames; /* what is bad had been synced */
        position += length;
    }
    result.unreadable = window->unreadable_to > from;
    *found = result;
    return 0;
}

int segment_resynchronise(struct disk *disk, const struct segment_file *segment, uint64_t from, uint64_t least_offset,
                          struct segment_found *found)
{
    struct window window;
    if (!window_open(&window, disk, segment))
        return ERR_NO_MEMORY;
    int error = resynchronise(&window, from, least_offset, found);
    free(window.block);
    return error;
}

void segment_report(const struct segment_file *segment, reader_on_damage on_damage, void *context, struct reader_damage damage)
{
    segment_name(segment->base_offset, damage.segment);
    uint64_t end = segment_file_position(segment, damage.position + damage.length);
    damage.position = segment_file_position(segment, damage.position);
    damage.length = end - damage.position;
    if (on_damage)
        on_damage(context, &damage);
}

/* The groups behind which some may not have been durable, oldest first: as many as are ever on their way to the disk at once. */
struct open_groups {
    unsigned count;
    struct open_group {
        uint64_t position, offset;
    } groups[FORMAT_OPEN_GROUPS_MAX];
};

/* Takes a record; the oldest group left is the one with which recovery has to begin. */
static void note_group(struct open_groups *open, const uint8_t *record, uint64_t position, uint64_t offset)
{
    uint64_t durable;
    if (!format_record_begins_group(record, &durable))
        return;
    unsigned gone = open->count == FORMAT_OPEN_GROUPS_MAX;
    while (gone < open->count && (gone + 1 < open->count ? open->groups[gone + 1].offset : offset) <= durable)
        gone++;
    memmove(open->groups, open->groups + gone, (open->count - gone) * sizeof *open->groups);
    open->count -= gone;
    open->groups[open->count++] = (struct open_group){position, offset};
}

static int scan(struct window *window, const struct segment_file *segment, reader_on_damage on_damage, void *context,
                struct segment_end *end)
{
    struct segment_end result = {
        .position = FORMAT_SEGMENT_HEADER_SIZE, .open_from = FORMAT_SEGMENT_HEADER_SIZE, .next_offset = segment->base_offset};
    struct segment_found found = {0};
    struct open_groups open = {0};
    uint64_t looked_behind = 0; /* the position behind which `found` was found */
    for (;;) {
        const uint8_t *record;
        uint32_t length;
        enum format_check check;
        int error = look(window, result.position, &check, &record, &length);
        if (error)
            return error;
        struct message message = {0};
        if (check == FORMAT_VALID)
            format_record_decode(record, &message);
        if (check == FORMAT_VALID && message.offset >= result.next_offset) {
            if (message.offset > result.next_offset)
                segment_report(
                    segment, on_damage, context,
                    (struct reader_damage){.position = result.position, .first_offset = result.next_offset, .next_offset = message.offset});
            bool is_message = format_record_is_message(record);
            note_group(&open, record, result.position, message.offset);
            result.position += length;
            result.next_offset = message.offset + is_message;
            result.records += is_message;
            continue;
        }
        if (looked_behind != result.position) {
            error = resynchronise(window, result.position + 8, result.next_offset, &found);
            if (error)
                return error;
            if (!found.later_group && window->unreadable_to > result.position)
                return ERR_IO;
            if (!found.later_group) {
                result.torn = found.any || length > FORMAT_RECORD_HEADER_SIZE; /* a header stands there that checks out */
                break;
            }
            /* It stood behind what is there now, so it is there now: the writer may have been at it when it was read. */
            looked_behind = result.position;
            window->have = 0;
            continue;
        }
        segment_report(segment, on_damage, context,
                       (struct reader_damage){.position = result.position,
                                              .length = found.position - result.position,
                                              .first_offset = result.next_offset,
                                              .next_offset = found.offset});
        result.position = found.position;
        result.next_offset = found.offset;
    }
    if (open.count)
        result.open_from = open.groups[0].position;
    if (result.next_offset < segment_known_end(segment)) {
        segment_report(segment, on_damage, context,
                       (struct reader_damage){.position = result.position,
                                              .length = frames_raw_end(segment->frames) - result.position,
                                              .first_offset = result.next_offset,
                                              .next_offset = segment_known_end(segment)});
        result.next_offset = segment_known_end(segment);
    }
    *end = result;
    return 0;
}

int segment_scan(struct disk *disk, const struct segment_file *segment, reader_on_damage on_damage, void *context, struct segment_end *end)
{
    struct window window;
    if (!window_open(&window, disk, segment))
        return ERR_NO_MEMORY;
    int error = scan(&window, segment, on_damage, context, end);
    free(window.block);
    if (!error && segment->header_lost)
        segment_report(segment, on_damage, context,
                       (struct reader_damage){.length = FORMAT_SEGMENT_HEADER_SIZE,
                                              .first_offset = end->next_offset,
                                              .next_offset = end->next_offset,
                                              .unbounded = end->position == FORMAT_SEGMENT_HEADER_SIZE});
    return error;
}

int segment_stream_end(struct disk *disk, const char *folder, reader_on_damage on_damage, void *context, uint64_t *next_offset)
{
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(disk, folder, &bases, &count);
    if (error)
        return error;
    uint64_t last = count ? bases[count - 1] : 0;
    free(bases);
    struct segment_file segment = {.base_offset = last};
    struct segment_end end = {.next_offset = last};
    if (count)
        error = segment_open(disk, folder, last, DISK_READ, &segment);
    if (error == ERR_CORRUPT) {
        segment_report(
            &segment, on_damage, context,
            (struct reader_damage){.length = FORMAT_SEGMENT_HEADER_SIZE, .first_offset = last, .next_offset = last, .unbounded = true});
        error = 0;
    } else if (count && !error) {
        error = segment_scan(disk, &segment, on_damage, context, &end);
        segment_close(disk, &segment);
    }
    if (!error)
        *next_offset = end.next_offset;
    return error;
}
