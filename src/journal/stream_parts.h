/* What stream.c, stream_recovery.c and stream_keeper.c share. */
#ifndef JOURNAL_STREAM_PARTS_H
#define JOURNAL_STREAM_PARTS_H

#include "journal/stream.h"

/* Files of a stream that are no segments yet, or no more: what the keeper prepares, and a retired one to be used again. */
extern const char stream_name_prepared[], stream_name_spare[];

void stream_file_path(const struct journal_stream *stream, const char *name, char path[STREAM_PATH_MAX]);

/* Opens a file for writing, and makes it if it is not there. Returns 0 with *file. */
int stream_file_create(struct journal_stream *stream, const char *name, int *file);

/* Writes zeros from one position to another, and syncs. */
int stream_file_zero(struct journal_stream *stream, int file, uint64_t from, uint64_t to);

/* Adds one behind the last that is known. Under lock once the keeper works. Returns 0 or ERR_NO_MEMORY. */
int stream_add_segment(struct journal_stream *stream, uint64_t base_offset, uint64_t bytes, uint64_t created_ns);

/* Keeper thread: notes, and syncs, that records before `first_offset` are about to be removed (ends.h). Returns false when that cannot be
 * done: then they must stay. It is the journal's (journal.c), whose file that is. */
bool journal_note_first(struct journal *journal, const struct journal_stream *stream, uint64_t first_offset);

/* Finds the segments that are there, cuts off what a crash has left behind the last group, puts aside what cannot be read where it stands,
 * and goes behind known_end if the files end before it. next_offset, key and the segments follow. */
int stream_recover(struct journal_stream *stream);

#endif
