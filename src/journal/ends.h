/* "ends" in the data folder: from where to where each stream reaches, told outside of the streams.
 *
 * The newest segments of a stream may be deleted, cut, or put back from an older copy while no server runs, and nothing in what is left
 * of the stream tells. So the journal notes behind what it has made durable how far each stream has come: the keeper does, within
 * ENDS_INTERVAL_MS of a group, without a sync, and never on the way of what waits for the disk. A start and an orderly end also sync it.
 * So what stands there was reached; how far a stream has come since, after a kill or a loss of power, the file does not tell.
 *
 * A stream whose files end before that has lost records. It goes on behind them, and its readers report the gap.
 *
 * The oldest segments may be deleted in the same way, and retention removes them too. So the file also notes the offset before which
 * retention and `journal trim` have removed what there was: with a sync, before the first file goes. A stream whose first file begins
 * behind that has lost records; its readers, and each start, say so until the files are put back, or retention has come so far. Whoever
 * compares the two beside a running server lists the files first, and then reads this; with the ends it is the other way round.
 *
 * The file has two blocks of 4,096 bytes, written in turn, so that one stands whatever becomes of a write. Offsets only grow, so the
 * greater of the two is right. Each:
 *
 *    0  8 bytes  "SPNDLEND"
 *    8  u32      version of this file: 2. In 1 the entries have 72 bytes, without the last field, and nothing is known of beginnings
 *   12  u32      number of streams, at most 16
 *   16  80 bytes each: name of the stream, filled up with zeros (64), the offset behind its last record (u64), and the offset before
 *                which records may have been removed (u64; all bits set: not known)
 * 4088  u64      XXH3-64 of the 4,088 bytes before
 *
 * Where nothing is synced (data.durability os or memory), a loss of power may leave more here than of the stream: then that is what was
 * lost. Without the file nothing is known, as in a folder of a version that did not write it. */
#ifndef JOURNAL_ENDS_H
#define JOURNAL_ENDS_H

#include <stdbool.h>

#include "journal/disk.h"
#include "journal/format.h"

enum { ENDS_INTERVAL_MS = 100, ENDS_TEXT_MAX = 512 };

/* Reads the file of a data folder. Returns 0; ERR_NOT_FOUND: there is none; ERR_CORRUPT: nothing of it stands; or an error of reading. */
int ends_read(struct disk *disk, const char *data_folder, struct format_ends *ends);

/* Writes one of the blocks: those of even and of odd turns in turn. Makes the file when it is not there. */
int ends_write(struct disk *disk, const char *data_folder, const struct format_ends *ends, uint64_t turn, bool sync);

/* Writes and syncs both, one after the other: for what must stand whatever becomes of the next write, and of all that was not synced. */
int ends_write_both(struct disk *disk, const char *data_folder, const struct format_ends *ends);

/* 0 also when there is none. */
int ends_remove(struct disk *disk, const char *data_folder);

/* The offset behind the last that is known to have been written; 0: nothing is known of the stream. */
uint64_t ends_of(const struct format_ends *ends, const char *stream);

/* Returns whether it is news. A stream beyond FORMAT_ENDS_MAX is not noted. */
bool ends_raise(struct format_ends *ends, const char *stream, uint64_t next_offset);

/* The offset before which records of the stream may have been removed; FORMAT_BEGINNING_UNKNOWN. */
uint64_t ends_first_of(const struct format_ends *ends, const char *stream);

/* Replaces what is not known, or less. Returns whether it is news. */
bool ends_raise_first(struct format_ends *ends, const char *stream, uint64_t first_offset);

/* On the folder of a stopped server: notes, and syncs, that records before `first_offset` are about to be removed. Where nothing is noted
 * of beginnings nothing is changed. Returns 0 or an error of writing; then nothing may be removed. */
int ends_note_first(struct disk *disk, const char *data_folder, const char *stream, uint64_t first_offset);

/* Of a stream whose first file begins at `first`, as a sentence for a person: which offsets are lost, and what to do. */
void ends_lost_beginning_text(uint64_t known, uint64_t first, char text[ENDS_TEXT_MAX]);

/* Of a stream whose files end before `next`, as a sentence for a person: which offsets are lost, and what to do. */
void ends_lost_text(uint64_t next, uint64_t known, char text[ENDS_TEXT_MAX]);

#endif
