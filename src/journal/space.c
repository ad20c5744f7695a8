#include "journal/space.h"

#include <stdio.h>

void space_look(struct disk *disk, const char *folder, uint64_t wanted, struct space *space)
{
    uint64_t total;
    *space = (struct space){.free = UINT64_MAX};
    if (disk->ops->space(disk, folder, &space->free, &total) == 0)
        space->least = wanted < total / SPACE_SHARE ? wanted : total / SPACE_SHARE;
}

void space_text(const struct space *space, char text[SPACE_TEXT_MAX])
{
    snprintf(text, SPACE_TEXT_MAX, "%.1f MiB of the disk are free, and its last %.1f MiB (journal.disk_free_min) are not for new messages",
             (double)space->free / (1 << 20), (double)space->least / (1 << 20));
}
