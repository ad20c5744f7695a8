/* A stream's folder as a whole: which files lie there, and whether all that was written can be read. It changes nothing, and works beside a
 * running server: what is being written, or taken away by retention, is not mistaken for damage. */
#ifndef JOURNAL_INSPECT_H
#define JOURNAL_INSPECT_H

#include "journal/reader.h"

/* ---- files ---- */

enum inspect_state {
    INSPECT_CLOSED,      /* nothing is added to it any more */
    INSPECT_ACTIVE,      /* the newest: the one being written, or written last */
    INSPECT_PREPARED,    /* "prepared.seg", "next.seg": will be the next */
    INSPECT_COMPRESSING, /* "compressed.seg": a closed one is being compressed */
    INSPECT_SPARE,       /* "spare.seg": retired, waits to be used again */
    INSPECT_ASIDE        /* "….seg.damaged": a recovery could read nothing of it */
};

enum { INSPECT_NAME_MAX = 64 };

struct inspect_file {
    char name[INSPECT_NAME_MAX];
    enum inspect_state state;
    uint64_t base_offset; /* CLOSED and ACTIVE */
    uint64_t bytes;
    uint64_t raw_bytes;  /* of a compressed segment: the bytes that it took before; else 0 */
    uint64_t created_ns; /* CLOSED and ACTIVE; 0: the header cannot be read */
};

/* The files of a stream: its segments in order of their offsets, then the others. *files is malloc'd (NULL when there are none). Other
 * names are passed over. ERR_NOT_FOUND when there is no such folder. */
int inspect_files(struct disk *disk, const char *folder, struct inspect_file **files, size_t *count);

/* ---- contents ---- */

enum inspect_kind {
    INSPECT_HEADER_COPY, /* one of the two copies of a header does not check out: nothing is lost */
    INSPECT_HEADER,      /* neither does. What can be read is read with the key of another segment */
    INSPECT_INDEX,       /* of a compressed segment: the index, or a frame's header where there is an index. Nothing is lost */
    INSPECT_FOREIGN,     /* the header is of another stream or offset than the file's place and name say */
    INSPECT_RECORDS,     /* bytes that do not check out */
    INSPECT_MISSING,     /* offsets that no file holds: the end of a segment, or whole segments, are gone */
    INSPECT_REPEATED,    /* records with offsets that an earlier segment holds already; they are passed over */
    INSPECT_TORN /* what looks like a crash's rest of the last group. No damage: of such nothing was acknowledged; a start cuts it off */
};

struct inspect_finding {
    enum inspect_kind kind;
    struct reader_damage place; /* for MISSING, what lies before it */
};

struct inspect_visitor {
    void *context;
    /* Each record in order, without seals; `bytes` is the stored one, both are borrowed. Another value than 0 ends the inspection with it.
     */
    int (*record)(void *context, const struct message *message, const uint8_t *bytes, const struct reader_place *place);
    void (*finding)(void *context, const struct inspect_finding *finding);
    void (*progress)(void *context, uint64_t bytes); /* so many more are done with */
};

struct inspect_end {
    uint64_t segments, records, bytes; /* bytes of the segments' files */
    uint64_t first_offset, next_offset;
    uint64_t lost;                     /* offsets between them without a record */
    bool sealed;                       /* closed in order */
    uint64_t last_base, last_position; /* the last segment, and the byte behind what was read of it */
};

/* Reads all that the folder holds from the segment on that holds offset `from` (UINT64_MAX: the last one alone). `stream` is the name that
 * the headers should have. Functions of the visitor may be NULL. ERR_NOT_FOUND when there is no such folder, ERR_FORMAT_VERSION, ERR_IO,
 * or what `record` returned; *end is filled in that case too. */
int inspect_stream(struct disk *disk, const char *folder, const char *stream, uint64_t from, const struct inspect_visitor *visitor,
                   struct inspect_end *end);

#endif
