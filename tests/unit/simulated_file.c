/* Pages are shared between what is seen, what is durable and what was in between, and copied before they are written; a page of zeros is no
 * page at all. So a crash costs no more than its lists. */
#include "simulated_file.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct simulated_page {
    unsigned references;
    uint8_t bytes[SIMULATED_PAGE_SIZE];
};

static const uint8_t zeros[SIMULATED_PAGE_SIZE];

/* Something done to a file since its last sync. */
struct simulated_change {
    bool resize;                 /* to `size`; else page `index` became `page`, in a write that made the file at least `size` long */
    uint64_t size;               /* bytes */
    uint64_t index;              /* of the page */
    struct simulated_page *page; /* NULL: zeros */
};

void *simulated_grow(void *list, size_t *capacity, size_t count, size_t size)
{
    if (count < *capacity)
        return list;
    *capacity = *capacity ? *capacity * 2 : 16;
    list = realloc(list, *capacity * size);
    assert(list);
    return list;
}

/* ---- images ---- */

static struct simulated_page *page_share(struct simulated_page *page)
{
    if (page)
        page->references++;
    return page;
}

static void page_drop(struct simulated_page *page)
{
    if (page && --page->references == 0)
        free(page);
}

static struct simulated_page *image_page(const struct simulated_image *image, uint64_t index)
{
    return index < image->page_count ? image->pages[index] : NULL;
}

/* Takes the reference. */
static void image_put(struct simulated_image *image, uint64_t index, struct simulated_page *page)
{
    if (index >= image->page_count) {
        if (!page)
            return;
        uint64_t count = image->page_count ? image->page_count : 8;
        while (count <= index)
            count *= 2;
        image->pages = realloc(image->pages, count * sizeof(struct simulated_page *));
        assert(image->pages);
        memset(image->pages + image->page_count, 0, (count - image->page_count) * sizeof(struct simulated_page *));
        image->page_count = count;
    }
    page_drop(image->pages[index]);
    image->pages[index] = page;
}

/* The page with bytes [at, at + count) replaced, as a page of its own; NULL when that makes it zeros. */
static struct simulated_page *page_with(const struct simulated_page *page, size_t at, const uint8_t *bytes, size_t count)
{
    if ((!page || count == SIMULATED_PAGE_SIZE) && memcmp(bytes, zeros, count) == 0)
        return NULL;
    struct simulated_page *changed = malloc(sizeof *changed);
    assert(changed);
    changed->references = 1;
    memcpy(changed->bytes, page ? page->bytes : zeros, SIMULATED_PAGE_SIZE);
    memcpy(changed->bytes + at, bytes, count);
    return changed;
}

static void image_resize(struct simulated_image *image, uint64_t size)
{
    uint64_t whole = size / SIMULATED_PAGE_SIZE;
    size_t rest = size % SIMULATED_PAGE_SIZE;
    if (rest && image_page(image, whole))
        image_put(image, whole, page_with(image_page(image, whole), rest, zeros, SIMULATED_PAGE_SIZE - rest));
    for (uint64_t i = whole + (rest > 0); i < image->page_count; i++)
        image_put(image, i, NULL);
    image->size = size;
}

static struct simulated_image image_copy(const struct simulated_image *image)
{
    struct simulated_image copy = {.page_count = image->page_count, .size = image->size};
    copy.pages = malloc((copy.page_count + 1) * sizeof(struct simulated_page *));
    assert(copy.pages);
    for (uint64_t i = 0; i < copy.page_count; i++)
        copy.pages[i] = page_share(image->pages[i]);
    return copy;
}

static void image_fini(struct simulated_image *image)
{
    for (uint64_t i = 0; i < image->page_count; i++)
        page_drop(image->pages[i]);
    free(image->pages);
    *image = (struct simulated_image){0};
}

/* ---- what a crash leaves ---- */

/* How much survives: of 256 of a kind. */
uint32_t simulated_share(struct random_source *random)
{
    static const uint32_t shares[] = {0, 256, 256, 128, 128, 20, 236};
    return shares[random_below(random, sizeof shares / sizeof *shares)];
}

bool simulated_chance(struct random_source *random, uint32_t of_256)
{
    return random_below(random, 256) < of_256;
}

/* The new page with some sectors of the old one. */
static struct simulated_page *page_torn(const struct simulated_page *old, const struct simulated_page *new, struct random_source *random)
{
    uint8_t bytes[SIMULATED_PAGE_SIZE];
    for (size_t at = 0; at < sizeof bytes; at += SIMULATED_SECTOR_SIZE) {
        const struct simulated_page *source = simulated_chance(random, 128) ? new : old;
        memcpy(bytes + at, source ? source->bytes + at : zeros, SIMULATED_SECTOR_SIZE);
    }
    return page_with(NULL, 0, bytes, sizeof bytes);
}

/* Lets a part of the changes happen to the durable image. */
static void changes_survive(const struct simulated_file *file, struct simulated_image *durable, struct random_source *random)
{
    uint32_t pages = simulated_share(random), sizes = simulated_share(random);
    size_t resized_to = sizes == 0 ? 0 : sizes == 256 ? file->change_count : random_below(random, (uint32_t)file->change_count + 1);
    for (size_t i = 0; i < file->change_count; i++) {
        const struct simulated_change *change = &file->changes[i];
        if (change->resize) {
            if (i < resized_to)
                image_resize(durable, change->size);
            continue;
        }
        if (simulated_chance(random, pages))
            image_put(durable, change->index,
                      pages < 256 && simulated_chance(random, 64) ? page_torn(image_page(durable, change->index), change->page, random)
                                                                  : page_share(change->page));
        if (i < resized_to && change->size > durable->size)
            durable->size = change->size;
    }
    image_resize(durable, durable->size);
}

static void changes_forget(struct simulated_file *file)
{
    for (size_t i = 0; i < file->change_count; i++)
        page_drop(file->changes[i].page);
    file->change_count = 0;
}

void simulated_file_sync(struct simulated_file *file)
{
    for (size_t i = 0; i < file->change_count; i++) {
        const struct simulated_change *change = &file->changes[i];
        if (change->resize)
            image_resize(&file->durable, change->size);
        else
            image_put(&file->durable, change->index, page_share(change->page));
        if (!change->resize && change->size > file->durable.size)
            file->durable.size = change->size;
    }
    changes_forget(file);
}

static void add_change(struct simulated_file *file, struct simulated_change change)
{
    file->changes = simulated_grow(file->changes, &file->change_capacity, file->change_count, sizeof change);
    file->changes[file->change_count++] = change;
}

/* ---- files ---- */

void simulated_file_fini(struct simulated_file *file)
{
    changes_forget(file);
    free(file->changes);
    image_fini(&file->now);
    image_fini(&file->durable);
}

void simulated_file_write(struct simulated_file *file, const uint8_t *bytes, size_t count, uint64_t position)
{
    while (count) {
        uint64_t index = position / SIMULATED_PAGE_SIZE;
        size_t at = position % SIMULATED_PAGE_SIZE;
        size_t part = SIMULATED_PAGE_SIZE - at < count ? SIMULATED_PAGE_SIZE - at : count;
        struct simulated_page *page = page_with(image_page(&file->now, index), at, bytes, part);
        image_put(&file->now, index, page);
        if (position + part > file->now.size)
            file->now.size = position + part;
        add_change(file, (struct simulated_change){.size = position + part, .index = index, .page = page_share(page)});
        bytes += part;
        position += part;
        count -= part;
    }
}

void simulated_file_read(const struct simulated_file *file, uint8_t *bytes, size_t count, uint64_t position)
{
    while (count) {
        size_t at = position % SIMULATED_PAGE_SIZE;
        size_t part = SIMULATED_PAGE_SIZE - at < count ? SIMULATED_PAGE_SIZE - at : count;
        const struct simulated_page *page = image_page(&file->now, position / SIMULATED_PAGE_SIZE);
        memcpy(bytes, page ? page->bytes + at : zeros, part);
        bytes += part;
        position += part;
        count -= part;
    }
}

void simulated_file_resize(struct simulated_file *file, uint64_t size)
{
    image_resize(&file->now, size);
    add_change(file, (struct simulated_change){.resize = true, .size = size});
}

void simulated_file_fail_sync(struct simulated_file *file, struct random_source *random)
{
    changes_survive(file, &file->durable, random);
    changes_forget(file);
}

struct simulated_file simulated_file_crash(const struct simulated_file *file, struct random_source *random)
{
    struct simulated_file left = {.durable = image_copy(&file->durable)};
    changes_survive(file, &left.durable, random);
    left.now = image_copy(&left.durable);
    return left;
}

void simulated_file_damage(struct simulated_file *file, uint64_t position, uint8_t flipped_bits)
{
    uint64_t index = position / SIMULATED_PAGE_SIZE;
    size_t at = position % SIMULATED_PAGE_SIZE;
    struct simulated_image *const images[2] = {&file->now, &file->durable};
    for (unsigned i = 0; i < 2; i++) {
        const struct simulated_page *page = image_page(images[i], index);
        uint8_t byte = (page ? page->bytes[at] : 0) ^ flipped_bits;
        image_put(images[i], index, page_with(page, at, &byte, 1));
    }
}
