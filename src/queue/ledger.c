#include "queue/ledger.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "queue/dead_letter.h"

enum { LEDGER_FIRST_WORDS = 64, LEDGER_PATH_MAX = 4200, LEDGER_LOAD_ATTEMPTS = 3 };

const char ledger_checkpoint_mark[] = "checkpoint", ledger_marks_stream[] = "dead-letters";

void ledger_init(struct ledger *ledger)
{
    *ledger = (struct ledger){0};
}

void ledger_fini(struct ledger *ledger)
{
    free(ledger->words);
    *ledger = (struct ledger){0};
}

static uint64_t *word_of(const struct ledger *ledger, uint64_t offset)
{
    return &ledger->words[(offset / 64) & (ledger->word_count - 1)];
}

bool ledger_is_settled(const struct ledger *ledger, uint64_t offset)
{
    if (offset < ledger->cursor)
        return true;
    return offset < ledger->highest && (*word_of(ledger, offset) >> (offset % 64) & 1);
}

/* Makes the ring reach from the cursor's word to the offset's. */
static int reach(struct ledger *ledger, uint64_t offset)
{
    uint64_t needed = offset / 64 - ledger->cursor / 64 + 1;
    if (needed <= ledger->word_count)
        return 0;
    if (needed > LEDGER_WINDOW_MAX / 64)
        return ERR_LIMIT;
    size_t count = ledger->word_count ? ledger->word_count : LEDGER_FIRST_WORDS;
    while (count < needed)
        count *= 2;
    uint64_t *words = calloc(count, sizeof *words);
    if (!words)
        return ERR_NO_MEMORY;
    for (uint64_t w = ledger->cursor / 64; ledger->word_count && w < ledger->cursor / 64 + ledger->word_count; w++)
        words[w & (count - 1)] = ledger->words[w & (ledger->word_count - 1)];
    free(ledger->words);
    ledger->words = words;
    ledger->word_count = count;
    return 0;
}

static void advance(struct ledger *ledger)
{
    while (ledger->cursor < ledger->highest) {
        uint64_t *word = word_of(ledger, ledger->cursor);
        unsigned bit = (unsigned)(ledger->cursor % 64);
        uint64_t open = ~(*word >> bit);
        unsigned run = open ? (unsigned)__builtin_ctzll(open) : 64;
        if (run > 64 - bit)
            run = 64 - bit;
        if (run == 0)
            return;
        ledger->cursor += run;
        ledger->beyond -= run;
        if (ledger->cursor % 64 == 0)
            *word = 0; /* left behind: free for the other end of the ring */
    }
}

int ledger_settle(struct ledger *ledger, uint64_t offset, enum queue_outcome outcome, unsigned reason)
{
    if (ledger_is_settled(ledger, offset))
        return 0;
    int error = reach(ledger, offset);
    if (error)
        return error;
    *word_of(ledger, offset) |= (uint64_t)1 << (offset % 64);
    ledger->beyond++;
    if (offset >= ledger->highest)
        ledger->highest = offset + 1;
    switch (outcome) {
    case QUEUE_COMPLETED:
        ledger->completed++;
        break;
    case QUEUE_DUPLICATE:
        ledger->duplicates++;
        break;
    case QUEUE_DEAD_LETTERED:
        ledger->dead_lettered[reason < REASON_COUNT ? reason : REASON_INTERNAL]++;
        break;
    }
    if (offset == ledger->cursor)
        advance(ledger);
    return 1;
}

void ledger_forget(struct ledger *ledger, uint64_t first)
{
    if (first <= ledger->cursor)
        return;
    if (first >= ledger->highest) {
        if (ledger->word_count)
            memset(ledger->words, 0, ledger->word_count * sizeof *ledger->words);
        ledger->beyond = 0;
        ledger->cursor = ledger->highest = first;
        return;
    }
    while (ledger->cursor < first) {
        uint64_t *word = word_of(ledger, ledger->cursor);
        ledger->beyond -= *word >> (ledger->cursor % 64) & 1;
        if (++ledger->cursor % 64 == 0)
            *word = 0;
    }
    advance(ledger);
}

uint64_t ledger_dead_lettered(const struct ledger *ledger)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < REASON_COUNT; i++)
        sum += ledger->dead_lettered[i];
    return sum;
}

void ledger_counts(const struct ledger *ledger, uint64_t accepted, struct queue_counts *counts)
{
    uint64_t settled = ledger->cursor + ledger->beyond;
    *counts = (struct queue_counts){
        .accepted = accepted,
        .completed = ledger->completed,
        .duplicates = ledger->duplicates,
        .dead_lettered = ledger_dead_lettered(ledger),
        .pending = accepted > settled ? accepted - settled : 0,
    };
}

/* ---- on disk ---- */

int ledger_checkpoint_decode(struct ledger *ledger, const struct message *record, uint64_t *applied)
{
    const uint8_t *at = record->payload;
    size_t left = record->payload_length / 8;
    uint64_t fields[6];
    if (left < 6)
        return ERR_CORRUPT;
    memcpy(fields, at, sizeof fields);
    uint64_t reason_count = fields[4], word_count = fields[5];
    if (reason_count > 255 || word_count > LEDGER_WINDOW_MAX / 64 || left != 6 + reason_count + word_count)
        return ERR_CORRUPT;
    struct ledger loaded = {.cursor = fields[1], .completed = fields[2], .duplicates = fields[3], .highest = fields[1]};
    at += sizeof fields;
    for (uint64_t i = 0; i < reason_count; i++, at += 8) {
        uint64_t count;
        memcpy(&count, at, 8);
        loaded.dead_lettered[i < REASON_COUNT ? i : REASON_INTERNAL] += count;
    }
    int error = word_count ? reach(&loaded, (loaded.cursor / 64 + word_count - 1) * 64) : 0;
    if (error)
        return error;
    for (uint64_t i = 0; i < word_count; i++, at += 8) {
        uint64_t word, first = (loaded.cursor / 64 + i) * 64;
        memcpy(&word, at, 8);
        *word_of(&loaded, first) = word;
        if (i == 0)
            word &= ~(uint64_t)0 << (loaded.cursor % 64);
        loaded.beyond += (uint64_t)__builtin_popcountll(word);
        if (word)
            loaded.highest = first + 64 - (uint64_t)__builtin_clzll(word);
    }
    ledger_fini(ledger);
    *ledger = loaded;
    *applied = fields[0];
    return 0;
}

int ledger_checkpoint_encode(const struct ledger *ledger, uint64_t applied, struct buffer *out)
{
    uint64_t word_count = ledger->highest > ledger->cursor ? (ledger->highest - 1) / 64 - ledger->cursor / 64 + 1 : 0;
    uint64_t fields[6] = {applied, ledger->cursor, ledger->completed, ledger->duplicates, REASON_COUNT, word_count};
    int error = buffer_reserve(out, sizeof fields + sizeof ledger->dead_lettered + word_count * 8);
    if (error)
        return error;
    buffer_append(out, fields, sizeof fields);
    buffer_append(out, ledger->dead_lettered, sizeof ledger->dead_lettered);
    for (uint64_t i = 0; i < word_count; i++)
        buffer_append(out, word_of(ledger, (ledger->cursor / 64 + i) * 64), 8);
    return 0;
}

bool ledger_is_checkpoint(const struct message *record)
{
    return record->properties_length == strlen(ledger_checkpoint_mark) &&
           memcmp(record->properties, ledger_checkpoint_mark, record->properties_length) == 0;
}

int ledger_apply(struct ledger *ledger, const struct message *record)
{
    if (record->properties_length || record->payload_length % 8)
        return ERR_CORRUPT;
    int result = 0;
    for (uint32_t i = 0; i < record->payload_length; i += 8) {
        uint64_t entry;
        memcpy(&entry, record->payload + i, 8);
        unsigned outcome = entry >> 8 & 0xff;
        if (outcome < QUEUE_COMPLETED || outcome > QUEUE_DEAD_LETTERED)
            return ERR_CORRUPT;
        int error = ledger_settle(ledger, entry >> 16, (enum queue_outcome)outcome, entry & 0xff);
        if (error == ERR_LIMIT) {
            ledger->left_out++;
            result = error;
        } else if (error < 0) {
            return error;
        }
    }
    return result;
}

static bool is_for(const struct message *record, const char *stream)
{
    return record->topic_length == strlen(stream) && memcmp(record->topic, stream, record->topic_length) == 0;
}

bool ledger_is_of_marks(const struct message *record)
{
    return is_for(record, ledger_marks_stream);
}

/* One folder that is read for the ledger. */
struct loading {
    struct disk *disk;
    char folder[LEDGER_PATH_MAX];
    const char *stream; /* its name */
    uint64_t least;     /* records before it do not matter */
    uint64_t spoken_of; /* offset behind the highest source so far */
    bool has_checkpoint;
    bool damaged;                 /* note_damage was called */
    const struct ledger *settled; /* damage to messages that have an outcome here does not matter; NULL: all damage does */
    struct buffer *found;         /* ledger_load_found; may be NULL */
    ledger_on_damage on_damage;
    void *context;
};

static void open_loading(struct loading *loading, const char *data_folder, const char *stream)
{
    snprintf(loading->folder, sizeof loading->folder, "%s/%s", data_folder, stream);
    loading->stream = stream;
    loading->least = 0;
    loading->has_checkpoint = loading->damaged = false;
    loading->settled = NULL;
}

/* For what is told only when all is read, and then by reading it again. */
static void note_damage(void *context, const struct reader_damage *damage)
{
    struct loading *loading = context;
    (void)damage;
    loading->damaged = true;
}

static bool all_settled(const struct ledger *ledger, uint64_t first, uint64_t next)
{
    uint64_t offset = first > ledger->cursor ? first : ledger->cursor;
    while (offset < next && ledger_is_settled(ledger, offset))
        offset++;
    return offset >= next;
}

static void pass_damage_on(void *context, const struct reader_damage *damage)
{
    const struct loading *loading = context;
    if (loading->settled && !damage->unbounded && all_settled(loading->settled, damage->first_offset, damage->next_offset))
        return;
    if (loading->on_damage && (damage->unbounded || damage->next_offset > damage->first_offset) &&
        (damage->unbounded || damage->next_offset > loading->least))
        loading->on_damage(loading->context, loading->stream, damage);
}

int ledger_load_checkpoint(struct ledger *ledger, struct disk *disk, const char *outcomes, const char *stream, uint64_t *applied,
                           bool *found)
{
    struct reader *reader;
    int error = reader_open(&reader, disk, outcomes, 0, NULL, NULL);
    if (error)
        return error;
    struct message record;
    while (!(error = reader_next(reader, UINT64_MAX, &record, NULL)))
        if (is_for(&record, stream) && ledger_is_checkpoint(&record) && !ledger_checkpoint_decode(ledger, &record, applied))
            *found = true;
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

/* Applies what `outcomes` says from record loading->least on. *first: the first record of those that is still there. */
static int load_entries(struct ledger *ledger, struct loading *loading, const char *stream, uint64_t *first)
{
    struct reader *reader;
    int error = reader_open(&reader, loading->disk, loading->folder, loading->least, pass_damage_on, loading);
    if (error)
        return error;
    *first = reader_offset(reader);
    struct message record;
    while (!(error = reader_next(reader, UINT64_MAX, &record, NULL))) {
        if (!is_for(&record, stream) || ledger_is_checkpoint(&record))
            continue;
        int failed = ledger_apply(ledger, &record);
        if (failed && failed != ERR_CORRUPT && failed != ERR_LIMIT) {
            error = failed;
            break;
        }
    }
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

/* `begun_late`: the stream was not spoken of from the beginning, so that without a checkpoint nothing is missing. */
static int load_outcomes(struct ledger *ledger, struct loading *loading, const char *stream, bool begun_late)
{
    for (unsigned attempt = 1;; attempt++) {
        uint64_t first = 0;
        int error = ledger_load_checkpoint(ledger, loading->disk, loading->folder, stream, &loading->least, &loading->has_checkpoint);
        if (!error)
            error = load_entries(ledger, loading, stream, &first);
        if (error || first <= loading->least || (begun_late && !loading->has_checkpoint))
            return error == ERR_NOT_FOUND ? 0 : error;
        /* What comes behind the checkpoint is gone. Beside a running server there is a newer one by now. */
        if (attempt == LEDGER_LOAD_ATTEMPTS) {
            struct reader_damage damage = {.first_offset = loading->least, .next_offset = first};
            segment_name(first, damage.segment);
            pass_damage_on(loading, &damage);
            return 0;
        }
        ledger_fini(ledger);
        loading->least = 0;
        loading->has_checkpoint = false;
    }
}

/* An outcome that an answer or a dead letter tells. */
static void take_source(struct ledger *ledger, struct loading *loading, uint64_t offset, enum queue_outcome outcome, unsigned reason)
{
    uint64_t entry = ledger_entry(offset, outcome, reason);
    if (ledger_settle(ledger, offset, outcome, reason) == 1 && loading->found)
        (void)buffer_append(loading->found, &entry, sizeof entry); /* what has no room is in the next checkpoint all the same */
}

/* Settles what a record of `results` or `dead-letters` names as its sources. Returns whether all of them had an outcome before. */
static bool take_sources(struct ledger *ledger, struct loading *loading, bool dead_letters, uint64_t accepted, const struct message *record,
                         const uint8_t *bytes)
{
    const uint64_t *sources;
    size_t source_count = format_record_sources(bytes, &sources);
    bool known = source_count;
    unsigned reason = REASON_NONE;
    if (dead_letters && source_count && !ledger_is_settled(ledger, sources[0]))
        reason = dead_letter_reason(record);
    for (size_t i = 0; i < source_count; i++) {
        known = known && ledger_is_settled(ledger, sources[i]);
        if (sources[i] >= loading->spoken_of)
            loading->spoken_of = sources[i] + 1;
        if (sources[i] < accepted)
            take_source(ledger, loading, sources[i], dead_letters ? QUEUE_DEAD_LETTERED : QUEUE_COMPLETED, reason);
    }
    return known;
}

/* Tells the damage behind record `from` of the stream. */
static int tell_damage(struct loading *loading, uint64_t from)
{
    struct reader *reader;
    struct message record;
    loading->least = from;
    int error = reader_open(&reader, loading->disk, loading->folder, from, pass_damage_on, loading);
    if (error)
        return error;
    while (!(error = reader_next(reader, UINT64_MAX, &record, NULL)))
        continue;
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

/* Settles what the newest records of `results` or `dead-letters` name as their sources.
 *
 * What they say is on disk before the outcomes that say the same, and a group of outcomes is cut off as a whole. So once `outcomes` has
 * settled the sources of a record, it holds what the records before said too: damage to those costs nothing. Nor does any while no message
 * is without an outcome. */
static int load_sources(struct ledger *ledger, struct loading *loading, bool dead_letters, uint64_t accepted)
{
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(loading->disk, loading->folder, &bases, &count);
    if (error)
        return error == ERR_NOT_FOUND ? 0 : error;
    uint64_t needed_from = count ? bases[count > LEDGER_TAIL_SEGMENTS ? count - LEDGER_TAIL_SEGMENTS : 0] : 0;
    free(bases);
    struct reader *reader;
    error = reader_open(&reader, loading->disk, loading->folder, needed_from, note_damage, loading);
    if (error)
        return error;
    struct message record;
    const uint8_t *bytes;
    while (!(error = reader_next(reader, UINT64_MAX, &record, &bytes)))
        if (take_sources(ledger, loading, dead_letters, accepted, &record, bytes))
            needed_from = record.offset + 1;
    reader_close(reader);
    if (error != ERR_TRUNCATED)
        return error;
    return loading->damaged && ledger->cursor < accepted ? tell_damage(loading, needed_from) : 0;
}

static int first_kept(const struct loading *loading, uint64_t *first)
{
    uint64_t *bases = NULL;
    size_t count = 0;
    int error = segment_list(loading->disk, loading->folder, &bases, &count);
    if (!error)
        *first = count ? bases[0] : 0;
    free(bases);
    return error == ERR_NOT_FOUND ? 0 : error;
}

int ledger_load(struct ledger *ledger, struct disk *disk, const char *data_folder, const char *stream, struct ledger_extent *extent,
                ledger_on_damage on_damage, void *context)
{
    return ledger_load_found(ledger, disk, data_folder, stream, extent, on_damage, context, NULL);
}

int ledger_load_found(struct ledger *out, struct disk *disk, const char *data_folder, const char *stream, struct ledger_extent *extent,
                      ledger_on_damage on_damage, void *context, struct buffer *entries)
{
    struct loading loading = {.disk = disk, .on_damage = on_damage, .context = context, .found = entries};
    struct ledger_extent found = {0};
    struct ledger ledger;
    ledger_init(&ledger);
    /* Beside a running server: the beginning before the outcomes, which let it go, and the end after them. */
    open_loading(&loading, data_folder, stream);
    int error = first_kept(&loading, &found.first);
    open_loading(&loading, data_folder, "outcomes");
    if (!error)
        error = load_outcomes(&ledger, &loading, stream, false);
    open_loading(&loading, data_folder, stream);
    if (!error)
        error = segment_stream_end(disk, loading.folder, note_damage, &loading, &found.next);
    if (error == ERR_NOT_FOUND)
        error = 0;
    bool damaged = loading.damaged;
    open_loading(&loading, data_folder, "results");
    if (!error)
        error = load_sources(&ledger, &loading, false, found.next);
    open_loading(&loading, data_folder, "dead-letters");
    if (!error)
        error = load_sources(&ledger, &loading, true, found.next);
    open_loading(&loading, data_folder, stream);
    loading.settled = &ledger;
    uint64_t next;
    if (!error && damaged)
        error = segment_stream_end(disk, loading.folder, pass_damage_on, &loading, &next);
    if (error) {
        ledger_fini(&ledger);
        return error;
    }
    found.spoken_of = loading.spoken_of > ledger.cursor ? loading.spoken_of : ledger.cursor;
    if (found.spoken_of < ledger.highest)
        found.spoken_of = ledger.highest;
    *out = ledger;
    *extent = found;
    return 0;
}

/* Marks what requeued messages from `from` on name. */
static int load_requeued(struct ledger *marks, const struct loading *loading, uint64_t from)
{
    struct reader *reader;
    int error = reader_open(&reader, loading->disk, loading->folder, from, NULL, NULL);
    if (error)
        return error == ERR_NOT_FOUND ? 0 : error;
    struct message record;
    struct dead_letter letter;
    while (!(error = reader_next(reader, UINT64_MAX, &record, NULL))) {
        if (!(record.flags & MESSAGE_REQUEUED) || dead_letter_decode(&record, &letter) || letter.place == DEAD_LETTER_NO_PLACE)
            continue;
        int settled = ledger_settle(marks, letter.place, (enum queue_outcome)LEDGER_MARK_REQUEUED, REASON_NONE);
        if (settled < 0) {
            error = settled;
            break;
        }
    }
    reader_close(reader);
    return error == ERR_TRUNCATED ? 0 : error;
}

int ledger_load_marks(struct ledger *out, struct disk *disk, const char *data_folder, uint64_t pending_from, struct ledger_extent *extent,
                      ledger_on_damage on_damage, void *context)
{
    const char *stream = ledger_marks_stream;
    struct loading loading = {.disk = disk, .on_damage = on_damage, .context = context};
    struct ledger_extent found = {0};
    struct ledger marks;
    ledger_init(&marks);
    open_loading(&loading, data_folder, stream);
    int error = first_kept(&loading, &found.first);
    open_loading(&loading, data_folder, "outcomes");
    if (!error)
        error = load_outcomes(&marks, &loading, stream, true);
    open_loading(&loading, data_folder, "ingest");
    if (!error && pending_from != UINT64_MAX)
        error = load_requeued(&marks, &loading, pending_from);
    open_loading(&loading, data_folder, stream);
    if (!error)
        error = segment_stream_end(disk, loading.folder, NULL, NULL, &found.next);
    if (error == ERR_NOT_FOUND)
        error = 0;
    if (error) {
        ledger_fini(&marks);
        return error;
    }
    if (marks.cursor > found.next || marks.highest > found.next)
        ledger_fini(&marks);
    ledger_forget(&marks, found.first);
    *out = marks;
    *extent = found;
    return 0;
}

enum ledger_fit ledger_fits(const struct ledger *ledger, const struct ledger_extent *extent, char why[LEDGER_WHY_MAX])
{
    uint64_t spoken_of = ledger->highest > ledger->cursor ? ledger->highest : ledger->cursor;
    if (spoken_of > extent->next) {
        snprintf(why, LEDGER_WHY_MAX,
                 "the outcomes speak of messages up to offset %" PRIu64 ", but the stream ends before offset %" PRIu64
                 ": its last segments are missing, cut, damaged, or of another time than those of `outcomes`",
                 spoken_of - 1, extent->next);
        return LEDGER_AHEAD;
    }
    if (ledger->cursor < extent->first) {
        uint64_t missing = 0;
        for (uint64_t offset = ledger->cursor; offset < extent->first && offset < ledger->highest; offset++)
            missing += !ledger_is_settled(ledger, offset);
        missing += extent->first > spoken_of ? extent->first - spoken_of : 0;
        snprintf(why, LEDGER_WHY_MAX,
                 "%" PRIu64 " messages from offset %" PRIu64 " on have no outcome and are not there: the first that the stream holds has "
                 "offset %" PRIu64 ". Its first segments, or segments of `outcomes`, are missing",
                 missing, ledger->cursor, extent->first);
        return LEDGER_BEHIND;
    }
    return LEDGER_FITS;
}
