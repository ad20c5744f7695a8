/* Reading everything. The reader hands out what it can; this tells what it could not, and why, and reads in blocks that are large enough
 * for the disk to be the limit. What it decides about bytes that do not check out is what recovery decides (format.h). */
#include "journal/inspect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/error.h"
#include "journal/frames.h"

enum {
    INSPECT_BLOCK_SIZE = 4 << 20,
    INSPECT_PATH_MAX = 4200,
    INSPECT_TORN_MAX = 32 << 20, /* as far as the rest of a torn group is looked for */
    INSPECT_ATTEMPTS = 5,        /* looks at an end that seems torn, before it is believed: a server may be writing there */
    INSPECT_PAUSE_MS = 100
};

/* ---- files ---- */

struct file_list {
    struct inspect_file *files;
    size_t count, capacity;
    bool failed;
};

static bool tell_state(const char *name, struct inspect_file *file)
{
    static const char aside[] = ".seg.damaged";
    size_t length = strlen(name);
    if (length >= sizeof file->name)
        return false;
    if (segment_name_parse(name, &file->base_offset))
        file->state = INSPECT_CLOSED;
    else if (strcmp(name, "prepared.seg") == 0 || strcmp(name, "next.seg") == 0)
        file->state = INSPECT_PREPARED;
    else if (strcmp(name, "compressed.seg") == 0)
        file->state = INSPECT_COMPRESSING;
    else if (strcmp(name, "spare.seg") == 0)
        file->state = INSPECT_SPARE;
    else if (length > sizeof aside && strcmp(name + length - (sizeof aside - 1), aside) == 0)
        file->state = INSPECT_ASIDE;
    else
        return false;
    memcpy(file->name, name, length + 1);
    return true;
}

static void add_file(void *context, const char *name)
{
    struct file_list *list = context;
    struct inspect_file file = {0};
    if (list->failed || !tell_state(name, &file))
        return;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        struct inspect_file *files = realloc(list->files, capacity * sizeof *files);
        if (!files) {
            list->failed = true;
            return;
        }
        list->files = files;
        list->capacity = capacity;
    }
    list->files[list->count++] = file;
}

static int compare_files(const void *a, const void *b)
{
    const struct inspect_file *x = a, *y = b;
    if (x->state != y->state)
        return x->state < y->state ? -1 : 1;
    return x->base_offset != y->base_offset ? (x->base_offset < y->base_offset ? -1 : 1) : strcmp(x->name, y->name);
}

static int read_block(struct disk *disk, const struct segment_file *segment, uint8_t *block, size_t size, uint64_t position, size_t *have)
{
    uint64_t unreadable_to;
    return segment_read(disk, segment, block, size, position, have, &unreadable_to);
}

/* What a compressed segment took before. */
static int look_at_frames(struct disk *disk, const char *folder, struct inspect_file *file)
{
    struct segment_file segment;
    int error = segment_open(disk, folder, file->base_offset, DISK_READ, &segment);
    if (error)
        return error;
    file->raw_bytes = segment.frames ? (uint64_t)segment_length(disk, &segment) : 0;
    segment_close(disk, &segment);
    return 0;
}

/* Sizes and time of creation. ERR_NOT_FOUND: it has just been taken away. */
static int look_at_file(struct disk *disk, const char *folder, struct inspect_file *file)
{
    char path[INSPECT_PATH_MAX + INSPECT_NAME_MAX];
    snprintf(path, sizeof path, "%s/%s", folder, file->name);
    int opened = disk->ops->open(disk, path, DISK_READ);
    if (opened < 0)
        return error_from_errno(-opened);
    int64_t size = disk->ops->size(disk, opened);
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE] = {0};
    size_t have;
    struct format_segment_header header;
    const struct segment_file segment = {.file = opened};
    int error = size < 0 ? error_from_errno((int)-size) : read_block(disk, &segment, block, sizeof block, 0, &have);
    disk->ops->close(disk, opened);
    if (error)
        return error;
    file->bytes = (uint64_t)size;
    if (file->state != INSPECT_CLOSED || format_segment_header_decode(block, &header))
        return 0;
    file->created_ns = header.created_ns;
    return header.compressed ? look_at_frames(disk, folder, file) : 0;
}

int inspect_files(struct disk *disk, const char *folder, struct inspect_file **files, size_t *count)
{
    struct file_list list = {0};
    int failed = disk->ops->list(disk, folder, add_file, &list);
    int error = failed < 0 ? error_from_errno(-failed) : list.failed ? ERR_NO_MEMORY : 0;
    if (!error && list.count)
        qsort(list.files, list.count, sizeof *list.files, compare_files);
    size_t kept = 0, segments = 0;
    for (size_t i = 0; i < list.count && !error; i++) {
        error = look_at_file(disk, folder, &list.files[i]);
        if (!error) {
            segments += list.files[i].state == INSPECT_CLOSED;
            list.files[kept++] = list.files[i];
        }
        error = error == ERR_NOT_FOUND ? 0 : error;
    }
    if (error || kept == 0) {
        free(list.files);
        list.files = NULL;
    }
    if (error)
        return error;
    if (segments)
        list.files[segments - 1].state = INSPECT_ACTIVE;
    *files = list.files;
    *count = kept;
    return 0;
}

/* ---- contents ---- */

struct inspection {
    struct disk *disk;
    const char *folder, *stream;
    const struct inspect_visitor *visitor;
    struct inspect_end end;
    bool begun; /* end.first_offset and end.next_offset are known */

    struct segment_file segment;
    bool last;          /* there is none behind it */
    uint64_t next_base; /* of the one behind it */
    uint64_t position;  /* of what is looked at next */
    uint64_t left_at;   /* position behind the last record of the segment before */
    uint64_t left_base;
    bool repeated;

    /* What was found behind a position where no record stands, and how often that was looked for. */
    uint64_t judged_at;
    struct segment_found found;
    bool damage;
    unsigned attempts;

    uint8_t *block; /* bytes [block_position, block_position + have) of the segment */
    size_t block_size, have;
    uint64_t block_position;
};

static void report(struct inspection *in, enum inspect_kind kind, uint64_t base_offset, struct reader_damage place)
{
    struct inspect_finding finding = {.kind = kind, .place = place};
    segment_name(base_offset, finding.place.segment);
    in->end.lost += place.next_offset - place.first_offset;
    if (in->visitor->finding)
        in->visitor->finding(in->visitor->context, &finding);
}

static void report_here(struct inspection *in, enum inspect_kind kind, uint64_t length, uint64_t next_offset)
{
    uint64_t position = segment_file_position(&in->segment, in->position);
    report(in, kind, in->segment.base_offset,
           (struct reader_damage){.position = position,
                                  .length = segment_file_position(&in->segment, in->position + length) - position,
                                  .first_offset = in->end.next_offset,
                                  .next_offset = next_offset});
}

/* Makes `wanted` bytes from the position on available in *bytes; fewer only at the end of the file. What is in the block and still needed
 * is moved, not read again. */
static int show(struct inspection *in, size_t wanted, const uint8_t **bytes, size_t *available)
{
    size_t at = in->position >= in->block_position ? (size_t)(in->position - in->block_position) : in->have;
    size_t kept = at < in->have ? in->have - at : 0;
    if (kept < wanted) {
        memmove(in->block, in->block + at, kept);
        if (wanted > in->block_size) {
            uint8_t *block = realloc(in->block, wanted);
            if (!block)
                return ERR_NO_MEMORY;
            in->block = block;
            in->block_size = wanted;
        }
        size_t more;
        in->have = kept;
        in->block_position = in->position;
        at = 0;
        int error = read_block(in->disk, &in->segment, in->block + kept, in->block_size - kept, in->position + kept, &more);
        if (error)
            return error;
        in->have = kept += more;
    }
    *bytes = in->block + at;
    *available = kept;
    return 0;
}

static int look(struct inspection *in, enum format_check *check, const uint8_t **bytes, size_t *available, uint32_t *length)
{
    *length = FORMAT_RECORD_HEADER_SIZE;
    *check = FORMAT_CUT;
    int error = 0;
    for (unsigned attempt = 0; attempt < 2 && *check == FORMAT_CUT && !error; attempt++) {
        error = show(in, *length, bytes, available);
        if (!error)
            *check = format_record_check(*bytes, *available, in->segment.salt, length);
    }
    return error;
}

/* Takes a record that has checked out. */
static int take_record(struct inspection *in, const uint8_t *bytes, uint32_t length)
{
    struct message message;
    format_record_decode(bytes, &message);
    struct reader_place place = {in->segment.base_offset, in->position, message.offset};
    in->end.sealed = format_record_is_seal(bytes);
    int error = 0;
    if (message.offset < in->end.next_offset && !in->repeated) {
        in->repeated = true;
        report_here(in, INSPECT_REPEATED, length, in->end.next_offset);
    }
    if (message.offset >= in->end.next_offset) {
        if (message.offset > in->end.next_offset)
            report_here(in, INSPECT_MISSING, 0, message.offset);
        bool is_message = format_record_is_message(bytes);
        in->end.next_offset = message.offset + is_message;
        if (is_message) {
            in->end.records++;
            if (in->visitor->record)
                error = in->visitor->record(in->visitor->context, &message, bytes, &place);
        }
    }
    in->position += length;
    return error;
}

/* Whether the open segment has its name still. Retention gives a file that it takes away another, and another content. */
static int still_there(const struct inspection *in, bool *there)
{
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(in->disk, in->folder, &bases, &count);
    *there = false;
    for (size_t i = 0; i < count && !error; i++)
        *there = *there || bases[i] == in->segment.base_offset;
    free(bases);
    return error;
}

/* Bytes from the position to the last that is not zero, as far as a group can reach. */
static int measure_rest(struct inspection *in, uint64_t *length)
{
    const uint8_t *bytes;
    size_t available;
    int error = show(in, INSPECT_TORN_MAX, &bytes, &available);
    if (error)
        return error;
    size_t rest = available < INSPECT_TORN_MAX ? available : INSPECT_TORN_MAX;
    while (rest > 0 && bytes[rest - 1] == 0)
        rest--;
    *length = rest;
    return 0;
}

/* Bytes at the end of a file that are too few for a header, and not all zero. */
static bool is_scrap(const uint8_t *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (bytes[i])
            return true;
    return false;
}

/* No record stands at the position. Decides, as recovery does, between the end of the segment, damage (which is passed over), and the rest
 * of a group. `begun`: a header stands there that checks out, so a record was begun here. Sets *again when there is more to read.
 *
 * Before anything is said it is read again: what stands behind this place stands there now, so what was written here must stand now too; a
 * server may have been at it when it was read. For the end of a group it is waited a little. */
static int judge(struct inspection *in, bool begun, bool *again)
{
    *again = false;
    if (!in->last && in->end.next_offset == in->next_base)
        return 0;
    bool known = in->judged_at == in->position;
    in->attempts = known ? in->attempts + 1 : 1;
    in->judged_at = in->position;
    int error = 0;
    if (!known || !in->damage)
        error = segment_resynchronise(in->disk, &in->segment, in->position + 8, in->end.next_offset, &in->found);
    if (error)
        return error;
    in->damage = in->found.any && (in->found.later_group || !in->last);
    if (in->last && !in->damage && in->found.unreadable)
        return ERR_IO;
    if (!in->damage && !in->found.any && !begun)
        return 0;
    bool there;
    error = still_there(in, &there);
    if (error || !there || (!in->damage && !in->last)) /* what a closed segment lacks at its end is reported with the next */
        return error;
    if (in->attempts < (in->damage ? 2 : INSPECT_ATTEMPTS)) {
        if (!in->damage)
            nanosleep(&(struct timespec){.tv_nsec = INSPECT_PAUSE_MS * 1000000l}, NULL);
        in->have = 0;
        *again = true;
        return 0;
    }
    if (in->damage) {
        report_here(in, INSPECT_RECORDS, in->found.position - in->position, in->found.offset);
        in->position = in->found.position;
        in->end.next_offset = in->found.offset;
        *again = true;
        return 0;
    }
    uint64_t length;
    error = measure_rest(in, &length);
    if (!error)
        report_here(in, INSPECT_TORN, length, in->end.next_offset);
    return error;
}

/* What can be known of a compressed segment beside its records. */
static int finish_frames(struct inspection *in)
{
    uint64_t known_end = segment_known_end(&in->segment), position, length;
    bool there;
    int error = still_there(in, &there);
    if (error || !there)
        return error;
    if (in->end.next_offset < known_end) {
        report_here(in, INSPECT_RECORDS, frames_raw_end(in->segment.frames) - in->position, known_end);
        in->end.next_offset = known_end;
        in->position = frames_raw_end(in->segment.frames);
    }
    if (frames_blemish(in->segment.frames, &position, &length))
        report(in, INSPECT_INDEX, in->segment.base_offset,
               (struct reader_damage){
                   .position = position, .length = length, .first_offset = in->end.next_offset, .next_offset = in->end.next_offset});
    return 0;
}

static int read_records(struct inspection *in)
{
    uint64_t told = 0;
    bool more = true;
    int error = 0;
    while (!error && more) {
        const uint8_t *bytes;
        size_t available;
        uint32_t length;
        enum format_check check;
        error = look(in, &check, &bytes, &available, &length);
        if (!error && check == FORMAT_VALID)
            error = take_record(in, bytes, length);
        else if (!error)
            error = judge(in, length > FORMAT_RECORD_HEADER_SIZE || (check == FORMAT_CUT && is_scrap(bytes, available)), &more);
        uint64_t done = segment_file_position(&in->segment, in->position);
        if (in->visitor->progress && done - told >= INSPECT_BLOCK_SIZE) {
            in->visitor->progress(in->visitor->context, done - told);
            told = done;
        }
    }
    if (!error && in->segment.frames)
        error = finish_frames(in);
    int64_t size = in->disk->ops->size(in->disk, in->segment.file);
    if (size > 0)
        in->end.bytes += (uint64_t)size;
    if (in->visitor->progress && size > 0 && (uint64_t)size > told)
        in->visitor->progress(in->visitor->context, (uint64_t)size - told);
    return error;
}

/* Looks at each copy of the header by itself. *lost: neither checks out. */
static int check_header(struct inspection *in, bool *lost)
{
    uint8_t block[FORMAT_SEGMENT_HEADER_SIZE] = {0}, single[FORMAT_SEGMENT_HEADER_SIZE];
    size_t have, half = sizeof block / 2;
    int error = read_block(in->disk, &in->segment, block, sizeof block, 0, &have);
    if (error)
        return error;
    struct format_segment_header header = {0};
    bool good[2];
    for (unsigned copy = 0; copy < 2; copy++) {
        memset(single, 0, sizeof single);
        memcpy(single, block + copy * half, half);
        good[copy] = format_segment_header_decode(single, &header) == 0;
    }
    struct reader_damage place = {.length = half, .first_offset = in->end.next_offset, .next_offset = in->end.next_offset};
    if (good[0] != good[1]) {
        place.position = good[0] ? half : 0;
        report(in, INSPECT_HEADER_COPY, in->segment.base_offset, place);
    }
    *lost = !good[0] && !good[1];
    if ((good[0] || good[1]) && (header.base_offset != in->segment.base_offset || strcmp(header.stream, in->stream) != 0))
        report(in, INSPECT_FOREIGN, in->segment.base_offset, place);
    return 0;
}

/* Nothing of the segment can be read: what it held ends where the next one begins. */
static void pass_unreadable(struct inspection *in, uint64_t base_offset)
{
    uint64_t next_offset = in->last ? base_offset : in->next_base;
    report(in, INSPECT_HEADER, base_offset,
           (struct reader_damage){.length = FORMAT_SEGMENT_HEADER_SIZE,
                                  .first_offset = base_offset,
                                  .next_offset = next_offset > base_offset ? next_offset : base_offset,
                                  .unbounded = in->last});
    if (next_offset > in->end.next_offset)
        in->end.next_offset = next_offset;
}

static int inspect_segment(struct inspection *in, uint64_t base_offset)
{
    int error = segment_open(in->disk, in->folder, base_offset, DISK_READ, &in->segment);
    if (error == ERR_NOT_FOUND) /* retention took it a moment ago */
        return 0;
    if (error && error != ERR_CORRUPT)
        return error;
    if (!in->begun)
        in->end.first_offset = in->end.next_offset = base_offset;
    else if (base_offset > in->end.next_offset)
        report(in, INSPECT_MISSING, in->left_base,
               (struct reader_damage){.position = in->left_at, .first_offset = in->end.next_offset, .next_offset = base_offset});
    if (base_offset > in->end.next_offset)
        in->end.next_offset = base_offset;
    in->begun = true;
    in->end.segments++;
    in->end.sealed = in->repeated = false;
    in->left_base = base_offset;
    in->position = in->left_at = FORMAT_SEGMENT_HEADER_SIZE;
    if (error) {
        pass_unreadable(in, base_offset);
        return 0;
    }
    in->have = 0;
    in->block_position = 0;
    in->judged_at = 0;
    bool header_lost;
    uint64_t records = in->end.records;
    error = check_header(in, &header_lost);
    if (!error)
        error = read_records(in);
    if (!error && header_lost) /* without any record nobody knows whether the key was right, so neither what it held */
        report(in, INSPECT_HEADER, base_offset,
               (struct reader_damage){.length = FORMAT_SEGMENT_HEADER_SIZE,
                                      .first_offset = in->end.next_offset,
                                      .next_offset = in->end.next_offset,
                                      .unbounded = in->last && in->end.records == records});
    in->left_at = segment_file_position(&in->segment, in->position);
    segment_close(in->disk, &in->segment);
    return error;
}

int inspect_stream(struct disk *disk, const char *folder, const char *stream, uint64_t from, const struct inspect_visitor *visitor,
                   struct inspect_end *end)
{
    struct inspection in = {.disk = disk, .folder = folder, .stream = stream, .visitor = visitor, .block_size = INSPECT_BLOCK_SIZE};
    uint64_t *bases = NULL;
    size_t count = 0, first = 0;
    int error = segment_list(disk, folder, &bases, &count);
    if (!error && !(in.block = malloc(in.block_size)))
        error = ERR_NO_MEMORY;
    while (first + 1 < count && bases[first + 1] <= from)
        first++;
    for (size_t i = first; i < count && !error; i++) {
        in.last = i + 1 == count;
        in.next_base = in.last ? UINT64_MAX : bases[i + 1];
        error = inspect_segment(&in, bases[i]);
    }
    free(in.block);
    free(bases);
    in.end.last_base = in.left_base;
    in.end.last_position = in.left_at;
    *end = in.end;
    return error;
}
