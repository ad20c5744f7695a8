/* "ends" in the data folder: up to where each stream was written, told outside of the streams.
 *
 * The newest segments of a stream may be deleted, cut, or put back from an older copy while no server runs, and nothing in what is left
 * of the stream tells. So the journal notes behind what it has made durable how far each stream has come: the keeper does, within
 * ENDS_INTERVAL_MS of a group, without a sync, and never on the way of what waits for the disk. A start and an orderly end also sync it.
 * So what stands there was reached; how far a stream has come since, after a kill or a loss of power, the file does not tell.
 *
 * A stream whose files end before that has lost records. It goes on behind them, and its readers report the gap.
 *
 * The file has two blocks of 4,096 bytes, written in turn, so that one stands whatever becomes of a write. Offsets only grow, so the
 * greater of the two is right. Each:
 *
 *    0  8 bytes  "SPNDLEND"
 *    8  u32      version of this file: 1
 *   12  u32      number of streams, at most 16
 *   16  72 bytes each: name of the stream, filled up with zeros (64), and the offset behind its last record (u64)
 * 4088  u64      XXH3-64 of the 4,088 bytes before
 *
 * Where nothing is synced (data.durability os or memory), a loss of power may leave more here than of the stream: then that is what was
 * lost. Without the file nothing is known, as in a folder of a version that did not write it. */
#ifndef JOURNAL_ENDS_H
#define JOURNAL_ENDS_H

#include <stdbool.h>

#include "journal/disk.h"
#include "journal/format.h"

enum { ENDS_INTERVAL_MS = 100 };

/* Reads the file of a data folder. Returns 0; ERR_NOT_FOUND: there is none; ERR_CORRUPT: nothing of it stands; or an error of reading. */
int ends_read(struct disk *disk, const char *data_folder, struct format_ends *ends);

/* Writes one of the blocks: those of even and of odd turns in turn. Makes the file when it is not there. */
int ends_write(struct disk *disk, const char *data_folder, const struct format_ends *ends, uint64_t turn, bool sync);

/* The offset behind the last that is known to have been written; 0: nothing is known of the stream. */
uint64_t ends_of(const struct format_ends *ends, const char *stream);

/* Returns whether it is news. A stream beyond FORMAT_ENDS_MAX is not noted. */
bool ends_raise(struct format_ends *ends, const char *stream, uint64_t next_offset);

/* Of a stream whose files end before `next`, as a sentence for a person: which offsets are lost, and what to do. */
enum { ENDS_TEXT_MAX = 512 };
void ends_lost_text(uint64_t next, uint64_t known, char text[ENDS_TEXT_MAX]);

#endif
