/* Removing old segments because somebody asks for it, beside retention. Who asks decides what goes, from the segments as they are
 * (retention_plan), and waits; the keeper, which alone removes files, does it where it does the work of retention (stream_keeper.c). */
#ifndef JOURNAL_TRIM_H
#define JOURNAL_TRIM_H

#include <stdbool.h>

#include "journal/stream.h"

/* Keeper thread, under the stream's lock: whether the oldest segment is to go for whoever asks. Tells him when there is nothing more. */
bool trim_is_asked(struct journal_stream *stream);

/* Keeper thread, under lock: the oldest segment is gone, and about to leave the list. */
void trim_note(struct journal_stream *stream);

/* Keeper thread, under lock: nothing more can be removed, because of this error. */
void trim_fail(struct journal_stream *stream, int error);

/* Whether the keeper runs. When it has ended, whoever waits is told. */
void trim_allow(struct journal *journal, bool has_keeper);

#endif
