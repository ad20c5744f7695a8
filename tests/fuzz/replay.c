/* Feeds stored inputs to a fuzz target without libFuzzer, so that they run under any compiler and sanitizer: each file of the
 * files and folders named on the command line, then its prefixes and copies with one byte changed. */
#include <dirent.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "fuzz.h"

enum { INPUT_SIZE_MAX = 1 << 20, VARIATIONS_MAX = 2048, PATH_SIZE = 4096, NAMES_MAX = 100000 };

/* On the heap in its exact size, so that a sanitizer sees the first byte read behind it. */
static void feed(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy)
        abort();
    if (size)
        memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

/* Positions are visited at such a distance that a large file does not take longer than a small one. */
static size_t stride_for(size_t size, size_t each)
{
    return size * each / VARIATIONS_MAX + 1;
}

static void feed_variations(uint8_t *data, size_t size)
{
    static const uint8_t masks[] = {0x01, 0x04, 0x10, 0x80, 0xff};
    for (size_t cut = 0; cut < size; cut += stride_for(size, 1))
        feed(data, cut);
    for (size_t at = 0; at < size; at += stride_for(size, sizeof masks))
        for (size_t i = 0; i < sizeof masks; i++) {
            data[at] ^= masks[i];
            feed(data, size);
            data[at] ^= masks[i];
        }
}

static bool replay_file(const char *path)
{
    static uint8_t data[INPUT_SIZE_MAX];
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        return false;
    }
    size_t size = fread(data, 1, sizeof data, file);
    bool read = !ferror(file) && fgetc(file) == EOF;
    fclose(file);
    if (!read) {
        fprintf(stderr, "%s: cannot be read, or is larger than %d bytes\n", path, INPUT_SIZE_MAX);
        return false;
    }
    feed(data, size);
    feed_variations(data, size);
    return true;
}

static bool replay(const char *path, unsigned *count);

static bool replay_folder(const char *path, unsigned *count)
{
    struct dirent **names;
    int name_count = scandir(path, &names, NULL, alphasort);
    if (name_count < 0) {
        perror(path);
        return false;
    }
    bool good = name_count <= NAMES_MAX;
    for (int i = 0; i < name_count; i++) {
        char inner[PATH_SIZE];
        int length = snprintf(inner, sizeof inner, "%s/%s", path, names[i]->d_name);
        if (good && names[i]->d_name[0] != '.')
            good = length < PATH_SIZE && replay(inner, count);
        free(names[i]);
    }
    free(names);
    return good;
}

static bool replay(const char *path, unsigned *count)
{
    struct stat status;
    if (stat(path, &status)) {
        perror(path);
        return false;
    }
    if (S_ISDIR(status.st_mode))
        return replay_folder(path, count);
    ++*count;
    return replay_file(path);
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    for (int i = 1; i < argc; i++)
        if (!replay(argv[i], &count))
            return 1;
    printf("%s: %u inputs and their variations\n", argv[0], count);
    return count ? 0 : 1;
}
